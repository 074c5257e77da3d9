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
  mask.append(drawn("rect", { width: item.width, height: item.height, fill: "#fff" }));
  const marks = [];
  for (const [x, y, x1, y1] of item.boxes) {
    mask.append(drawn("rect", { x, y, width: x1 - x, height: y1 - y, fill: "#000" }));
    marks.push(drawn("rect", { x, y, width: x1 - x, height: y1 - y, fill: "none", stroke: "#ffd21f", "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" }));
  }
  svg.append(mask, drawn("rect", { width: item.width, height: item.height, fill: "rgb(8,10,14)", opacity: 0.78, mask: `url(#${id})` }), ...marks);
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
