"""The tab that moves an image along the principal components of a model's latent space, and along directions learned
from labels of the training images."""

import random
from functools import lru_cache, partial

import gradio as gr
import torch
import torch.nn.functional as F
from PIL import Image

import checks
from faces import crop_to_face
from published import PublishedModel
from tabs import INTERNAL_EVENT, PICTURE, THUMBNAILS, UPLOAD, model_choices, model_event, own_prior, prior_choices
from tabs.generate import MAX_COUNT, MAX_TEMPERATURE, Captioned, Drawn, SampleTab


NUM_SLIDERS = 10
NUM_LABELS = 4  # sliders for directions learned from labels; a model may have none
REACH = 3.0
SWEEP = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
LABEL_NOTE = """A linear probe found these directions from the labels of the dataset. The percentage is the probe's
balanced accuracy on {each} held-out images; chance is 50%. The labels are annotators' guesses, and a slider also moves
whatever correlates with its label in the data."""
CODE_NOTE = """+1 is the step from the mean code of one side of a label to that of the other side. The percentage is
the balanced accuracy of a linear probe on {each} held-out images; chance is 50%. The labels are annotators' guesses,
and a slider also moves whatever correlates with its label in the data."""


def latent_pca(
    models: dict[str, PublishedModel],
    model: str,
    seed: int,
    temperature: float,
    prior: str,
    picture: dict | None,
    component_1: float = 0.0,
    component_2: float = 0.0,
    component_3: float = 0.0,
    component_4: float = 0.0,
    component_5: float = 0.0,
    component_6: float = 0.0,
    component_7: float = 0.0,
    component_8: float = 0.0,
    component_9: float = 0.0,
    component_10: float = 0.0,
    label_1: float = 0.0,
    label_2: float = 0.0,
    label_3: float = 0.0,
    label_4: float = 0.0,
    labels: str = "",
    image: int = 1,
    guidance: float | None = None,
) -> Image.Image:
    """Moves an image along the first ten principal components of the latent space, in standard deviations of the
    training set, and along the directions learned from labels if the model has any. The image is the upload. If there
    is none, it is a sample: number `image` of this seed, from 1, with `labels` such as "age=60, gender=female"."""
    chosen, start = _start(models, model, seed, temperature, prior, picture, labels, image, guidance)
    shifts = [component_1, component_2, component_3, component_4, component_5]
    shifts += [component_6, component_7, component_8, component_9, component_10]
    shifts = [checks.number(f"Component {each}", shift, -REACH, REACH) for each, shift in enumerate(shifts, 1)]
    steps = [label_1, label_2, label_3, label_4]
    steps = [checks.number(f"Label {each}", step, -REACH, REACH) for each, step in enumerate(steps, 1)]
    count, num_labels = _num_components(chosen), len(chosen.directions[:NUM_LABELS])
    if any(shifts[count:]):
        raise checks.refusal(f"The model {model} has {count} components; leave the others at 0.")
    if any(steps[num_labels:]):
        raise checks.refusal(f"The model {model} has {num_labels} labelled directions; leave the others at 0.")
    moved = _moved(chosen, start, torch.tensor([shifts[:count]]), torch.tensor([steps[:num_labels]]))
    return chosen.pipeline.decode(moved).images[0]


def pca_sweep(
    models: dict[str, PublishedModel],
    model: str,
    seed: int,
    temperature: float,
    prior: str,
    picture: dict | None,
    labels: str = "",
    image: int = 1,
    guidance: float | None = None,
) -> Captioned:
    """Moves an image along each of the first ten principal components, and along each direction learned from labels,
    from -3 to 3 standard deviations, or steps of a label. Returns a row of seven images for each."""
    chosen, start = _start(models, model, seed, temperature, prior, picture, labels, image, guidance)
    count, directions = _num_components(chosen), chosen.directions[:NUM_LABELS]
    size = count + len(directions)
    shifts = torch.zeros(size, len(SWEEP), size)
    for row in range(size):
        shifts[row, :, row] = torch.tensor(SWEEP)
    rows = _moved(chosen, start, *shifts.flatten(0, 1).split([count, len(directions)], 1))
    unit = "standard deviations"
    captions = [f"{_title(chosen, row)}: {value:+g} {unit}" for row in range(count) for value in SWEEP]
    unit = "steps" if chosen.pipeline.has_code else unit
    captions += [f"{each.low} to {each.high}: {value:+g} {unit}" for each in directions for value in SWEEP]
    return list(zip(chosen.pipeline.decode(rows).images, captions, strict=True))


def _moved(
    model: PublishedModel, start: torch.Tensor, shifts: torch.Tensor, label_steps: torch.Tensor
) -> torch.Tensor:
    """Moves latents along components by `shifts` (B, K) and along labelled directions by `label_steps` (B, L). In a
    model with a code both are shifts of the code, and it is moved once."""
    device = model.pipeline.model.device
    vectors = torch.stack([each.vector for each in model.directions[:NUM_LABELS]] or [torch.zeros(shifts.shape[1])])
    steps = (label_steps @ vectors[: label_steps.shape[1]]).to(device)  # (B, Z), or (B, code_dim)
    if model.pipeline.has_code:
        size = max(shifts.shape[1], steps.shape[1])
        padded = [F.pad(each, (0, size - each.shape[1])) for each in (shifts.to(device), steps)]
        return model.pipeline.move(start, padded[0] + padded[1])
    moved = model.pipeline.move(start, shifts)
    return model.pipeline.shift(moved, steps)


def _title(model: PublishedModel, component: int) -> str:
    """The name of a component, numbered from 0, where it has one, and its number as visitors see it."""
    name, number = model.component_names.get(component), component + 1
    return f"{name} · component {number}" if name else f"Component {number}"


def _num_components(model: PublishedModel) -> int:
    return min(NUM_SLIDERS, model.pipeline.num_components)


def _start(
    models: dict[str, PublishedModel],
    model: str,
    seed: int,
    temperature: float,
    prior: str,
    picture: dict | None,
    labels: str,
    image: int,
    guidance: float | None,
) -> tuple[PublishedModel, torch.Tensor]:
    chosen = checks.choice("The model", model, models)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    image = checks.whole_number("The number of the image", image, 1, MAX_COUNT)
    temperature = checks.number("The temperature", temperature, 0, MAX_TEMPERATURE)
    prior = checks.prior(chosen, prior)
    if picture is None:
        wanted = checks.labels(chosen, labels, prior)
        guidance = checks.guidance(guidance)
        return chosen, _sampled(chosen, seed, image, temperature, prior, tuple(wanted.items()), guidance)
    if not chosen.has_encoder:
        raise checks.refusal(f"The model {model} has no encoder; remove the image, or choose a model with an encoder.")
    upload = checks.picture("The image", picture)
    return chosen, chosen.pipeline.encode([crop_to_face(upload, chosen.data_set) or upload])


@lru_cache(maxsize=64)  # a moving slider would sample the same start again and again
def _sampled(
    model: PublishedModel,
    seed: int,
    image: int,
    temperature: float,
    prior: str,
    labels: tuple[tuple[str, str], ...],
    guidance: float | None,
) -> torch.Tensor:
    settings = {"labels": dict(labels), "guidance": guidance, "skip": image - 1}
    return model.pipeline.sample(1, seed, temperature, prior, **settings).latents


def slider_labels(models: dict[str, PublishedModel], model: str) -> list:
    """Labels the sliders of a model: a component's slider with its name, if it has one, and its share of the latents'
    variance, a label's slider with the probe's accuracy on held-out images."""
    chosen = checks.choice("The model", model, models)
    shares = chosen.pipeline.model.latent_prior.sliders.explained_variance[:NUM_SLIDERS].tolist()
    shown = [
        gr.Slider(label=f"{_title(chosen, each)} ({share:.1%})", visible=True) for each, share in enumerate(shares)
    ]
    shown += [gr.Slider(value=0, visible=False)] * (NUM_SLIDERS - len(shown))
    labels = [
        gr.Slider(label=f"{each.low} → {each.high} (accuracy {each.accuracy:.0%})", visible=True)
        for each in chosen.directions[:NUM_LABELS]
    ]
    text = CODE_NOTE if chosen.pipeline.has_code else LABEL_NOTE
    note = gr.Markdown(text.format(each=chosen.directions[0].num_heldout) if labels else "", visible=bool(labels))
    return [*shown, *labels, *[gr.Slider(value=0, visible=False)] * (NUM_LABELS - len(labels)), note]


def clicked(models: dict[str, PublishedModel], drawn: list[Drawn], event: gr.SelectData) -> list:
    """Starts from the sample that was clicked, and opens this tab."""
    model, seed, image, temperature, prior, _, guidance = drawn[event.index]
    priors = gr.Dropdown(prior_choices(models[model].priors), value=prior)
    return [model, seed, temperature, priors, None, image, guidance, gr.Tabs(selected="edit")]


def start_fields(models: dict[str, PublishedModel], model: str, labels: str = "") -> list:
    """The priors of a model, its default selected, and the field for the labels of the sample if it has some."""
    return [own_prior(models, model), gr.Textbox(value=labels, visible=bool(models[model].labels))]


def random_shifts() -> list[float]:
    """Random positions of the sliders, distributed like the training images along each component."""
    shifts = [round(min(REACH, max(-REACH, random.gauss(0, 1))), 1) for _ in range(NUM_SLIDERS)]
    return shifts + [0.0] * NUM_LABELS


def build(tabs: gr.Tabs, models: dict[str, PublishedModel], samples: SampleTab) -> None:
    """Adds the tab. A click on one of the `samples` opens it."""
    first = next(iter(models.values()))
    with gr.Tab("Edit your photo", id="edit") as tab:
        gr.Markdown(
            "Each slider moves the image along a principal component: a direction in which the latents of the "
            "training images vary most. The unit is one standard deviation. The latents of a model without an encoder "
            "vary equally in all directions; its components are the directions that change its first layer most."
        )
        with gr.Row(equal_height=False):
            with gr.Column():
                moved = gr.Image(label="Result", alt_text="The moved image", elem_id="moved", **PICTURE)
                with gr.Row():
                    model = gr.Dropdown(model_choices(models), value=first.name, label="Model", min_width=140)
                    seed = gr.Number(0, label="Seed", precision=0, min_width=80)
                    image = gr.Number(1, label="Image", precision=0, minimum=1, maximum=MAX_COUNT, min_width=80)
                with gr.Accordion("Starting image", open=False):
                    temperature = gr.Slider(0, MAX_TEMPERATURE, 1, step=0.05, label="Temperature")
                    prior = gr.Dropdown(prior_choices(first.priors), value="own", label="Prior")
                    guidance = gr.Number(
                        None,
                        label="Guidance of the sample",
                        minimum=0,
                        maximum=checks.MAX_GUIDANCE,
                        step=0.5,
                        info="Empty for the model's own",
                    )
                    labels = gr.Textbox(
                        "",
                        label="Labels of the sample",
                        info="As in age=60, gender=female",
                        visible=bool(first.labels),
                    )
                    picture = gr.Image(
                        label="Your image (replaces the sample)", height=200, elem_id="latent-upload", **UPLOAD
                    )
            with gr.Column():
                with gr.Row():
                    reset = gr.Button("Reset", min_width=80)
                    randomise = gr.Button("Randomise", min_width=80)
                    sweep = gr.Button("Sweep", min_width=80, elem_id="sweep")
                sliders = [
                    gr.Slider(-REACH, REACH, 0, step=0.1, label=f"Component {each}", buttons=["reset"])
                    for each in range(1, NUM_SLIDERS + 1)
                ]
                note = gr.Markdown(visible=False)
                sliders += [
                    gr.Slider(-REACH, REACH, 0, step=0.1, label=f"Label {each}", buttons=["reset"], visible=False)
                    for each in range(1, NUM_LABELS + 1)
                ]
        strips = gr.Gallery(label="Sweeps", elem_id="sweeps", **THUMBNAILS | {"columns": len(SWEEP)})
    start = [model, seed, temperature, prior, picture]
    moving = {"inputs": [*start, *sliders, labels, image, guidance], "outputs": moved}

    def click(drawn: list[Drawn], event: gr.SelectData) -> list:  # Gradio does not see through `partial`
        chosen = drawn[event.index]
        return [*clicked(models, drawn, event), start_fields(models, chosen.model, chosen.labels)[1]]

    picked = samples.pictures.select(click, samples.drawn, [*start, image, guidance, tabs, labels], **INTERNAL_EVENT)
    fitted = model.input(partial(start_fields, models), model, [prior, labels], **INTERNAL_EVENT)
    for event in (tab.select, fitted.then, picked.then):
        labelled = event(inputs=model, outputs=[*sliders, note], **model_event(slider_labels, models))
        labelled.then(**moving, **model_event(latent_pca, models))
    live = {"trigger_mode": "always_last", "show_progress": "hidden"}
    gr.on([slider.input for slider in sliders], **moving, **live, **model_event(latent_pca, models, "latent_pca"))
    gr.on(
        [
            seed.submit,
            image.submit,
            guidance.submit,
            temperature.release,
            prior.input,
            labels.submit,
            picture.upload,
            picture.clear,
        ],
        **moving,
        **model_event(latent_pca, models),
    )
    for button, values in ((reset, lambda: [0] * (NUM_SLIDERS + NUM_LABELS)), (randomise, random_shifts)):
        button.click(values, None, sliders, **INTERNAL_EVENT).then(**moving, **model_event(latent_pca, models))
    sweep.click(
        inputs=[*start, labels, image, guidance], outputs=strips, **model_event(pca_sweep, models, "pca_sweep")
    )
