// The confusion matrix of an evaluation: a table of cells, and for many classes a map of all.

const data = JSON.parse(document.querySelector("#data").textContent);
const LABELS_AROUND = 12; // labels that a table of part of the matrix shows beside the chosen one
const ROOMY = 20; // labels up to which cells are wide
const REACH = 12; // pixels around the pointer in which the map looks for a cell
const FAINTEST_ON_MAP = 3; // a lighter step could not be seen as a point
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

const counts = new Map(data.cells.map(([row, column, count]) => [key(row, column), count]));
const totals = data.labels.map(() => 0);
for (const [row, , count] of data.cells) totals[row] += count;

const matrix = document.querySelector("#matrix");
const map = document.querySelector("#map");
const classChoice = document.querySelector("#class-choice");
let buttons = new Map(); // of the cells in the table, by their places in it
let chosen = null; // [true, predicted]

function key(row, column) {
  return `${row},${column}`;
}

function countOf(row, column) {
  return counts.get(key(row, column)) ?? 0;
}

// The step of the colour scale, 0 to 8, for a cell's share of its row.
function step(row, column) {
  return Math.max(0, Math.ceil((9 * countOf(row, column)) / totals[row]) - 1);
}

function describeCell(row, column) {
  const [truth, guess] = [data.labels[row], data.labels[column]];
  const count = plural(countOf(row, column), data.item);
  return row === column ? `${truth}, right: ${count}` : `${truth}, predicted as ${guess}: ${count}`;
}

// The lines of a card: what was predicted, and the true label where they differ.
function verdict(clip) {
  const isRight = clip.true === clip.predicted;
  const guess = make("p", `verdict ${isRight ? "good" : "bad"}`, named(data.labels[clip.predicted], "clip"));
  guess.append(make("span", "num", clip.score.toFixed(3)));
  if (isRight) return [guess];
  return [guess, make("p", "verdict", named(`not ${data.labels[clip.true]}`, "clip"))];
}

function showChosen(title, clips, total) {
  const heading = document.querySelector("#chosen-title");
  const listed = clips.length < total ? `, ${clips.length} of them here` : "";
  heading.replaceChildren(...title, `: ${plural(total, data.item)}${listed}`);
  showClips(document.querySelector("#chosen-clips"), clips, verdict);
}

function chooseCell(row, column) {
  chosen = [row, column];
  for (const button of buttons.values()) {
    button.setAttribute("aria-pressed", button.dataset.cell === key(row, column));
  }
  const guess = row === column ? " is right" : [" predicted as ", named(data.labels[column])];
  const clips = data.clips.filter((clip) => clip.true === row && clip.predicted === column);
  showChosen([named(data.labels[row]), ...[guess].flat()], clips, countOf(row, column));
  if (map) drawMap();
}

function chooseClass(row) {
  const clips = data.clips.filter((clip) => clip.true === row);
  clips.sort((a, b) => (a.predicted === row) - (b.predicted === row) || b.score - a.score);
  showChosen(["All of ", named(data.labels[row])], clips, totals[row]);
  if (classChoice) showAround(row);
}

function cellButton(row, column) {
  const button = make("button", `cell scale-${step(row, column)}`, String(countOf(row, column)));
  button.type = "button";
  button.dataset.cell = key(row, column);
  button.title = describeCell(row, column);
  button.setAttribute("aria-label", button.title);
  button.setAttribute("aria-pressed", key(row, column) === (chosen && key(...chosen)));
  button.tabIndex = -1;
  return button;
}

function header(label, scope) {
  const cell = make("th", "", named(data.labels[label], "clip"));
  cell.scope = scope;
  return cell;
}

// Shows the cells of these labels. Of all buttons, one is reached by the tab key; arrow keys reach the others.
function showTable(labels) {
  buttons = new Map();
  const corner = make("td", "");
  const head = make("tr", "", corner, ...labels.map((label) => header(label, "col")));
  const rows = labels.map((row, y) => {
    const cells = labels.map((column, x) => {
      if (!countOf(row, column)) return make("td", "");
      const button = cellButton(row, column);
      buttons.set(key(y, x), button);
      return make("td", "", button);
    });
    return make("tr", "", header(row, "row"), ...cells);
  });
  const density = labels.length > ROOMY ? "matrix dense" : "matrix";
  const table = make("table", density, make("thead", "", head), make("tbody", "", ...rows));
  table.setAttribute("aria-label", "Confusion matrix: rows are true labels, columns predicted ones");
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) pressCell(button);
  });
  table.addEventListener("keydown", (event) => moveFocus(event, labels.length));
  const first = buttons.values().next().value;
  if (first) first.tabIndex = 0;
  matrix.replaceChildren(table);
}

function pressCell(button) {
  focusCell(button);
  chooseCell(...button.dataset.cell.split(",").map(Number));
  revealChosen();
}

function focusCell(button) {
  for (const other of buttons.values()) other.tabIndex = other === button ? 0 : -1;
  button.focus();
}

// Moves to the next cell with videos in the direction of an arrow key.
function moveFocus(event, side) {
  const arrow = ARROWS[event.key];
  const found = [...buttons].find(([, button]) => button === event.target);
  if (!arrow || !found) return;
  event.preventDefault();
  let [y, x] = found[0].split(",").map(Number);
  do {
    [y, x] = [y + arrow[0], x + arrow[1]];
  } while (y >= 0 && x >= 0 && y < side && x < side && !buttons.has(key(y, x)));
  if (buttons.has(key(y, x))) focusCell(buttons.get(key(y, x)));
}

// Shows the part of the matrix around a label: with those that it is confused with most, in both directions.
function showAround(label) {
  classChoice.value = label;
  const strength = data.labels.map((_, other) => countOf(label, other) + countOf(other, label));
  const others = data.labels.map((_, other) => other).filter((other) => other !== label && strength[other]);
  others.sort((a, b) => strength[b] - strength[a]);
  showTable([label, ...others.slice(0, LABELS_AROUND)].sort((a, b) => a - b));
}

// Goes to a cell that may lie outside the table.
function goToCell(row, column) {
  chosen = [row, column];
  if (classChoice) showAround(row);
  chooseCell(row, column);
}

function drawMap() {
  const side = Math.round(map.clientWidth * window.devicePixelRatio);
  map.width = map.height = side;
  const context = map.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colours = [...Array(9).keys()].map((number) => style.getPropertyValue(`--scale-${number}`));
  const cell = side / data.labels.length;
  const point = Math.max(cell, 1.5 * window.devicePixelRatio);
  for (const [row, column] of data.cells) {
    context.fillStyle = colours[Math.max(FAINTEST_ON_MAP, step(row, column))];
    context.fillRect(column * cell, row * cell, point, point);
  }
  if (!chosen) return;
  context.strokeStyle = style.getPropertyValue("--bad");
  context.lineWidth = 2 * window.devicePixelRatio;
  const [row, column] = chosen;
  context.strokeRect((column + 0.5) * cell - 3 * point, (row + 0.5) * cell - 3 * point, 6 * point, 6 * point);
}

// The cell with videos that is nearest to the pointer; undefined if none is near.
function cellUnder(event) {
  const cell = map.clientWidth / data.labels.length;
  let [nearest, least] = [undefined, REACH];
  for (const [row, column] of data.cells) {
    // Where cells are smaller than a pixel, a mistake is more likely meant than the right cells beside it.
    const handicap = row === column ? 1 : 0;
    const [right, down] = [(column + 0.5) * cell - event.offsetX, (row + 0.5) * cell - event.offsetY];
    const distance = Math.hypot(right, down) + handicap;
    if (distance < least) [nearest, least] = [[row, column], distance];
  }
  return nearest;
}

function startMap() {
  const underPointer = document.querySelector("#under-pointer");
  map.addEventListener("pointermove", (event) => {
    const cell = cellUnder(event);
    underPointer.textContent = cell ? describeCell(...cell) : "\u00a0";
  });
  map.addEventListener("click", (event) => {
    const cell = cellUnder(event);
    if (cell) goToCell(...cell);
  });
  new ResizeObserver(drawMap).observe(map);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
  classChoice.append(...data.labels.map((label, number) => new Option(label, number)));
  classChoice.addEventListener("change", () => chooseClass(Number(classChoice.value)));
}

function mostFrequentConfusion() {
  const wrong = data.cells.filter(([row, column]) => row !== column);
  return (wrong.length ? wrong : data.cells).reduce((most, cell) => (cell[2] > most[2] ? cell : most));
}

document.querySelector("main").addEventListener("click", (event) => {
  const button = event.target.closest("button[data-class], td.num > button[data-cell]");
  if (!button) return;
  if (button.dataset.class) chooseClass(Number(button.dataset.class));
  else goToCell(...button.dataset.cell.split(",").map(Number));
  revealChosen();
});

if (map) startMap();
else showTable(data.labels.map((_, number) => number));
goToCell(...mostFrequentConfusion());
const mistakes = document.querySelector("#mistakes");
if (mistakes) showClips(mistakes, data.clips.slice(0, data.mistakes), verdict);
