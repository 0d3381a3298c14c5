// Lists of clips: a card each, with its thumbnail, in portions that a button extends.

const CLIPS_AT_ONCE = window.matchMedia("(max-width: 40rem)").matches ? 8 : 24;

// Makes an element; text is never parsed as HTML.
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

// Isolates a name, so that its direction of writing changes nothing around it.
function named(text, className = "") {
  const element = make("bdi", className, text);
  element.title = text;
  return element;
}

function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

// A clip has a name and a picture in base64, or ""; lines are elements below the picture.
function card(clip, lines) {
  let picture = make("div", "no-picture", "no picture");
  if (clip.picture) {
    picture = document.createElement("img");
    picture.src = `data:image/jpeg;base64,${clip.picture}`;
    picture.alt = "";
    picture.decoding = "async";
  }
  const name = make("span", "clip path muted", named(clip.name));
  return make("li", "card", picture, ...lines, name);
}

// Shows the clips in the element in place of what it holds; describe(clip) returns the lines of a card.
function showClips(element, clips, describe) {
  const list = make("ul", "cards");
  const more = make("button", "", "");
  more.type = "button";
  const extend = () => {
    const shown = list.children.length;
    const next = clips.slice(shown, shown + CLIPS_AT_ONCE);
    list.append(...next.map((clip) => card(clip, describe(clip))));
    const left = clips.length - shown - next.length;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(left, CLIPS_AT_ONCE)} of ${left} more`;
    return shown;
  };
  more.addEventListener("click", () => {
    const first = list.children[extend()];
    first.tabIndex = -1;
    first.focus();
  });
  extend();
  element.replaceChildren(list, more);
}

// Where the clips are far from what was pressed, as on a phone, brings them into view.
function revealChosen() {
  const top = document.querySelector("#chosen").getBoundingClientRect().top;
  if (top < 0 || top > window.innerHeight * 0.8) document.querySelector("#chosen").scrollIntoView();
}
