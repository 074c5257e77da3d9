// One patch through all layers and lenses. Text from data goes through textContent only.
function cell(name, text = null, attributes = {}) {
  const node = document.createElement(name);
  if (text !== null) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function answer(entry, open) {
  const button = cell("button", null, { type: "button", "aria-current": String(entry.current), title: entry.title });
  button.append(cell("b", entry.word || "–", { dir: "auto" }));
  const small = cell("small");
  if (entry.color) {
    const mark = cell("span", null, { class: "mark" });
    mark.style.background = entry.color;
    small.append(mark);
  }
  small.append(document.createTextNode(entry.said));
  button.append(small);
  button.addEventListener("click", () => open([entry.lens, entry.layer]));
  return button;
}

export default function ({ data: [data], parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".strip");
  root.trigger = setTriggerValue;
  const text = JSON.stringify(data);
  if (root.shown === text) return;
  root.shown = text;
  const focused = [...root.querySelectorAll("button")].indexOf(parentElement.activeElement);
  const table = cell("table");
  table.style.setProperty("--layers", data.layers.length);
  table.append(cell("caption", "", { style: "display:none" }));
  const head = cell("tr");
  head.append(cell("th", "Visual layer", { scope: "row" }), ...data.layers.map((layer) => cell("th", String(layer), { scope: "col" })));
  table.append(head);
  for (const row of data.rows) {
    const line = cell("tr");
    line.append(cell("th", row.name, { scope: "row" }));
    for (const entry of row.entries) {
      const box = cell("td");
      if (entry) box.append(answer(entry, (place) => root.trigger("opened", place)));
      line.append(box);
    }
    table.append(line);
  }
  root.replaceChildren(table);
  moveAmong(root, root.querySelector("button[aria-current='true']"));
  if (focused >= 0) root.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
}
