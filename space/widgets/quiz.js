// A quiz: the server sends all rounds at once, and the state of the game is kept here.
// value: {"rounds": [{"question", "images", "choices", "answer", "why"}, ...]}; a round has two choices, and one image,
// or two of which one is the answer. "submit" asks the server for other rounds.
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  node.className = name;
  if (text) node.textContent = text;
  return node;
};

function start() {
  const rounds = (props.value || {}).rounds || [];
  let number = 0;
  let score = 0;
  if (!rounds.length) {
    element.replaceChildren();
    return;
  }
  const head = make("p", "quiz-head");
  const body = make("div", "quiz-body");
  const result = make("p", "quiz-result");
  result.setAttribute("role", "status"); // screen readers say what is written here
  result.setAttribute("aria-live", "polite");
  const next = make("button", "quiz-button quiz-next");
  next.type = "button";

  const writeHead = (played) => {
    head.textContent = `Round ${number + 1} of ${rounds.length}. Score: ${score} of ${played}.`;
  };

  function choose(chosen, buttons) {
    const round = rounds[number];
    if (buttons.some((button) => button.getAttribute("aria-disabled") === "true")) return;
    const isRight = chosen === round.answer;
    score += isRight ? 1 : 0;
    buttons.forEach((button, place) => {
      button.setAttribute("aria-disabled", "true"); // not `disabled`, which would lose the focus
      button.classList.toggle("quiz-right", place === round.answer);
      button.classList.toggle("quiz-wrong", place === chosen && !isRight);
    });
    writeHead(number + 1);
    result.textContent = `${isRight ? "Right." : "Wrong."} ${round.why}`;
    next.textContent = number + 1 < rounds.length ? "Next round" : "Show the score";
    next.hidden = false;
    next.focus({ preventScroll: true });
  }

  function show() {
    const round = rounds[number];
    const isPair = round.images.length > 1;
    const images = round.images.map((source, place) => {
      const image = make("img", "quiz-image");
      image.src = source;
      image.alt = isPair ? `Image ${round.choices[place]}` : "A generated image";
      return image;
    });
    const buttons = round.choices.map((choice, place) => {
      const button = make("button", "quiz-button");
      button.type = "button";
      if (isPair) button.append(images[place]);
      button.append(make("span", "quiz-choice", choice));
      button.addEventListener("click", () => choose(place, buttons));
      return button;
    });
    const question = make("p", "quiz-question", round.question);
    const choices = make("div", isPair ? "quiz-choices quiz-pair" : "quiz-choices");
    choices.append(...buttons);
    body.replaceChildren(question, ...(isPair ? [] : images), choices);
    writeHead(number);
    result.textContent = "";
    next.hidden = true;
    return buttons[0];
  }

  function end() {
    head.textContent = `All ${rounds.length} rounds are played.`;
    body.replaceChildren();
    result.textContent = `Your score: ${score} of ${rounds.length}. Guessing gives ${rounds.length / 2} on average.`;
    next.textContent = "Play again with other images";
  }

  next.addEventListener("click", () => {
    if (number >= rounds.length) {
      trigger("submit");
      return;
    }
    number += 1;
    if (number === rounds.length) end();
    else show().focus({ preventScroll: true });
  });
  show();
  const box = make("div", "quiz-box");
  box.append(head, body, result, next);
  element.replaceChildren(box);
}

start();
watch("value", start);
