// Bars from 0, with a line at 1 and a band around it.
// value: {"title", "items": [{"title", "number", "band": [low, high] or null}, ...], "note": what line and band are}
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  node.className = name;
  if (text) node.textContent = text;
  return node;
};

function draw() {
  const { title, items = [], note } = props.value || {};
  const end = 1.08 * Math.max(1.1, ...items.flatMap((item) => [item.number, ...(item.band || [])]));
  const list = make("ul", "bars-list");
  for (const item of items) {
    const row = make("li", "bars-row");
    const track = make("span", "bars-track");
    const bar = make("span", "bars-bar");
    bar.style.width = `${(item.number / end) * 100}%`;
    const line = make("span", "bars-line");
    line.style.left = `${100 / end}%`;
    if (item.band) {
      const band = make("span", "bars-band");
      band.style.left = `${(item.band[0] / end) * 100}%`;
      band.style.width = `${((item.band[1] - item.band[0]) / end) * 100}%`;
      track.append(band);
    }
    track.append(bar, line);
    row.append(make("span", "bars-title", item.title), track, make("span", "bars-number", item.number.toFixed(2)));
    list.append(row);
  }
  element.replaceChildren(
    ...(items.length ? [make("p", "bars-heading", title), list, make("p", "bars-note", note)] : []),
  );
}

draw();
watch("value", draw);
