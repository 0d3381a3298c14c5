// The drawing of the timeline: a colour for each score, the lanes, the axis, the strip of pictures.

const COLOURS = 64;
const WIDE_SEGMENT_PX = 6; // from here on, segments have a gap between them
const TICKS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200];
const TICK_PX = 88;
const MOST_STRETCH = 1.5; // of a picture in the strip, before its top and bottom are cut too much

// The stylesheet's scale from score 0 to 1, in steps that are fine enough to look continuous.
function scoreColours() {
  const style = getComputedStyle(document.documentElement);
  const stops = Array.from({ length: 9 }, (_, step) => {
    const hex = style.getPropertyValue(`--scale-${step}`).trim();
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  });
  return Array.from({ length: COLOURS }, (_, index) => {
    const place = (index / (COLOURS - 1)) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    const mixed = stops[low].map((value, channel) => value + (stops[low + 1][channel] - value) * (place - low));
    return `rgb(${mixed.map(Math.round).join(" ")})`;
  });
}

function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A drawing context of the canvas at the screen's own resolution, empty, in pixels of the screen.
function contextOf(canvas) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return { context, width, height, ratio };
}

// The highest score in each column of pixels, whatever the number of segments in it; NaN where none is.
function columnScores(answer, lane, view, width, ratio) {
  const columns = new Float32Array(width).fill(NaN);
  const scale = width / (view.end - view.start);
  for (let at = answer.segmentFrom(view.start); at < lane.length && answer.starts[at] < view.end; at++) {
    const score = lane[at];
    if (Number.isNaN(score)) continue;
    const first = Math.max(0, Math.floor((answer.starts[at] - view.start) * scale));
    let end = Math.max(first + 1, Math.floor((answer.ends[at] - view.start) * scale));
    if (end - first >= WIDE_SEGMENT_PX * ratio) end -= Math.round(ratio);
    for (let column = first; column < Math.min(end, width); column++) {
      if (!(columns[column] >= score)) columns[column] = score;
    }
  }
  return columns;
}

function drawLane(canvas, answer, lane, view, colours) {
  const { context, width, height, ratio } = contextOf(canvas);
  if (width === 0) return;
  const columns = columnScores(answer, lane, view, width, ratio);
  for (let first = 0, end = 0; first < width; first = end) {
    const score = columns[first];
    for (end = first + 1; end < width && Object.is(columns[end], score); ) end++;
    if (Number.isNaN(score)) continue;
    context.fillStyle = colours[Math.round(Math.min(Math.max(score, 0), 1) * (COLOURS - 1))];
    const rise = Math.max(Math.round(score * height), Math.round(ratio));
    context.fillRect(first, height - rise, end - first, rise);
  }
}

function tickText(time, step) {
  const text = clock(time).replace(/^0:0?/, "");
  return step < 1 ? text : text.slice(0, -2);
}

function drawAxis(canvas, view) {
  const { context, width, height, ratio } = contextOf(canvas);
  const span = view.end - view.start;
  const step = TICKS_S.find((each) => (each / span) * width >= TICK_PX * ratio) ?? TICKS_S.at(-1);
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (let tick = Math.ceil(view.start / step - 1e-6); tick * step <= view.end; tick++) {
    const x = Math.round(((tick * step - view.start) / span) * width);
    const text = tickText(tick * step, step);
    context.fillStyle = cssColour("--line");
    context.fillRect(x, 0, Math.round(ratio), height);
    context.fillStyle = cssColour("--muted");
    if (x + context.measureText(text).width + 5 * ratio <= width) context.fillText(text, x + 5 * ratio, height / 2);
  }
}

// Each picture fills the part of the strip that is nearer to its time than to another one's. In a far view,
// only every second, third or tenth picture has room; in a close one, a picture stays in sight while its part is.
function placeStrip(images, thumbnails, view, strip, duration) {
  const pixels = strip.clientWidth / (view.end - view.start);
  const natural = ({ width, height }) => (strip.clientHeight * width) / height;
  const widest = Math.max(...thumbnails.map(natural));
  const every = Math.max(1, Math.ceil((widest * images.length) / (duration * pixels)));
  const middle = (index) => (thumbnails[index - every].time_s + thumbnails[index].time_s) / 2;
  for (const [index, image] of images.entries()) {
    if (image.classList.toggle("is-away", index % every !== 0)) continue;
    const from = index === 0 ? 0 : middle(index);
    const to = index + every < images.length ? middle(index + every) : duration;
    const [start, end] = [from, to].map((time) => (time - view.start) * pixels);
    const width = Math.min(end - start, natural(thumbnails[index]) * MOST_STRETCH);
    const left = Math.min(Math.max(start, 0), end - width);
    image.classList.toggle("is-away", left + width <= 0 || left >= strip.clientWidth);
    image.style.width = `${width}px`;
    image.style.transform = `translateX(${left}px)`;
  }
}
