// What the models see of an upload, or why it is refused. From the server: {image: data URL or "", alt: text,
// sentence: text}.
const root = element.firstElementChild;

const update = () => {
  const { image = "", alt = "", sentence = "" } = props.value ?? {};
  const text = Object.assign(document.createElement("p"), { className: "crop-sentence", textContent: sentence });
  const shown = Object.assign(document.createElement("img"), { className: "crop-image", src: image, alt });
  root.className = "crop-parts";
  root.setAttribute("aria-live", "polite");
  root.replaceChildren(...(image ? [shown] : []), ...(sentence ? [text] : []));
};

update();
watch("value", update);
