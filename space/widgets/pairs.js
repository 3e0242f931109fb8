// Pairs of images to click. From the server: {pairs: [[data URL, data URL], ...]}. A click triggers "click" with the
// index of the pair.
const root = element.firstElementChild;

const update = () => {
  const pairs = props.value?.pairs ?? [];
  const heading = Object.assign(document.createElement("p"), { className: "pairs-heading" });
  heading.textContent = "Or click an example:";
  const list = Object.assign(document.createElement("div"), { className: "pairs-list" });
  pairs.forEach((pair, index) => {
    const button = Object.assign(document.createElement("button"), { className: "pairs-button", type: "button" });
    pair.forEach((url, side) => {
      const alt = `Example ${index + 1}, ${side ? "last" : "first"} image`;
      if (side) button.append(Object.assign(document.createElement("span"), { textContent: "→", ariaHidden: "true" }));
      button.append(Object.assign(document.createElement("img"), { src: url, alt, className: "pairs-image" }));
    });
    button.addEventListener("click", () => trigger("click", { index }));
    list.append(button);
  });
  root.replaceChildren(...(pairs.length ? [heading, list] : []));
};

update();
watch("value", update);
