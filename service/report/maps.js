// The maps of an explanation: a layer of colours over the picture, a strip over time, and their controls.

const MAP_CHOICES = ["label", "method", "layer", "head"];
const LEGEND_GREY = "rgb(128 128 128)"; // stands for a picture
const BORDER = "rgb(255 255 255 / 0.3)";
const STRIP_COLOUR = { shares: 128, difference: [64, 192] }; // bytes of the scale

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

// Where the picture of an element lies in it: object-fit keeps the aspect ratio, and leaves bands.
function contentBox(media, around) {
  const [box, outer] = [media.getBoundingClientRect(), around.getBoundingClientRect()];
  const width = media.videoWidth || media.naturalWidth || Number(media.getAttribute("width"));
  const height = media.videoHeight || media.naturalHeight || Number(media.getAttribute("height"));
  const scale = Math.min(box.width / width, box.height / height);
  const [wide, high] = [width * scale, height * scale];
  const left = box.left - outer.left + (box.width - wide) / 2;
  const top = box.top - outer.top + (box.height - high) / 2;
  return { left, top, width: wide, height: high };
}

class MapTrack {
  constructor(data, colours) {
    Object.assign(this, data);
    this.colours = colours[data.scale];
    this.bytes = bytesOf(data.maps);
    this.highest = Math.max(...data.over_time.map(Math.abs), 1e-9);
    this.canvas = element("canvas", { width: data.columns, height: data.rows });
    this.drawn = -1;
  }

  // The step that is shown at the time, or -1; the last one is shown to the end.
  stepAt(time) {
    const after = this.ends_s.findIndex((end) => end > time);
    const step = after < 0 ? this.ends_s.length - 1 : after;
    return step >= 0 && this.starts_s[step] <= time && time <= this.ends_s[step] ? step : -1;
  }

  // The map of a step as a small picture, a pixel for each patch.
  picture(step) {
    if (this.drawn === step) return this.canvas;
    this.drawn = step;
    const size = this.rows * this.columns;
    const pixels = new Uint8ClampedArray(4 * size);
    for (let patch = 0; patch < size; patch++) {
      const colour = 4 * this.bytes[step * size + patch];
      pixels.set(this.colours.subarray(colour, colour + 4), 4 * patch);
    }
    this.canvas.getContext("2d").putImageData(new ImageData(pixels, this.columns, this.rows), 0, 0);
    return this.canvas;
  }

  colour(byte) {
    const [red, green, blue] = this.colours.subarray(4 * byte, 4 * byte + 3);
    return `rgb(${red} ${green} ${blue})`;
  }
}

class MapLayer {
  constructor({ tracks, colours }, player, timeline) {
    this.player = player;
    this.timeline = timeline;
    const scales = Object.fromEntries(Object.entries(colours).map(([scale, packed]) => [scale, bytesOf(packed)]));
    this.tracks = tracks.map((data) => new MapTrack(data, scales));
    this.track = this.tracks[0];
    this.canvas = document.querySelector("#overlay");
    this.strip = document.querySelector("#map-strip canvas");
    this.value = document.querySelector("#map-row .value");
    this.opacity = document.querySelector("#map-opacity");
    this.look = document.querySelector("#map-look");
    this.selects = new Map(MAP_CHOICES.map((choice) => [choice, document.querySelector(`#map-${choice}`)]));
    for (const [choice, select] of this.selects) this.#offer(choice, select);
    for (const control of [this.opacity, this.look]) control.addEventListener("input", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    player.still.addEventListener("load", () => this.draw());
    timeline.tracks.push(this);
    this.#choose(this.track);
  }

  // The timeline calls this when the part of the video that it shows has changed.
  drawOver(view) {
    const { context, width, height, ratio } = contextOf(this.strip);
    const { track } = this;
    const isSigned = track.scale === "difference";
    const zero = isSigned ? height / 2 : height;
    const scale = width / (view.end - view.start);
    for (const [step, value] of track.over_time.entries()) {
      const [start, end] = [track.starts_s[step], track.ends_s[step]].map((time) => (time - view.start) * scale);
      if (end <= 0 || start >= width) continue;
      const [low, high] = STRIP_COLOUR.difference;
      context.fillStyle = track.colour(isSigned ? (value < 0 ? low : high) : STRIP_COLOUR.shares);
      const rise = (value / track.highest) * zero;
      const gap = end - start > 6 * ratio ? ratio : 0;
      context.fillRect(start, zero - Math.max(rise, 0), end - start - gap, Math.abs(rise));
    }
    if (isSigned) {
      context.fillStyle = cssColour("--muted");
      context.fillRect(0, zero, width, Math.round(ratio));
    }
  }

  // Show the map of the player's time, and the number of the time ``pointed`` at.
  follow(time, pointed) {
    const step = this.track.stepAt(pointed);
    this.value.textContent = step < 0 ? "–" : `${this.track.over_time[step].toFixed(1)}×`;
    this.draw(time);
  }

  draw(time = this.player.time) {
    const { context, ratio } = contextOf(this.canvas);
    const step = this.track.stepAt(time);
    this.#describe(step);
    const media = this.player.hasVideo ? this.player.video : this.player.still;
    const isShown = step >= 0 && !media.hidden && this.look.value !== "off";
    this.canvas.parentElement.classList.toggle("is-mapped", isShown);
    if (!isShown) return;
    const box = contentBox(media, this.canvas);
    const [left, top, right, bottom] = this.track.rectangle;
    const [x, y] = [(box.left + left * box.width) * ratio, (box.top + top * box.height) * ratio];
    const [width, height] = [(right - left) * box.width * ratio, (bottom - top) * box.height * ratio];
    context.save();
    context.beginPath();
    context.rect(box.left * ratio, box.top * ratio, box.width * ratio, box.height * ratio);
    context.clip();
    context.globalAlpha = this.opacity.value / 100;
    context.imageSmoothingEnabled = this.look.value === "smooth";
    context.drawImage(this.track.picture(step), x, y, width, height);
    if (this.look.value === "patches") this.#drawBorders(context, { x, y, width, height }, ratio);
    context.restore();
  }

  #drawBorders(context, { x, y, width, height }, ratio) {
    const { rows, columns } = this.track;
    context.strokeStyle = BORDER;
    context.lineWidth = ratio;
    context.beginPath();
    for (let column = 0; column <= columns; column++) {
      context.moveTo(x + (column / columns) * width, y);
      context.lineTo(x + (column / columns) * width, y + height);
    }
    for (let row = 0; row <= rows; row++) {
      context.moveTo(x, y + (row / rows) * height);
      context.lineTo(x + width, y + (row / rows) * height);
    }
    context.stroke();
  }

  #describe(step) {
    const { track } = this;
    const share = step < 0 ? 0 : Math.round(100 * track.on_no_patch[step]);
    const label = step < 0 ? "" : track.labels[track.label_of[step]];
    const named = label ? `Explained here: ${label}. ` : "";
    const text = step < 0 ? "There is no map of this time." : `${named}${share} % of this segment's map is on no patch.`;
    const shown = document.querySelector("#map-now");
    if (shown.textContent !== text) shown.textContent = text;
  }

  // Fill a select with the values of a choice; with a single one, there is nothing to choose.
  #offer(choice, select) {
    const values = [...new Set(this.tracks.map((track) => track[choice]))];
    select.replaceChildren(...values.map((value) => element("option", { value, textContent: value })));
    select.closest("label").hidden = values.length < 2;
    select.addEventListener("input", () => this.#choose(this.#nearest(choice, select.value)));
  }

  // The track with the chosen value that agrees with the current one in most of the other choices.
  #nearest(choice, value) {
    const agreement = (track) => MAP_CHOICES.filter((each) => track[each] === this.track[each]).length;
    const matching = this.tracks.filter((track) => track[choice] === value);
    return matching.reduce((best, track) => (agreement(track) > agreement(best) ? track : best));
  }

  #choose(track) {
    this.track = track;
    for (const [choice, select] of this.selects) select.value = track[choice];
    for (const note of document.querySelectorAll("[data-method]")) note.hidden = note.dataset.method !== track.method;
    this.strip.setAttribute("aria-label", this.#stripText());
    this.#drawLegend();
    this.timeline.draw();
    this.draw();
  }

  #stripText() {
    const { over_time, starts_s } = this.track;
    const most = over_time.reduce((best, value, step) => (value > over_time[best] ? step : best), 0);
    return over_time.length === 0 ? "" : `Most at ${clock(starts_s[most])}: ${over_time[most].toFixed(1)} times an even share`;
  }

  #drawLegend() {
    const { track } = this;
    const isSigned = track.scale === "difference";
    const first = isSigned ? 1 : 0;
    const canvas = document.querySelector("#map-scale");
    const { context, width, height } = contextOf(canvas);
    context.fillStyle = LEGEND_GREY;
    context.fillRect(0, 0, width, height);
    for (let x = 0; x < width; x++) {
      const byte = first + Math.round((x / Math.max(width - 1, 1)) * (255 - first));
      context.globalAlpha = track.colours[4 * byte + 3] / 255;
      context.fillStyle = track.colour(byte);
      context.fillRect(x, 0, 1, height);
    }
    context.globalAlpha = 1;
    const most = `${Number(track.most.toPrecision(2))} times`;
    const [low, high] = isSigned ? [`${track.sides[1]}, ${most}`, `${track.sides[0]}, ${most}`] : ["0", most];
    document.querySelector("#map-low").textContent = low;
    document.querySelector("#map-high").textContent = `${high} or more`;
    document.querySelector("#map-meaning").textContent = isSigned
      ? "How much more of the map a patch has for one label than for the other, in multiples of an even share."
      : "How much of the map a patch has, in multiples of an even share.";
  }
}

const mapLayer = new MapLayer(embedded("maps"), player, timeline);
