// Images in cards, and one lens over all of them: it magnifies the same place of each image.
// value: {"items": [{"title", "alt", "image", "note"}, ...], "zoom": how much the lens magnifies, "place": [x, y], where
// it is at first, as shares of an image's edge, "hint": whether to show how to use it}
const HINT =
  "Move over an image, or tap it, to magnify the same place in all of them. With a keyboard, use the arrow keys on the first image.";
const STEP = 0.05; // of an image's edge, for an arrow key
const LENS = 0.56; // the lens, as a share of an image's edge; lens.css has it too

let place = null; // of the lens, as shares of an image's edge
let isShown = true; // before anybody moves, so that people see what it does

const make = (tag, name, text) => {
  const node = document.createElement(tag);
  node.className = name;
  if (text) node.textContent = text;
  return node;
};

function draw() {
  const value = props.value || {};
  const items = value.items || [];
  const zoom = value.zoom || 4;
  const lenses = [];
  if (items.length && !place) place = { x: value.place[0], y: value.place[1] };

  const show = (x, y, lift = 0) => {
    place = { x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1) };
    isShown = true;
    place.lift = lift;
    update();
  };
  const hide = () => {
    isShown = false;
    update();
  };
  const update = () => {
    for (const lens of lenses) {
      lens.hidden = !isShown;
      const inside = (share) => Math.min(Math.max(share - LENS / 2, 0), 1 - LENS);
      lens.style.left = `${inside(place.x) * 100}%`;
      lens.style.top = `${inside(place.y - (place.lift || 0)) * 100}%`;
      // the magnified image is `zoom / LENS` lenses wide; the place that is pointed at is in the middle of the lens
      lens.style.backgroundSize = `${(zoom / LENS) * 100}%`;
      const shift = (share) => ((share * zoom - LENS / 2) / (zoom - LENS)) * 100;
      lens.style.backgroundPosition = `${shift(place.x)}% ${shift(place.y)}%`;
    }
  };
  const follow = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    // beside a finger, which would hide it
    const lift = event.pointerType === "touch" ? LENS / 2 : 0;
    show((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, lift);
  };
  const step = (event) => {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [];
    if (event.key === "Escape") hide();
    if (x === undefined) return;
    event.preventDefault();
    show(place.x + x * STEP, place.y + y * STEP);
  };

  const hint = make("p", value.hint ? "lens-hint" : "lens-hint lens-hidden", HINT);
  hint.id = `lens-hint-${Math.random().toString(36).slice(2)}`;
  const cards = make("ul", "lens-cards");
  cards.style.setProperty("--lens-columns", items.length > 5 ? Math.ceil(items.length / 2) : Math.max(items.length, 1));
  items.forEach((item, number) => {
    const card = make("li", "lens-card");
    const button = make("button", "lens-image");
    button.type = "button";
    button.tabIndex = number ? -1 : 0; // the lens of one image moves all the others
    button.setAttribute("aria-describedby", hint.id);
    const image = make("img", "");
    image.src = item.image;
    image.alt = item.alt;
    image.draggable = false;
    const lens = make("span", "lens-glass");
    lens.style.backgroundImage = `url("${item.image}")`;
    lenses.push(lens);
    button.append(image, lens);
    button.addEventListener("pointermove", follow);
    button.addEventListener("pointerdown", follow);
    button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
    button.addEventListener("keydown", step);
    card.append(button, make("span", "lens-title", item.title), make("span", "lens-note", item.note));
    cards.append(card);
  });
  element.replaceChildren(...(items.length ? [hint, cards] : []));
  update();
}

draw();
watch("value", draw);
