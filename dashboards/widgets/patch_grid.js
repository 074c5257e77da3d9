// The patches of an image. Text from data goes through textContent only.
const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "rect", "image", "text"]);
const SEND_AFTER_MS = 90; // while an arrow key is held, only where it stops is asked for

function make(name, attributes = {}, text = null) {
  const node = DRAWN.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
}

function legend(data) {
  const colors = data.legend.ramp || data.legend.entries;
  const node = make("div", { class: colors ? "legend" : "legend hint", role: "group", "aria-label": "Legend" });
  if (data.legend.title) node.append(make("span", {}, data.legend.title));
  if (data.legend.ramp) {
    node.append(make("span", {}, data.legend.low));
    const ramp = make("span", { class: "ramp" });
    ramp.style.background = `linear-gradient(to right, ${data.legend.ramp.join(",")})`;
    node.append(ramp, make("span", {}, data.legend.high));
  }
  for (const [color, label] of data.legend.entries || []) {
    const entry = make("span");
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = color;
    entry.append(swatch, document.createTextNode(label));
    node.append(entry);
  }
  return node;
}

function placeOf(patch) {
  return patch.row === null ? `token ${patch.id}` : `row ${patch.row + 1}, column ${patch.col + 1}`;
}

function describe(patch) {
  return `${placeOf(patch)}: ${patch.word || "no answer"}${patch.said ? ", " + patch.said : ""}`;
}

function words(svg, patches) {
  for (const patch of patches) {
    if (!patch.set) continue;
    const { size, lines } = patch.set;
    const top = patch.cy - ((lines.length - 1) * size * 1.14) / 2;
    for (const [number, line] of lines.entries()) {
      svg.append(make("text", { x: patch.cx, y: top + number * size * 1.14, "font-size": size, "stroke-width": size / 6, direction: "ltr" }, line));
    }
  }
}

function drawing(state) {
  const { data } = state;
  const [left, top, right, bottom] = data.frame;
  const svg = make("svg", { viewBox: `${left} ${top} ${right - left} ${bottom - top}`, "aria-hidden": "true" });
  if (data.picture) svg.append(make("image", { href: data.picture, width: data.width, height: data.height, preserveAspectRatio: "none" }));
  for (const patch of data.patches) {
    const [x, y, x1, y1] = patch.box;
    const rect = make("rect", { x, y, width: x1 - x, height: y1 - y, class: patch.hit ? "patch hit" : "patch", "data-id": patch.id });
    rect.style.fill = patch.fill || "transparent";
    svg.append(rect);
  }
  words(svg, data.patches);
  state.hover = make("rect", { class: "hover", visibility: "hidden" });
  state.halo = make("rect", { class: "halo", visibility: "hidden" });
  state.chosen = make("rect", { class: "chosen", visibility: "hidden" });
  svg.append(state.hover, state.halo, state.chosen);
  return svg;
}

function board(state, send) {
  const { data } = state;
  const [left, top, right, bottom] = data.frame;
  const frame = make("div", { class: "frame" });
  frame.style.setProperty("--aspect", (right - left) / (bottom - top));
  frame.style.setProperty("--highest", `${data.highest}rem`);
  const svg = drawing(state);
  const node = data.patches.length
    ? make("div", { class: "board", tabindex: "0", role: "application", "aria-roledescription": "patch grid", "aria-label": data.label })
    : make("div", { class: "board still", role: "img", "aria-label": data.label });
  const tip = make("div", { class: "tip", dir: "auto", "aria-hidden": "true" });
  const at = (event) => state.byId.get(Number(event.target?.dataset?.id));
  svg.addEventListener("pointermove", (event) => {
    const patch = at(event);
    tip.style.display = patch ? "block" : "none";
    outline(state.hover, patch);
    if (!patch) return;
    tip.textContent = describe(patch);
    const area = frame.getBoundingClientRect();
    const from = event.clientX - area.left;
    tip.style.left = `${Math.max(0, Math.min(from + 14, area.width - tip.offsetWidth))}px`;
    tip.style.top = `${event.clientY - area.top + 18}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.style.display = "none"; outline(state.hover, null); });
  svg.addEventListener("click", (event) => { const patch = at(event); if (patch) { node.focus({ preventScroll: true }); send(patch.id, 0); } });
  node.addEventListener("keydown", (event) => {
    const patch = ledTo(event, data.patches, state.placed.get(state.selected) || data.patches[0]);
    if (MOVES[event.key] || patch) event.preventDefault(); // at the edge, too, where the page would scroll away
    if (patch && patch.id !== state.selected) send(patch.id, SEND_AFTER_MS);
  });
  node.append(svg);
  frame.append(node, tip);
  return frame;
}

function outline(rect, patch) {
  rect.setAttribute("visibility", patch && patch.box ? "visible" : "hidden");
  if (!patch || !patch.box) return;
  const [x0, y0, x1, y1] = patch.box;
  for (const [name, value] of [["x", x0], ["y", y0], ["width", x1 - x0], ["height", y1 - y0]]) rect.setAttribute(name, value);
}

function token(entry, data, send) {
  const node = make("button", { type: "button", "data-id": entry.id, "aria-pressed": "false", title: describe(entry) });
  node.append(make("span", { dir: "auto" }, entry.label));
  if (entry.said && (data.words || !data.flowing)) node.append(make("small", { dir: "auto" }, entry.word || "–"));
  if (entry.hit) node.classList.add("hit");
  else if (data.dimmed) node.classList.add("miss");
  else if (entry.fill) node.style.borderBottom = `4px solid ${entry.fill}`;
  node.addEventListener("click", () => send(entry.id, 0));
  return node;
}

function apart(state, send) {
  const { data } = state;
  const list = make("div", { class: "tokens", role: "group", "aria-label": data.flowing ? data.label : "Tokens without a place" });
  list.append(...data.apart.map((entry) => token(entry, data, send)));
  moveAmong(list, list.querySelector(`button[data-id="${Number(data.selected)}"]`));
  if (data.flowing) { const node = make("div", { class: "apart flowing" }); node.append(list); return node; }
  const node = make("details", { class: "apart" });
  node.open = !data.patches.length || data.apart.some((entry) => entry.id === data.selected);
  node.append(make("summary", {}, `${data.apart.length} ${data.apart.length === 1 ? "token" : "tokens"} without a place in the picture`), list);
  return node;
}

function select(state, id, root) {
  state.selected = id;
  const patch = state.byId.get(id);
  outline(state.halo, patch);
  outline(state.chosen, patch);
  for (const button of root.querySelectorAll("button[data-id]")) button.setAttribute("aria-pressed", String(Number(button.dataset.id) === id));
  if (!patch) return;
  state.said.replaceChildren(make("span", {}, `${placeOf(patch)}: `), make("b", { dir: "auto" }, patch.word || "no answer"), make("span", {}, patch.said ? `, ${patch.said}` : ""));
}

function measured(data) {
  for (const patch of data.patches) {
    const [x0, y0, x1, y1] = patch.box;
    Object.assign(patch, { cx: (x0 + x1) / 2, cy: (y0 + y1) / 2, high: y1 - y0 });
  }
}

export default function (component) {
  const { data: [data], parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".grid");
  const state = (root.state ??= { waiting: null });
  state.trigger = setTriggerValue;
  if (state.version !== data.version) {
    const focused = parentElement.activeElement;
    state.version = data.version;
    state.data = data;
    measured(data);
    state.placed = new Map(data.patches.map((patch) => [patch.id, patch]));
    state.byId = new Map([...data.apart, ...data.patches].map((patch) => [patch.id, patch]));
    const send = (id, after) => {
      select(state, id, root);
      clearTimeout(state.waiting);
      state.waiting = setTimeout(() => { state.waiting = null; state.trigger("picked", id); }, after);
    };
    const head = make("div", { class: "head" });
    state.said = make("div", { class: "said", "aria-live": "polite" });
    head.append(legend(data), state.said);
    root.replaceChildren(head, ...[data.flowing ? null : board(state, send), data.apart.length ? apart(state, send) : null].filter(Boolean));
    if (data.flowing) state.hover = state.halo = state.chosen = make("rect");
    if (focused?.classList?.contains("board")) root.querySelector(".board")?.focus({ preventScroll: true });
    if (focused?.dataset?.id) root.querySelector(`button[data-id="${focused.dataset.id}"]`)?.focus({ preventScroll: true });
    select(state, data.selected, root);
  } else if (state.waiting === null && state.selected !== data.selected) {
    select(state, data.selected, root);
  }
}
