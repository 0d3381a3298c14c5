// The index of pages: sorts its table by the column whose header is pressed, and filters it.

const table = document.querySelector("#videos");
const body = table.tBodies[0];

function cellValue(row, column, kind) {
  const cell = row.cells[column];
  return kind === "number" ? Number(cell.dataset.value) : cell.textContent.trim();
}

function sortBy(button) {
  const header = button.closest("th");
  const isRising = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", isRising ? "ascending" : "descending");
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  const rows = [...body.rows].map((row) => [cellValue(row, header.cellIndex, button.dataset.kind), row]);
  rows.sort(([a], [b]) => (typeof a === "number" ? a - b : compare(a, b)) * (isRising ? 1 : -1));
  body.append(...rows.map(([, row]) => row));
}

function filterBy(text) {
  const wanted = text.trim().toLowerCase();
  for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  document.querySelector("#none").hidden = [...body.rows].some((row) => !row.hidden);
}

for (const button of table.tHead.querySelectorAll("button")) {
  button.addEventListener("click", () => sortBy(button));
}
const filter = document.querySelector("#filter");
filter.addEventListener("input", () => filterBy(filter.value));
