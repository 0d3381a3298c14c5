// The videos of two evaluations: those that one, both or none of them have right, and those of a class.

const data = JSON.parse(document.querySelector("#data").textContent);
const NAMES = {
  11: "Right in A and in B",
  10: "Right in A only",
  "01": "Right in B only",
  "00": "Wrong in A and in B",
};

function rightness(clip) {
  return `${Number(clip.a === clip.true)}${Number(clip.b === clip.true)}`;
}

function answerLine(side, clip) {
  const isRight = clip[side] === clip.true;
  const name = named(`${side.toUpperCase()} ${isRight ? "✓" : "✗"} ${data.labels[clip[side]]}`, "clip");
  const score = make("span", "num", clip.scores[side === "a" ? 0 : 1].toFixed(3));
  return make("p", `verdict ${isRight ? "good" : "bad"}`, name, score);
}

function answers(clip) {
  const lines = [answerLine("a", clip), answerLine("b", clip)];
  if (rightness(clip) !== "00") return lines;
  return [...lines, make("p", "verdict", named(`not ${data.labels[clip.true]}`, "clip"))];
}

function choose(button, title, clips) {
  for (const other of document.querySelectorAll("button[aria-pressed]")) {
    other.setAttribute("aria-pressed", other === button);
  }
  const listed = data.clips.length < data.videos ? " here" : "";
  document.querySelector("#chosen-title").replaceChildren(...title, `: ${plural(clips.length, "video")}${listed}`);
  showClips(document.querySelector("#chosen-clips"), clips, answers);
}

const different = document.querySelector("#all-different");
const chooseDifferent = () => {
  const clips = data.clips.filter((clip) => clip.a !== clip.b);
  choose(different, ["Different labels in A and B"], clips);
};

for (const button of document.querySelectorAll("button[data-right]")) {
  const { right } = button.dataset;
  button.setAttribute("aria-label", `${NAMES[right]}: ${button.textContent}`);
  button.addEventListener("click", () => {
    choose(button, [NAMES[right]], data.clips.filter((clip) => rightness(clip) === right));
    revealChosen();
  });
}
for (const button of document.querySelectorAll("button[data-class]")) {
  const label = Number(button.dataset.class);
  button.addEventListener("click", () => {
    choose(button, ["All of ", named(data.labels[label])], data.clips.filter((clip) => clip.true === label));
    revealChosen();
  });
}
for (const button of document.querySelectorAll("button[data-right], #all-different")) {
  button.setAttribute("aria-pressed", "false");
}
different.addEventListener("click", chooseDifferent);
chooseDifferent();
