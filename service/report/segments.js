// The table of merged segments: neighbours with the same best label are one row.

const ROWS_AT_ONCE = 100;

class SegmentTable {
  constructor(answer, player) {
    this.answer = answer;
    this.player = player;
    this.body = document.querySelector("#segments tbody");
    this.more = document.querySelector("#more-segments");
    this.limit = ROWS_AT_ONCE;
    this.wanted = "";
    this.rows = [];
    this.more.addEventListener("click", () => {
      this.limit += ROWS_AT_ONCE;
      this.list();
    });
    this.list();
  }

  list() {
    const wanted = this.wanted.toLowerCase();
    const found = this.answer.merged.filter(
      ({ label }) => !wanted || (label !== null && this.answer.labels[label].toLowerCase().includes(wanted)),
    );
    this.rows = found.slice(0, this.limit).map((merged) => ({ merged, row: this.#row(merged) }));
    this.body.replaceChildren(...this.rows.map(({ row }) => row));
    const left = found.length - this.rows.length;
    this.more.hidden = left <= 0;
    this.more.textContent = `Show ${Math.min(left, ROWS_AT_ONCE)} more of ${left} rows`;
    this.follow();
  }

  // Mark the row of the player's time.
  follow() {
    const time = this.player.time;
    for (const { merged, row } of this.rows) {
      const isCurrent = merged.start_s <= time && time < merged.end_s;
      if (isCurrent) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  #row({ start_s, end_s, label, mean, lowest, highest, segments }) {
    const time = element("button", { type: "button", className: "plain", textContent: `${clock(start_s)} – ${clock(end_s)}` });
    time.addEventListener("click", () => this.player.seek(start_s));
    const row = element("tr", {}, element("td", {}, time));
    if (label === null) {
      row.append(element("td", { className: "muted", colSpan: 3, textContent: "none above the threshold" }));
    } else {
      const range = segments > 1 ? `${lowest.toFixed(2)}–${highest.toFixed(2)} in ${segments}` : "";
      row.append(
        element("td", { className: "label" }, nameElement(this.answer.labels[label])),
        element("td", {}, element("div", { className: "scored" }, element("span", { textContent: mean.toFixed(2) }), bar(mean))),
        element("td", { className: "num muted range", textContent: range }),
      );
    }
    return row;
  }
}
