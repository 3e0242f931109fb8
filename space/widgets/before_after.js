// Two versions of an image on top of each other; a handle moves the border between them.
// From the server: {before: data URL, after: data URL, note: text}; a part that is missing stays as it is.
const HANDLE = 32; // pixels, as in the style sheet
const root = element.firstElementChild;
let parts = null;

const make = (tag, name, parent) => {
  const made = document.createElement(tag);
  made.className = `before-after-${name}`;
  parent.append(made);
  return made;
};

const split = () => {
  const share = Number(parts.range.value) / 100;
  const left = share > 0 ? `calc(${HANDLE / 2}px + (100% - ${HANDLE}px) * ${share})` : "0px"; // below the handle
  parts.after.style.clipPath = share < 1 ? `inset(0 0 0 ${left})` : "inset(0 0 0 100%)";
  parts.line.style.left = left;
  parts.words.firstChild.style.visibility = share > 0 ? "visible" : "hidden";
};

const build = () => {
  const frame = make("div", "frame", root);
  const [before, after] = ["before", "after"].map((name) => Object.assign(make("img", name, frame), { alt: name }));
  const line = make("div", "line", frame);
  const words = make("div", "words", frame);
  for (const word of ["before", "after"]) make("span", "word", words).textContent = word;
  const range = Object.assign(make("input", "range", frame), { type: "range", min: 0, max: 100, value: 0 });
  range.setAttribute("aria-label", "Share of the image that shows it before the change");
  range.addEventListener("input", split);
  const note = make("p", "note", root);
  parts = { before, after, line, words, range, note };
  split();
};

const update = () => {
  const value = props.value;
  if (!value) return;
  if (!parts) build();
  if (value.before) parts.before.src = value.before;
  if (value.after) parts.after.src = value.after;
  if (value.note !== undefined) parts.note.textContent = value.note;
};

update();
watch("value", update);
