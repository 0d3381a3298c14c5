// The timeline: which part of the video it shows, the pointer and the keys on it, the lanes that it lists.

const FIRST_LANES = 6;
const MORE_LANES = 12;
const MOST_LANES = 60;
const CLOSEST_VIEW_S = 2;

class Timeline {
  constructor(answer, player, thumbnails) {
    this.answer = answer;
    this.player = player;
    this.thumbnails = thumbnails;
    this.zoom = 1;
    this.hovered = null; // the time under the pointer
    this.shown = FIRST_LANES;
    this.wanted = "";
    this.order = answer.labelsByWeight();
    this.lanes = [];
    this.tracks = []; // what else is drawn over time
    this.scroller = document.querySelector("#scroller");
    this.spacer = document.querySelector("#spacer");
    this.stage = document.querySelector("#stage");
    this.slider = document.querySelector("#slider");
    this.strip = document.querySelector("#strip");
    this.playhead = document.querySelector("#playhead");
    this.hoverLine = document.querySelector("#hover");
    this.colours = scoreColours();
    this.images = thumbnails.map((each) => element("img", { src: each.url, alt: "" }));
    this.strip.append(...this.images);
    this.strip.closest(".track-row").hidden = thumbnails.length === 0;
    this.#listen();
    this.listLanes();
  }

  get mostZoom() {
    return Math.max(1, this.answer.duration / CLOSEST_VIEW_S);
  }

  get view() {
    const span = this.answer.duration / this.zoom;
    const range = this.scroller.scrollWidth - this.scroller.clientWidth;
    const part = range > 0 ? Math.min(Math.max(this.scroller.scrollLeft / range, 0), 1) : 0;
    const start = part * (this.answer.duration - span);
    return { start, end: start + span };
  }

  // Show ``factor`` times as many details; the time ``fixed`` stays where it is on the screen.
  zoomBy(factor, fixed = this.player.time) {
    const { start, end } = this.view;
    const held = fixed >= start && fixed <= end ? fixed : (start + end) / 2;
    const part = (held - start) / (end - start);
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), this.mostZoom);
    this.#layOut();
    this.#scrollTo(held - (part * this.answer.duration) / this.zoom);
  }

  // Scroll if the time is out of sight.
  reveal(time) {
    const { start, end } = this.view;
    if (time < start || time > end) this.#scrollTo(time - (end - start) * 0.1);
  }

  listLanes() {
    const wanted = this.wanted.toLowerCase();
    const found = this.order.filter((label) => this.answer.labels[label].toLowerCase().includes(wanted));
    const listed = found.slice(0, wanted ? MOST_LANES : Math.min(this.shown, MOST_LANES));
    this.lanes = listed.map((label) => {
      const value = element("span", { className: "value" });
      const canvas = element("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", this.#laneText(label));
      const name = element("div", { className: "track-name" }, nameElement(this.answer.labels[label]), value);
      const row = element("div", { className: "track-row lane" }, name, element("div", { className: "track-plot" }, canvas));
      return { label, value, canvas, row };
    });
    document.querySelector("#lanes").replaceChildren(...this.lanes.map(({ row }) => row));
    const left = found.length - listed.length;
    const isFull = listed.length >= MOST_LANES;
    const more = document.querySelector("#more-lanes");
    more.hidden = left === 0 || isFull;
    more.textContent = left > MORE_LANES ? `Show ${MORE_LANES} of ${left} more labels` : `Show ${left} more label${left === 1 ? "" : "s"}`;
    const note = document.querySelector("#lanes-note");
    note.hidden = found.length > 0 ? left === 0 || !isFull : this.order.length === 0;
    note.textContent = found.length > 0
      ? `${left} more labels: search for them by name.`
      : "No label of a segment has this text.";
    this.draw();
  }

  draw() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      const view = this.view;
      drawAxis(this.slider.querySelector("canvas"), view);
      placeStrip(this.images, this.thumbnails, view, this.strip, this.answer.duration);
      for (const { canvas, label } of this.lanes) {
        drawLane(canvas, this.answer, this.answer.lane(label), view, this.colours);
      }
      for (const track of this.tracks) track.drawOver(view);
      this.follow();
    });
  }

  // Put the lines and numbers where the player and the pointer are.
  follow() {
    const time = this.player.time;
    this.#placeLine(this.playhead, time);
    this.#placeLine(this.hoverLine, this.hovered);
    if (this.hovered !== null) this.hoverLine.firstElementChild.textContent = clock(this.hovered);
    const segment = this.answer.segmentAt(this.hovered ?? time);
    for (const { label, value, row } of this.lanes) {
      const score = segment < 0 ? NaN : this.answer.lane(label)[segment];
      value.textContent = Number.isNaN(score) ? "–" : score.toFixed(2);
      row.classList.toggle("is-best", segment >= 0 && this.answer.best(segment)?.label === label);
    }
    for (const track of this.tracks) track.follow(time, this.hovered ?? time);
    this.#describe(time);
  }

  #laneText(label) {
    const lane = this.answer.lane(label);
    let best = -1;
    for (let segment = 0; segment < lane.length; segment++) {
      if (!Number.isNaN(lane[segment]) && !(lane[best] >= lane[segment])) best = segment;
    }
    return `${this.answer.labels[label]}: highest score ${lane[best].toFixed(2)} at ${clock(this.answer.starts[best])}`;
  }

  #describe(time) {
    const segment = this.answer.segmentAt(time);
    const best = segment < 0 ? null : this.answer.best(segment);
    const text = best === null ? "" : `, ${this.answer.labels[best.label]} ${best.score.toFixed(2)}`;
    this.slider.setAttribute("aria-valuenow", time.toFixed(1));
    this.slider.setAttribute("aria-valuetext", clock(time) + text);
    document.querySelector("#now").textContent = clock(time);
  }

  #placeLine(line, time) {
    const { start, end } = this.view;
    line.hidden = time === null || time < start || time > end;
    if (line.hidden) return;
    const plot = this.slider;
    const part = (time - start) / (end - start);
    line.style.transform = `translateX(${plot.offsetLeft + part * plot.clientWidth}px)`;
    line.classList.toggle("is-right", part > 0.85);
  }

  #layOut() {
    this.stage.style.width = `${this.scroller.clientWidth}px`;
    this.spacer.style.width = `${Math.round(this.scroller.clientWidth * this.zoom)}px`;
    document.querySelector("#zoom-out").disabled = this.zoom <= 1;
    document.querySelector("#zoom-all").disabled = this.zoom <= 1;
    document.querySelector("#zoom-in").disabled = this.zoom >= this.mostZoom;
    this.draw();
  }

  #scrollTo(start) {
    const range = this.scroller.scrollWidth - this.scroller.clientWidth;
    const rest = this.answer.duration - this.answer.duration / this.zoom;
    this.scroller.scrollLeft = rest > 0 ? (start / rest) * range : 0;
    this.draw();
  }

  #timeAt(event) {
    const box = this.slider.getBoundingClientRect();
    const { start, end } = this.view;
    return start + Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * (end - start);
  }

  #listen() {
    new ResizeObserver(() => this.#layOut()).observe(this.scroller);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.colours = scoreColours();
      this.draw();
    });
    this.scroller.addEventListener("scroll", () => this.draw());
    this.scroller.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // also a pinch on a touchpad
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 200), this.#timeAt(event));
    }, { passive: false });
    this.stage.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" || event.button !== 0 || !event.target.closest(".track-plot")) return;
      this.stage.setPointerCapture(event.pointerId);
      this.player.seek(this.#timeAt(event));
    });
    this.stage.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse") return;
      const isDragged = this.stage.hasPointerCapture(event.pointerId);
      this.hovered = isDragged || event.target.closest(".track-plot") ? this.#timeAt(event) : null;
      if (isDragged) this.player.seek(this.hovered);
      this.follow();
    });
    this.stage.addEventListener("pointerleave", () => {
      this.hovered = null;
      this.follow();
    });
    this.stage.addEventListener("click", (event) => {
      if (event.target.closest(".track-plot")) this.player.seek(this.#timeAt(event));
    });
    this.slider.addEventListener("keydown", (event) => this.#press(event));
    document.querySelector("#zoom-in").addEventListener("click", () => this.zoomBy(2));
    document.querySelector("#zoom-out").addEventListener("click", () => this.zoomBy(0.5));
    document.querySelector("#zoom-all").addEventListener("click", () => this.zoomBy(0));
    document.querySelector("#more-lanes").addEventListener("click", () => {
      this.shown += MORE_LANES;
      this.listLanes();
    });
  }

  #press(event) {
    const time = this.player.time;
    const { duration } = this.answer;
    const actions = {
      ArrowRight: () => this.player.seek(this.#neighbour(time, 1)),
      ArrowLeft: () => this.player.seek(this.#neighbour(time, -1)),
      PageUp: () => this.player.seek(time + duration / 10),
      PageDown: () => this.player.seek(time - duration / 10),
      Home: () => this.player.seek(0),
      End: () => this.player.seek(duration),
      " ": () => this.player.toggle(),
      "+": () => this.zoomBy(2),
      "=": () => this.zoomBy(2),
      "-": () => this.zoomBy(0.5),
      0: () => this.zoomBy(0),
    };
    const action = event.ctrlKey || event.metaKey || event.altKey ? undefined : actions[event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
    this.reveal(this.player.time);
  }

  // The start of the next or previous segment, also over a gap; without one, a second away.
  #neighbour(time, direction) {
    const { starts, length } = this.answer;
    const segment = this.answer.segmentFrom(time + 1e-3); // the one at this time, or the first one after it
    const isReached = starts[segment] <= time + 1e-3;
    const isPassed = time - starts[segment] > 0.05;
    const next = direction > 0 ? segment + (isReached ? 1 : 0) : segment - (isPassed ? 0 : 1);
    return next >= 0 && next < length ? starts[next] : time + direction;
  }
}
