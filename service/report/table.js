// Tables of data: a press on a column's header sorts by it, a search field filters the rows.

function cellValue(row, column, kind) {
  const cell = row.cells[column];
  return kind === "number" ? Number(cell.dataset.value) : cell.textContent.trim();
}

function sortBy(button) {
  const header = button.closest("th");
  const body = button.closest("table").tBodies[0];
  // A number is looked up for its largest values first.
  const first = button.dataset.kind === "number" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = header.getAttribute("aria-sort") === first ? other : first;
  for (const each of header.parentElement.cells) each.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  const rows = [...body.rows].map((row) => [cellValue(row, header.cellIndex, button.dataset.kind), row]);
  const sign = order === "ascending" ? 1 : -1;
  rows.sort(([a], [b]) => (typeof a === "number" ? a - b : compare(a, b)) * sign);
  body.append(...rows.map(([, row]) => row));
}

// The field's data-table names the table; the element named after it with "-none" says that no row is left.
function filterBy(field) {
  const wanted = field.value.trim().toLowerCase();
  const body = document.getElementById(field.dataset.table).tBodies[0];
  for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  const isEmpty = [...body.rows].every((row) => row.hidden);
  document.getElementById(`${field.dataset.table}-none`).hidden = !isEmpty;
}

for (const button of document.querySelectorAll("table.data thead button")) {
  button.addEventListener("click", () => sortBy(button));
}
for (const field of document.querySelectorAll("input[data-table]")) {
  field.addEventListener("input", () => filterBy(field));
}
