// Sliders with a strip of images below each, which shows where it leads.
// From the server: {handles: [{title, low, high, group, isRandom}], reach}, then the same with {strips: [[data URL, ...],
// ...]}. To the server: {positions: [number, ...]}, with the event "input" at each move.
const root = element.firstElementChild;
let positions = [];
let rows = [];

const make = (tag, name, parent, text = "") => {
  const made = document.createElement(tag);
  made.className = `sliders-${name}`;
  made.textContent = text;
  parent.append(made);
  return made;
};

const send = () => {
  props.value = { positions };
  trigger("input");
};

const place = (index, value) => {
  positions[index] = value;
  rows[index].range.value = value;
  rows[index].number.textContent = value > 0 ? `+${value}` : `${value}`;
};

const move = (values) => {
  values.forEach((value, index) => place(index, value));
  send();
};

// of N(0, 1), as the training images lie along each component (Box and Muller 1958)
const random = (reach) => {
  const value = Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  return Math.round(10 * Math.min(reach, Math.max(-reach, value))) / 10;
};

const draw = ({ handles, reach }) => {
  root.replaceChildren();
  rows = [];
  positions = handles.map(() => 0);
  const buttons = make("div", "buttons", root);
  const reset = make("button", "button", buttons, "Reset");
  reset.addEventListener("click", () => move(handles.map(() => 0)));
  const shuffle = make("button", "button", buttons, "Random");
  shuffle.addEventListener("click", () => move(handles.map(({ isRandom }) => (isRandom ? random(reach) : 0))));
  let group = null;
  handles.forEach(({ title, low, high, group: own }, index) => {
    if (own !== group) {
      make("h3", "group", root, own);
      group = own;
    }
    const row = make("div", "row", root);
    const head = make("div", "head", row);
    make("span", "title", head, title);
    const number = make("output", "number", head);
    const range = make("input", "range", row);
    Object.assign(range, { type: "range", min: -reach, max: reach, step: 0.1 });
    range.setAttribute("aria-label", title);
    range.addEventListener("input", () => {
      place(index, Number(range.value));
      send();
    });
    range.addEventListener("dblclick", () => {
      place(index, 0);
      send();
    });
    const strip = make("div", "strip", row);
    const ends = make("div", "ends", row);
    make("span", "end", ends, low);
    make("span", "end", ends, high);
    rows.push({ range, number, strip });
    place(index, 0);
  });
};

const drawStrips = (strips) =>
  strips.forEach((images, index) =>
    rows[index]?.strip.replaceChildren(
      ...images.map((source) => Object.assign(document.createElement("img"), { src: source, alt: "" })),
    ),
  );

const update = () => {
  const value = props.value;
  if (!value?.handles) return;
  // strips come later than their sliders, which may have moved meanwhile
  if (!value.strips || rows.length !== value.handles.length) draw(value);
  if (value.strips) drawStrips(value.strips);
  props.value = { positions };
};

update();
watch("value", update);
