// The downloads: each file is held compressed, and is unpacked when its button is pressed.

async function save({ name, type, gzip }) {
  const packed = blobOf(gzip, type).stream().pipeThrough(new DecompressionStream("gzip"));
  const url = URL.createObjectURL(new Blob([await new Response(packed).arrayBuffer()], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

const buttons = document.querySelectorAll("#downloads button");
for (const [index, file] of embedded("downloads-data").entries()) {
  buttons[index].addEventListener("click", () => save(file));
  buttons[index].disabled = typeof DecompressionStream === "undefined";
}
