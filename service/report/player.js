// The player: the video where the page holds it, or else the picture nearest to the time.

function blobOf(base64, type) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return new Blob([bytes], { type });
}

class Player extends EventTarget {
  constructor(duration, thumbnails) {
    super();
    this.duration = duration;
    this.thumbnails = thumbnails;
    this.stillTime = 0;
    this.isSought = false;
    this.start = 0; // the time of the first picture on the video's own clock: not every file starts at zero
    this.video = document.querySelector("#player video");
    this.still = document.querySelector("#player img");
    const held = document.querySelector("#video");
    if (held === null) {
      this.#showStill();
    } else {
      this.video.addEventListener("error", () => this.#fail());
      for (const kind of ["play", "pause", "seeking", "timeupdate", "loadeddata"]) {
        this.video.addEventListener(kind, () => this.#changed());
      }
      this.video.requestVideoFrameCallback?.((_, { mediaTime }) => {
        const { currentTime } = this.video; // at zero or, if the browser has moved there, at the first picture
        const isFirst = currentTime === 0 || Math.abs(currentTime - mediaTime) < 1e-3;
        if (this.isSought || !isFirst) return;
        this.start = mediaTime;
        this.#changed();
      });
      this.video.src = URL.createObjectURL(blobOf(held.textContent.trim(), held.dataset.type));
      this.video.hidden = false;
    }
  }

  get hasVideo() {
    return !this.video.hidden;
  }

  get isPlaying() {
    return this.hasVideo && !this.video.paused && !this.video.ended;
  }

  get time() {
    const time = this.hasVideo ? Math.max(this.video.currentTime - this.start, 0) : this.stillTime;
    return Math.min(time, this.duration);
  }

  seek(time) {
    const wanted = Math.min(Math.max(time, 0), this.duration);
    this.isSought = true;
    if (this.hasVideo) {
      this.video.currentTime = wanted + this.start;
    } else {
      this.stillTime = wanted;
      this.#showStill();
      this.#changed();
    }
  }

  toggle() {
    if (!this.hasVideo) return;
    if (this.video.paused) this.video.play();
    else this.video.pause();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #showStill() {
    const before = this.thumbnails.filter((each) => each.time_s <= this.stillTime);
    const shown = before.at(-1) ?? this.thumbnails[0];
    this.still.hidden = shown === undefined;
    if (shown !== undefined) {
      this.still.src = shown.url;
      this.still.alt = `Picture at ${clock(shown.time_s)}`;
    }
  }

  #fail() {
    this.video.hidden = true;
    document.querySelector("#unplayable").hidden = false;
    this.#showStill();
    this.#changed();
  }
}
