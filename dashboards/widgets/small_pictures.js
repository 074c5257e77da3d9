// Pictures to choose from; with boxes, all but the boxes is darkened. Text from data goes through textContent only.
const SVG = "http://www.w3.org/2000/svg";
let count = 0;

function drawn(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function spotlight(svg, item) {
  const id = `lit-${count++}`;
  const mask = drawn("mask", { id });
  // One path for all boxes: a frequent word has hundreds of them in each of two dozen pictures.
  const d = item.boxes.map(([x, y, x1, y1]) => `M${x} ${y}H${x1}V${y1}H${x}Z`).join("");
  mask.append(drawn("rect", { width: item.width, height: item.height, fill: "#fff" }), drawn("path", { d, fill: "#000" }));
  const dark = drawn("rect", { width: item.width, height: item.height, fill: "rgb(8,10,14)", opacity: 0.78, mask: `url(#${id})` });
  svg.append(mask, dark, drawn("path", { d, fill: "none", stroke: "#ffd21f", "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" }));
}

function tile(item, open) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `${item.title || item.text}. ${item.note}`);
  if (item.text === null) {
    const svg = drawn("svg", { viewBox: `0 0 ${item.width} ${item.height}`, "aria-hidden": "true" });
    if (item.picture) svg.append(drawn("image", { href: item.picture, width: item.width, height: item.height, preserveAspectRatio: "none" }));
    if (item.boxes) spotlight(svg, item);
    button.append(svg);
  } else {
    const text = document.createElement("div");
    text.className = "text"; text.dir = "auto"; text.textContent = item.text;
    button.append(text);
  }
  const note = document.createElement("div");
  note.className = "note";
  const title = document.createElement("b");
  title.dir = "auto"; title.textContent = item.title; title.hidden = !item.title;
  const more = document.createElement("span");
  more.dir = "auto"; more.textContent = item.note;
  note.append(title, more);
  button.append(note);
  button.addEventListener("click", () => open(item.id));
  return button;
}

export default function ({ data: [data], parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".tiles");
  root.trigger = setTriggerValue;
  if (root.version === data.version) return;
  root.version = data.version;
  root.style.setProperty("--least", data.least);
  root.replaceChildren(...data.items.map((item) => tile(item, (id) => root.trigger("opened", id))));
  moveAmong(root, null);
}
