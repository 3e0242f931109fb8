// Lines in one plot, with a legend that wraps.
// value: {"title", "x_title", "y_title", "x": [numbers], "curves": [{"title", "y": [numbers], "is_reference"}, ...]}
const COLORS = ["#6366f1", "#ea580c", "#059669", "#db2777", "#0891b2", "#a16207", "#7c3aed", "#65a30d", "#dc2626"];
const WIDTH = 640;
const HEIGHT = 300;
const LEFT = 56;
const BOTTOM = 44;
const TOP = 20;

const make = (tag, name, text) => {
  const node = document.createElement(tag);
  node.className = name;
  if (text) node.textContent = text;
  return node;
};

const svg = (tag, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
};

function draw() {
  const value = props.value || {};
  const curves = value.curves || [];
  if (!curves.length) {
    element.replaceChildren();
    return;
  }
  const highest = Math.max(...curves.flatMap((curve) => curve.y));
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].find((size) => highest / size <= 8) || highest / 8;
  const top = Math.ceil(highest / step) * step;
  const right = Math.max(...value.x) * 1.05;
  const across = (x) => LEFT + (x / right) * (WIDTH - LEFT - 8);
  const up = (y) => HEIGHT - BOTTOM - (y / top) * (HEIGHT - BOTTOM - TOP);
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "curves-plot" });
  plot.setAttribute("aria-label", `${value.title}: ${value.y_title}, by ${value.x_title}`);
  for (let number = 0; number <= Math.round(top / step); number += 1) {
    const y = up(number * step);
    plot.append(svg("line", { x1: LEFT, x2: WIDTH - 8, y1: y, y2: y, class: "curves-grid" }));
    const text = String(Number((number * step).toFixed(2)));
    plot.append(svg("text", { x: LEFT - 6, y: y + 5, "text-anchor": "end", class: "curves-tick" }, text));
  }
  for (let x = 0; x <= right; x += 0.1) {
    const place = { x: across(x), y: HEIGHT - 10, "text-anchor": "middle", class: "curves-tick" };
    plot.append(svg("text", place, x.toFixed(1)));
  }
  const legend = make("ul", "curves-legend");
  curves.forEach((curve, number) => {
    const points = curve.y.map((y, place) => `${across(value.x[place])},${up(y)}`).join(" ");
    const name = curve.is_reference ? "curves-line curves-reference" : "curves-line";
    const line = svg("polyline", { points, class: name });
    const color = curve.is_reference ? "var(--body-text-color)" : COLORS[number % COLORS.length];
    line.style.stroke = color;
    plot.append(line);
    const entry = make("li", "curves-entry");
    const swatch = make("span", curve.is_reference ? "curves-swatch curves-dashed" : "curves-swatch");
    swatch.style.borderColor = color;
    entry.append(swatch, make("span", "", curve.title));
    legend.append(entry);
  });
  element.replaceChildren(
    make("p", "curves-heading", value.title),
    make("p", "curves-axis", value.y_title),
    plot,
    make("p", "curves-axis curves-x", value.x_title),
    legend,
  );
}

draw();
watch("value", draw);
