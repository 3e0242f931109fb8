// Line charts, one below the other: each curve has its own scale, as losses of one run differ by orders of magnitude.
// The value is {curves: [{title, points: [[step, value], ...]}, ...]}.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 80;

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function text(tag, className, content) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = content;
  return made;
}

function number(value) {
  return Number(value.toPrecision(3)).toLocaleString("en-US", { maximumSignificantDigits: 3 });
}

function chart({ title, points }) {
  const values = points.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [points[0][0], points.at(-1)[0]];
  const x = (step) => (WIDTH * (step - first)) / (last - first || 1);
  const y = (value) => HEIGHT - (HEIGHT * (value - low)) / (high - low || 1);
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.append(text("span", "losses-title", title), text("span", "losses-now", number(values.at(-1))));
  const plot = document.createElement("div");
  plot.className = "losses-plot";
  const scale = document.createElement("div");
  scale.className = "losses-scale";
  scale.append(text("span", "", number(high)), text("span", "", number(low)));
  const drawing = shape("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `${title}: from ${number(values[0])} to ${number(values.at(-1))} in ${last.toLocaleString("en-US")} steps`,
  });
  const line = points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  drawing.append(shape("polyline", { points: line, "vector-effect": "non-scaling-stroke" }));
  plot.append(scale, drawing);
  const steps = document.createElement("div");
  steps.className = "losses-steps";
  steps.append(text("span", "", first.toLocaleString("en-US")), text("span", "", `step ${last.toLocaleString("en-US")}`));
  figure.append(caption, plot, steps);
  return figure;
}

function draw() {
  element.firstElementChild.replaceChildren(...(props.value?.curves ?? []).map(chart));
}

draw();
watch("value", draw);
