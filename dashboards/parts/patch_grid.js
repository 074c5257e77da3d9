// The patches of an image. Text from data goes through textContent only.
const SVG = "http://www.w3.org/2000/svg";
const SEND_AFTER_MS = 90; // while an arrow key is held, only where it stops is asked for

function make(name, attributes = {}, text = null) {
  const node = name === "svg" || name === "rect" || name === "image" || name === "text"
    ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
}

function legend(data) {
  const node = make("div", { class: "legend", "aria-label": "Legend" });
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

function describe(patch) {
  const place = patch.row === null ? `token ${patch.id}` : `row ${patch.row + 1}, column ${patch.col + 1}`;
  return `${place}: ${patch.word || "no answer"}${patch.said ? ", " + patch.said : ""}`;
}

// The nearest patch in a direction: sideways distance counts double, so that a move stays in its row or column.
function towards(patches, from, dx, dy) {
  let best = null, least = Infinity;
  for (const patch of patches) {
    const across = (patch.cx - from.cx) * dx + (patch.cy - from.cy) * dy;
    const aside = Math.abs((patch.cx - from.cx) * dy) + Math.abs((patch.cy - from.cy) * dx);
    if (across <= 1e-3 || aside > across * 2) continue;
    const distance = across + 2 * aside;
    if (distance < least) [best, least] = [patch, distance];
  }
  return best;
}

function fit(word, width, height) {
  const size = Math.min(height * 0.3, (width * 0.92) / Math.max(word.length * 0.56, 1));
  return Math.max(size, height * 0.14);
}

function words(svg, patches) {
  for (const patch of patches) {
    const [x0, y0, x1, y1] = patch.box;
    const size = fit(patch.word, x1 - x0, y1 - y0);
    const most = Math.floor((x1 - x0) / (size * 0.5));
    const shown = patch.word.length > most ? patch.word.slice(0, Math.max(most - 1, 1)) + "…" : patch.word;
    svg.append(make("text", { x: patch.cx, y: patch.cy, "font-size": size, "stroke-width": size / 6, direction: "ltr" }, shown));
  }
}

function board(state, send) {
  const { data } = state;
  const frame = make("div", { class: "frame" });
  frame.style.setProperty("--most", `${Math.min(36, (27.5 * data.width) / data.height)}rem`);
  const node = make("div", { class: "board", tabindex: "0", role: "application", "aria-roledescription": "patch grid", "aria-label": data.label });
  const svg = make("svg", { viewBox: `0 0 ${data.width} ${data.height}`, "aria-hidden": "true" });
  if (data.picture) svg.append(make("image", { href: data.picture, width: data.width, height: data.height, preserveAspectRatio: "none" }));
  for (const patch of data.patches) {
    const [x, y, x1, y1] = patch.box;
    const rect = make("rect", { x, y, width: x1 - x, height: y1 - y, class: patch.hit ? "patch hit" : "patch", "data-id": patch.id });
    rect.style.fill = patch.fill || "transparent";
    svg.append(rect);
  }
  if (data.words) words(svg, data.patches);
  state.hover = make("rect", { class: "hover", visibility: "hidden" });
  state.halo = make("rect", { class: "halo", visibility: "hidden" });
  state.chosen = make("rect", { class: "chosen", visibility: "hidden" });
  svg.append(state.hover, state.halo, state.chosen);
  const tip = make("div", { class: "tip", dir: "auto" });
  const at = (event) => state.byId.get(Number(event.target?.dataset?.id));
  svg.addEventListener("pointermove", (event) => {
    const patch = at(event);
    tip.style.display = patch ? "block" : "none";
    outline(state.hover, patch);
    if (!patch) return;
    tip.textContent = describe(patch);
    const area = frame.getBoundingClientRect();
    const left = event.clientX - area.left;
    tip.style.left = `${Math.max(0, Math.min(left + 14, area.width - tip.offsetWidth))}px`;
    tip.style.top = `${event.clientY - area.top + 18}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.style.display = "none"; outline(state.hover, null); });
  svg.addEventListener("click", (event) => { const patch = at(event); if (patch) { node.focus({ preventScroll: true }); send(patch.id, 0); } });
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  node.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const from = state.placed.get(state.selected) || data.patches[0];
    const patch = from && towards(data.patches, from, ...move);
    if (patch) send(patch.id, SEND_AFTER_MS);
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

function apart(state, send) {
  const { data } = state;
  const list = make("div");
  for (const token of data.apart) {
    const button = make("button", { type: "button", "data-id": token.id, "aria-pressed": "false", dir: "auto", title: describe(token) }, token.label);
    if (token.fill) button.style.borderBottom = `3px solid ${token.fill}`;
    button.addEventListener("click", () => send(token.id, 0));
    list.append(button);
  }
  if (data.flowing) { const node = make("div", { class: "apart" }); list.style.maxHeight = "26rem"; node.append(list); return node; }
  const node = make("details", { class: "apart" });
  if (data.apart.some((token) => token.id === data.selected)) node.open = true;
  node.append(make("summary", {}, `${data.apart.length} tokens without a place in the picture`), list);
  return node;
}

function select(state, id, root) {
  state.selected = id;
  const patch = state.byId.get(id);
  outline(state.halo, patch);
  outline(state.chosen, patch);
  for (const button of root.querySelectorAll("button[data-id]")) button.setAttribute("aria-pressed", String(Number(button.dataset.id) === id));
  if (patch) state.said.textContent = describe(patch);
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".grid");
  const state = (root.state ??= { waiting: null });
  state.trigger = setTriggerValue;
  if (state.version !== data.version) {
    const focused = parentElement.activeElement?.classList?.contains("board");
    state.version = data.version;
    state.data = data;
    for (const patch of data.patches) { patch.cx = (patch.box[0] + patch.box[2]) / 2; patch.cy = (patch.box[1] + patch.box[3]) / 2; }
    state.placed = new Map(data.patches.map((patch) => [patch.id, patch]));
    state.byId = new Map([...data.apart, ...data.patches].map((patch) => [patch.id, patch]));
    const send = (id, after) => {
      select(state, id, root);
      clearTimeout(state.waiting);
      state.waiting = setTimeout(() => { state.waiting = null; state.trigger("picked", id); }, after);
    };
    state.said = make("div", { class: "said", "aria-live": "polite" });
    root.replaceChildren(...[legend(data), data.patches.length ? board(state, send) : null, data.apart.length ? apart(state, send) : null, state.said].filter(Boolean));
    if (!data.patches.length) state.hover = state.halo = state.chosen = make("rect");
    if (focused) root.querySelector(".board")?.focus({ preventScroll: true });
    select(state, data.selected, root);
  } else if (state.waiting === null && state.selected !== data.selected) {
    select(state, data.selected, root);
  }
}
