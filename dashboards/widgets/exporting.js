// The figure: looked at, saved as it is, and saved as PNG. It is shown as a picture, in which nothing can run.
const MOST_PIXELS = 16000; // of a side, which every browser's canvas has

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function crc(bytes) {
  let sum = ~0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return ~sum >>> 0;
}

// A canvas does not say how many dots are an inch, so that programs would take the picture for a meter wide.
async function withDots(blob, dpi) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const chunk = new Uint8Array(21);
  const view = new DataView(chunk.buffer);
  const perMeter = Math.round(dpi / 0.0254);
  view.setUint32(0, 9);
  chunk.set(new TextEncoder().encode("pHYs"), 4);
  view.setUint32(8, perMeter);
  view.setUint32(12, perMeter);
  chunk[16] = 1;
  view.setUint32(17, crc(chunk.subarray(4, 17)));
  const head = 33; // signature and IHDR
  return new Blob([bytes.subarray(0, head), chunk, bytes.subarray(head)], { type: "image/png" });
}

async function png(image, data) {
  const scale = Math.min(data.width / image.naturalWidth, MOST_PIXELS / image.naturalHeight);
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(image.naturalWidth * scale);
  canvas.height = Math.round(image.naturalHeight * scale);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  return withDots(blob, data.dpi * (canvas.width / data.width));
}

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".export");
  if (root.svg === data.svg) return;
  root.svg = data.svg;
  const blob = new Blob([data.svg], { type: "image/svg+xml" });
  const image = document.createElement("img");
  image.alt = data.label;
  if (root.address) URL.revokeObjectURL(root.address);
  image.src = root.address = URL.createObjectURL(blob);
  const files = document.createElement("div");
  files.className = "files";
  const kinds = { SVG: async () => blob, PNG: async () => { await image.decode(); return png(image, data); } };
  for (const [kind, make] of Object.entries(kinds)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = kind;
    button.addEventListener("click", async () => save(await make(), `${data.stem}.${kind.toLowerCase()}`));
    files.append(button);
  }
  const note = document.createElement("span");
  note.textContent = `17 cm wide, on white; the PNG with ${data.dpi} dots an inch`;
  files.append(note);
  root.replaceChildren(image, files);
}
