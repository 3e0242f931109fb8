// Plays the frames of one model or several, in step, there and back.
// From the server: {rows: [{title, frames: data URL of all frames in a row, count, size: edge of a frame in pixels,
// ends: [data URL, data URL]}, ...], fps: frames per second}. Another speed alone changes nothing else.
const root = element.firstElementChild;
const STRIP = 8; // frames in the film strip
const reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
let rows = []; // {value, image, canvas} of each row
let count = 0;
let fps = 16;
let place = 0; // in frames, from 0 to 2 * count - 2: there and back
let isPlaying = false;
let last = null; // when the last animation frame was drawn, in milliseconds
let request = null; // the next animation frame
let parts = null;

const make = (tag, name, parent, properties = {}) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.className = `player-${name}`;
  parent.append(made);
  return made;
};

const draw = (canvas, { image, value }, numbers) => {
  const { size } = value;
  canvas.width = size * numbers.length;
  canvas.height = size;
  const context = canvas.getContext("2d");
  numbers.forEach((number, at) => context.drawImage(image, number * size, 0, size, size, at * size, 0, size, size));
};

const frame = () => {
  const whole = Math.floor(place);
  return whole < count ? whole : 2 * count - 2 - whole;
};

const show = () => {
  const number = frame();
  for (const row of rows) draw(row.canvas, row, [number]);
  const text = `Frame ${number + 1} of ${count}`;
  parts.range.value = number;
  parts.range.setAttribute("aria-valuetext", text);
  parts.count.textContent = text;
};

const tick = (now) => {
  if (!isPlaying || !root.isConnected) return;
  const passed = last === null ? 0 : Math.min(now - last, 250); // a page in the background does not jump ahead
  last = now;
  const before = frame();
  place = (place + (passed * fps) / 1000) % (2 * count - 2);
  if (frame() !== before && root.offsetParent) show();
  request = requestAnimationFrame(tick);
};

const play = (on) => {
  isPlaying = on;
  parts.button.textContent = on ? "Pause" : "Play";
  last = null;
  cancelAnimationFrame(request);
  if (on) request = requestAnimationFrame(tick);
};

const build = () => {
  root.replaceChildren();
  const list = make("div", "rows", root);
  for (const row of rows) {
    const { title, ends, count: length } = row.value;
    const figure = make("figure", "row", list);
    make("figcaption", "title", figure, { textContent: title });
    const stage = make("div", "stage", figure);
    const end = (url, which) => make("img", "end", stage, { src: url, alt: `${title}: ${which} image` });
    end(ends[0], "first");
    row.canvas = make("canvas", "frame", stage, { role: "img", ariaLabel: `${title}: one frame of the morph` });
    end(ends[1], "last");
    const numbers = [...Array(STRIP).keys()].map((each) => Math.round((each * (length - 1)) / (STRIP - 1)));
    const label = `${title}: ${STRIP} frames of the morph, from the first to the last`;
    draw(make("canvas", "strip", figure, { role: "img", ariaLabel: label }), row, numbers);
  }
  list.classList.toggle("player-single", rows.length === 1);
  const bar = make("div", "bar", root);
  const button = make("button", "button", bar, { type: "button" });
  button.addEventListener("click", () => play(!isPlaying));
  const range = make("input", "range", bar, { type: "range", min: 0, max: count - 1, step: 1 });
  range.setAttribute("aria-label", "Position");
  range.addEventListener("input", () => {
    play(false);
    place = Number(range.value);
    show();
  });
  parts = { button, range, count: make("span", "count", bar) };
};

const update = async () => {
  const value = props.value;
  if (!value?.rows?.length) return;
  fps = value.fps;
  const isShown = value.rows.length === rows.length && rows.every((row, at) => row.value.frames === value.rows[at].frames);
  if (isShown) return;
  const decoded = value.rows.map(async (row) => {
    const image = Object.assign(new Image(), { src: row.frames });
    await image.decode();
    return { value: row, image };
  });
  const ready = await Promise.all(decoded);
  if (props.value?.rows !== value.rows) return; // another morph came meanwhile
  rows = ready;
  count = value.rows[0].count;
  place = reduced ? Math.floor(count / 2) : 0;
  build();
  show();
  play(!reduced);
};

update();
watch("value", update);
