// The answer that the page holds: its segments as flat arrays, its scores by label, its times as text.

function embedded(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  const rest = String(Math.floor((tenths % 600) / 10)).padStart(2, "0");
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}.${tenths % 10}`;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// A label or a name: cut where its box ends, whole in its title, and with a direction of its own.
function nameElement(text) {
  return element("bdi", { className: "clip", title: text.slice(0, 1000), textContent: text });
}

function bar(score) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const attributes = { class: "bar", viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" };
  for (const [key, value] of Object.entries(attributes)) svg.setAttribute(key, value);
  rect.setAttribute("width", score * 100);
  rect.setAttribute("height", 1);
  svg.append(rect);
  return svg;
}

class Answer {
  constructor({ duration_s, labels, starts_s, ends_s, counts, ranked, scores, whole, merged }) {
    this.duration = duration_s;
    this.labels = labels; // names, by number
    this.starts = Float64Array.from(starts_s);
    this.ends = Float64Array.from(ends_s);
    this.offsets = new Uint32Array(counts.length + 1); // of each segment's labels in ranked and scores
    for (const [index, count] of counts.entries()) this.offsets[index + 1] = this.offsets[index] + count;
    this.ranked = ranked; // numbers of labels, best first, of all segments
    this.scores = scores;
    this.merged = merged;
    this.whole = whole; // the numbers of the labels of the whole video, best first
    this.laneScores = new Map();
  }

  get length() {
    return this.starts.length;
  }

  // The first segment that ends after the time.
  segmentFrom(time) {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ends[middle] > time) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  // The segment that contains the time, or -1. The last one contains the end of the video, too.
  segmentAt(time) {
    const found = Math.min(this.segmentFrom(time), this.length - 1);
    return found >= 0 && this.starts[found] <= time && time <= this.ends[found] ? found : -1;
  }

  best(segment) {
    const [first, end] = [this.offsets[segment], this.offsets[segment + 1]];
    return first < end ? { label: this.ranked[first], score: this.scores[first] } : null;
  }

  // The label's score in each segment; NaN where it is not among the best.
  lane(label) {
    let lane = this.laneScores.get(label);
    if (lane === undefined) {
      lane = new Float32Array(this.length).fill(NaN);
      for (let segment = 0; segment < this.length; segment++) {
        for (let at = this.offsets[segment]; at < this.offsets[segment + 1]; at++) {
          if (this.ranked[at] === label) lane[segment] = this.scores[at];
        }
      }
      this.laneScores.set(label, lane);
    }
    return lane;
  }

  // All labels of segments, those with most of the video first: the score summed over time.
  labelsByWeight() {
    const weights = new Float64Array(this.labels.length);
    for (let segment = 0; segment < this.length; segment++) {
      const length = this.ends[segment] - this.starts[segment];
      for (let at = this.offsets[segment]; at < this.offsets[segment + 1]; at++) {
        weights[this.ranked[at]] += this.scores[at] * length;
      }
    }
    const present = new Set(this.ranked);
    return [...present].sort((a, b) => weights[b] - weights[a] || a - b);
  }
}
