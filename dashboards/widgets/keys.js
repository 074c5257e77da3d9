// Moving by arrow keys among things that lie side by side. Put before the components that use it.
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// The nearest item in a direction: sideways distance counts double, so that a move stays in its row or column.
function towards(items, from, dx, dy) {
  let best = null, least = Infinity;
  for (const item of items) {
    const across = (item.cx - from.cx) * dx + (item.cy - from.cy) * dy;
    const aside = Math.abs((item.cx - from.cx) * dy) + Math.abs((item.cy - from.cy) * dx);
    if (across <= 1e-3 || aside > across * 2) continue;
    const distance = across + 2 * aside;
    if (distance < least) [best, least] = [item, distance];
  }
  return best;
}

// The first or last item of the row that an item lies in.
function endOfRow(items, from, last) {
  const row = items.filter((item) => Math.abs(item.cy - from.cy) < from.high / 2);
  return row.reduce((best, item) => ((item.cx - best.cx) * (last ? 1 : -1) > 0 ? item : best), from);
}

// Where a key leads to from an item; null where it leads nowhere. With Ctrl, Home and End go to the first and last.
function ledTo(event, items, from) {
  if (event.altKey || event.metaKey || !items.length) return null;
  const last = event.key === "End";
  if (last || event.key === "Home") return event.ctrlKey ? items[last ? items.length - 1 : 0] : endOfRow(items, from, last);
  return MOVES[event.key] && !event.ctrlKey ? towards(items, from, ...MOVES[event.key]) : null;
}

// Lets arrow keys, Home and End move among buttons, of which Tab stops at one only.
function moveAmong(root, current) {
  const buttons = () => [...root.querySelectorAll("button")].filter((button) => button.offsetParent !== null);
  const settle = (chosen) => {
    for (const button of root.querySelectorAll("button")) button.tabIndex = button === chosen ? 0 : -1;
  };
  settle(current || root.querySelector("button"));
  if (root.moves) return; // it listens already
  root.moves = true;
  root.addEventListener("focusin", (event) => { if (event.target.matches("button")) settle(event.target); });
  root.addEventListener("keydown", (event) => {
    const items = buttons().map((node) => {
      const { left, top, width, height } = node.getBoundingClientRect();
      return { node, cx: left + width / 2, cy: top + height / 2, high: height };
    });
    const from = items.find((item) => item.node === event.target);
    const to = from && ledTo(event, items, from);
    if (!to) return;
    event.preventDefault();
    to.node.focus();
  });
}
