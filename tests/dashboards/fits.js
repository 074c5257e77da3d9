// What does not fit on the screen: the page, lists of buttons that scroll, texts cut off in charts, headers that reach
// over the cells beside them. Tables, code and the line of all layers scroll in themselves, and may.
() => {
  const roots = [document, ...[...document.querySelectorAll("*")].map((one) => one.shadowRoot).filter(Boolean)];
  const all = (selector) => roots.flatMap((root) => [...root.querySelectorAll(selector)]).filter((one) => one.getClientRects().length);
  const found = [];
  const add = (what, one, by) => found.push({ what, by: Math.round(by), text: (one.textContent || "").trim().slice(0, 60) });
  for (const one of [document.documentElement, ...all(".stMain")]) {
    if (one.scrollWidth > innerWidth) add("page", one, one.scrollWidth - innerWidth);
  }
  for (const one of all("[data-testid=stButtonGroup], [data-testid=stButtonGroup] *, .tiles, .ll-legend, .ll-facts")) {
    const isRead = one.clientWidth > 1; // not a label for screen readers alone
    if (one.scrollWidth > one.clientWidth + 1 && isRead) add("scrolled", one, one.scrollWidth - one.clientWidth);
  }
  for (const svg of all(".vega-embed svg, [data-testid=stVegaLiteChart] svg")) {
    const area = svg.getBoundingClientRect();
    for (const one of svg.querySelectorAll("text")) {
      const { left, right, width } = one.getBoundingClientRect();
      const out = Math.max(right - Math.min(area.right, innerWidth), area.left - left);
      if (width && out > 1.5) add("cut", one, out);
      if (one.textContent.endsWith("…")) add("cut", one, 0);
    }
  }
  for (const one of all("th")) {
    if (one.scrollWidth > one.clientWidth + 1) add("covered", one, one.scrollWidth - one.clientWidth);
  }
  return found;
}
