// Every visible text of a page, shadow roots too, with its contrast (WCAG 2.2) against what lies behind it.
// Words on pictures are left out (they have an outline), numbers on marks, and what is disabled, as WCAG does.
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3])).concat(1);
  const light = (color) => {
    const [red, green, blue] = color.slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const parent = (node) => node.assignedSlot || node.parentElement || node.getRootNode().host || null;
  const chain = (node) => { const found = []; for (let one = node; one; one = parent(one)) found.push(one); return found; };
  const paper = matchMedia("(prefers-color-scheme: dark)").matches ? [20, 23, 27, 1] : [255, 255, 255, 1];

  function measure(element, color) {
    const above = chain(element);
    let shown = paper, opacity = 1;
    for (const node of [...above].reverse()) {
      const style = getComputedStyle(node);
      shown = over(rgba(style.backgroundColor), shown);
      opacity *= Number(style.opacity);
    }
    const ink = rgba(color);
    const drawn = over([...ink.slice(0, 3), ink[3] * opacity], shown);
    const [low, high] = [light(drawn), light(shown)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  }

  // Of a chart: what names its axes, colors and parts.
  const isOfChart = (one) => one.matches("text") && one.closest("[data-testid='stVegaLiteChart']") && !one.closest(".role-mark");

  function isSeen(element) {
    const box = element.getBoundingClientRect();
    if (box.width < 2 || box.height < 2 || element.closest("canvas, [aria-disabled='true'], [disabled]")) return false;
    if (element.closest("svg") && !isOfChart(element)) return false;
    return chain(element).every((node) => {
      const style = getComputedStyle(node);
      return style.visibility !== "hidden" && style.display !== "none" && Number(style.opacity) > 0.05;
    });
  }

  const found = [];
  function look(root) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      if (node.nodeType === Node.ELEMENT_NODE) {
        if (node.shadowRoot) look(node.shadowRoot);
        if (node.placeholder && !node.value && isSeen(node)) add(node, node.placeholder, getComputedStyle(node, "::placeholder"));
        if (node.value && node.matches("input:not([type='checkbox'], [type='radio']), textarea") && isSeen(node)) add(node, node.value, getComputedStyle(node));
        continue;
      }
      const element = node.parentElement;
      if (node.data.trim() && element && !element.matches("style, script, title, textarea") && isSeen(element)) {
        add(element, node.data, getComputedStyle(element));
      }
    }
  }
  function add(element, text, style) {
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push({ text: text.trim().slice(0, 60), contrast: measure(element, element.matches("text") ? style.fill : style.color), needed: large ? 3 : 4.5, where: element.className?.toString().slice(0, 40) });
  }
  look(document.body);
  return found;
})()
