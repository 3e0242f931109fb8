"""The tab that changes an image along directions of a model's latent space: named ones, labels of the training images,
and principal components."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import torch
import torch.nn.functional as F
from PIL import Image

import checks
from animation import save_loop
from faces import crop_to_face
from hf_vae.evaluation.metrics import mse, structure_change
from hf_vae.models.priors import CODE
from published import PublishedModel
from tabs import (
    INTERNAL_EVENT,
    PICTURE,
    THUMBNAILS,
    UPLOAD,
    api_endpoint,
    model_choices,
    model_event,
    new_folder,
    own_prior,
    prior_choices,
)
from tabs.generate import (
    MAX_COUNT,
    NUM_LABELS,
    Captioned,
    Drawn,
    SampleTab,
    asked_for,
    label_fields,
    next_seed,
)
from widgets import data_url, widget


NUM_COMPONENTS = 10
NUM_DIRECTIONS = 4  # learned from labels; a model may have none
REACH = 3.0
SWEEP = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
STRIP = [-3.0, -1.5, 0.0, 1.5, 3.0]
STRIP_EDGE = 64  # pixels; larger images are scaled down
GIF_FRAMES = 12  # one way
NUM_COMPARED = 16  # samples, for the distance between two
NAMED, LABELS, COMPONENTS = "By name", "By label", "Components"
UNTOUCHED = "Move a slider."
WITHOUT_PHOTO = "Without a photo, the sliders change a sample."
WITH_LABELS = "**Generate a sample with {these}**"
BY_LABEL = "To change your photo by label, move the sliders under **By label**."
LABEL_NOTE = """**Labels.** A linear probe found these directions from the labels of the dataset. The percentage is the
probe's balanced accuracy on {each} held-out images; chance is 50%. {step} The labels are annotators' guesses, and a
slider also moves whatever correlates with its label in the data."""
CODE_STEP = "+1 is the step from the mean code of one side of a label to that of the other side."
COMPONENT_NOTE = """**Components.** A component is a direction in which the latents of the training images vary most.
The unit is one standard deviation. The latents of a model without an encoder vary equally in all directions.
Its components are the directions that change its first layer most."""
NAMED_NOTE = """**Named sliders.** Each changes one thing that can be measured in an image, and all other measured
things clearly less, in three sets of samples. The unit is one standard deviation of the samples along it."""


@dataclass(frozen=True)
class Handle:
    """A slider of the page.

    Args:
        group: The heading that it stands under.
        name: What it changes.
        low: What lies at its left end; empty if unknown.
        high: What lies at its right end.
        shift: One step along the components, `(K,)`; None for a direction learned from a label.
        label: The number of that direction, from 0; None for others.
        note: What stands behind its name.
    """

    group: str
    name: str
    low: str = ""
    high: str = ""
    shift: torch.Tensor | None = None
    label: int | None = None
    note: str = ""


def handles_of(model: PublishedModel) -> list[Handle]:
    """The sliders of a model in the order of the page: those with a name, labels, components."""
    handles = [Handle(NAMED, each.name, each.low, each.high, each.vector) for each in model.sliders]
    for number, each in enumerate(model.directions[:NUM_DIRECTIONS]):
        name, note = f"{each.name[:1].upper()}{each.name[1:]}", f", probe {each.accuracy:.0%}"
        handles.append(Handle(LABELS, name, each.low, each.high, label=number, note=note))
    return handles + _components(model)


def _components(model: PublishedModel) -> list[Handle]:
    steps = torch.eye(_num_components(model))
    return [Handle(COMPONENTS, f"Component {number}", shift=step) for number, step in enumerate(steps, 1)]


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
    rest_temperature: float | None = None,
) -> Image.Image:
    """Moves an image along the first ten principal components of the latent space, in standard deviations of the
    training set, and along the directions learned from labels if the model has any. The image is the upload. If there
    is none, it is a sample: number `image` of this seed, from 1, with `labels` such as "age=60, gender=female"."""
    chosen, start = _start(models, model, seed, temperature, prior, picture, labels, image, guidance, rest_temperature)
    shifts = [component_1, component_2, component_3, component_4, component_5]
    shifts += [component_6, component_7, component_8, component_9, component_10]
    shifts = [checks.number(f"Component {each}", shift, -REACH, REACH) for each, shift in enumerate(shifts, 1)]
    steps = [label_1, label_2, label_3, label_4]
    steps = [checks.number(f"Label {each}", step, -REACH, REACH) for each, step in enumerate(steps, 1)]
    count, num_labels = _num_components(chosen), len(chosen.directions[:NUM_DIRECTIONS])
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
    rest_temperature: float | None = None,
) -> Captioned:
    """Moves an image along each of the first ten principal components, and along each direction learned from labels,
    from -3 to 3 standard deviations, or steps of a label. Returns a row of seven images for each."""
    chosen, start = _start(models, model, seed, temperature, prior, picture, labels, image, guidance, rest_temperature)
    count, directions = _num_components(chosen), chosen.directions[:NUM_DIRECTIONS]
    labelled = [Handle(LABELS, "", label=number) for number in range(len(directions))]
    images = _swept(chosen, start, _components(chosen) + labelled, SWEEP)
    unit = "standard deviations"
    captions = [f"Component {row + 1}: {value:+g} {unit}" for row in range(count) for value in SWEEP]
    unit = "steps" if chosen.pipeline.has_code else unit
    captions += [f"{each.low} to {each.high}: {value:+g} {unit}" for each in directions for value in SWEEP]
    return list(zip(images, captions, strict=True))


def edit(
    models: dict[str, PublishedModel],
    model: str,
    seed: int,
    temperature: float,
    prior: str,
    picture: dict | None,
    sliders: str,
    labels: str = "",
    image: int = 1,
    guidance: float | None = None,
    rest_temperature: float | None = None,
) -> Image.Image:
    """Moves an image along sliders by their names, such as "smile=2, component 3=-1". Names are those on the page, in
    upper or lower case; positions are -3 to 3. The other values are those of `/latent_pca`."""
    chosen, start = _start(models, model, seed, temperature, prior, picture, labels, image, guidance, rest_temperature)
    handles = handles_of(chosen)
    places = {handle.name.casefold(): place for place, handle in enumerate(handles)}
    positions = [0.0] * len(handles)
    for name, text in checks.pairs("The sliders", sliders, "smile=2, component 3=-1"):
        if name.casefold() not in places:
            known = ", ".join(handle.name for handle in handles)
            raise checks.refusal(f"The model {model} has no slider {name!r}; it has {known}.")
        place = places[name.casefold()]
        positions[place] = checks.number(handles[place].name, checks.as_number(text), -REACH, REACH)
    moved = _moved(chosen, start, *_shifts(chosen, handles, torch.tensor([positions])))
    return chosen.pipeline.decode(moved).images[0]


def _swept(
    model: PublishedModel, start: torch.Tensor, handles: list[Handle], values: list[float]
) -> list[Image.Image]:
    """The image of `start` at each of the values of each slider alone."""
    positions = torch.zeros(len(handles), len(values), len(handles))
    for row in range(len(handles)):
        positions[row, :, row] = torch.tensor(values)
    moved = _moved(model, start, *_shifts(model, handles, positions.flatten(0, 1)))
    return model.pipeline.decode(moved).images


def _shifts(
    model: PublishedModel, handles: list[Handle], positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The shifts along components `(B, K)` and the steps of labels `(B, L)` of positions `(B, S)` of sliders."""
    size = max((len(handle.shift) for handle in handles if handle.shift is not None), default=_num_components(model))
    shifts = torch.zeros(len(positions), size)
    steps = torch.zeros(len(positions), len(model.directions[:NUM_DIRECTIONS]))
    for handle, column in zip(handles, positions.T, strict=True):
        if handle.shift is None:
            steps[:, handle.label] = column
        else:
            shifts[:, : len(handle.shift)] += column[:, None] * handle.shift
    return shifts, steps


def _moved(
    model: PublishedModel, start: torch.Tensor, shifts: torch.Tensor, label_steps: torch.Tensor
) -> torch.Tensor:
    """Moves latents along components by `shifts` (B, K) and along labelled directions by `label_steps` (B, L). In a
    model with a code both are shifts of the code, and it is moved once."""
    device = model.pipeline.model.device
    vectors = torch.stack(
        [each.vector for each in model.directions[:NUM_DIRECTIONS]] or [torch.zeros(shifts.shape[1])]
    )
    steps = (label_steps @ vectors[: label_steps.shape[1]]).to(device)  # (B, Z), or (B, code_dim)
    if model.pipeline.has_code:
        size = max(shifts.shape[1], steps.shape[1])
        padded = [F.pad(each, (0, size - each.shape[1])) for each in (shifts.to(device), steps)]
        return model.pipeline.move(start, padded[0] + padded[1], _noise_of(model, start))
    moved = model.pipeline.move(start, shifts)
    return model.pipeline.shift(moved, steps)


def _num_components(model: PublishedModel) -> int:
    return min(NUM_COMPONENTS, model.pipeline.num_components)


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
    rest_temperature: float | None = None,
) -> tuple[PublishedModel, torch.Tensor]:
    chosen = checks.choice("The model", model, models)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    image = checks.whole_number("The number of the image", image, 1, MAX_COUNT)
    temperature = checks.number("The temperature", temperature, 0, checks.MAX_TEMPERATURE)
    prior = checks.prior(chosen, prior)
    if picture is None:
        wanted = checks.labels(chosen, labels, prior)
        scales = (checks.guidance(guidance), checks.rest_temperature(chosen, prior, rest_temperature))
        return chosen, _sampled(chosen, seed, image, temperature, prior, tuple(wanted.items()), *scales)
    if not chosen.has_encoder:
        raise checks.refusal(f"The model {chosen.title} has no encoder; remove the image, or choose a model with one.")
    return chosen, _encoded(chosen, checks.uploaded_file("The image", picture))


@lru_cache(maxsize=64)  # a moving slider would sample the same start again and again
def _sampled(
    model: PublishedModel,
    seed: int,
    image: int,
    temperature: float,
    prior: str,
    labels: tuple[tuple[str, str], ...],
    guidance: float | None,
    rest_temperature: float | None,
) -> torch.Tensor:
    settings = {"labels": dict(labels), "guidance": guidance, "rest_temperature": rest_temperature, "skip": image - 1}
    return model.pipeline.sample(1, seed, temperature, prior, **settings).latents


@lru_cache(maxsize=64)  # Gradio names the folder of an upload after its contents
def _encoded(model: PublishedModel, path: Path) -> torch.Tensor:
    picture = checks.picture("The image", {"path": str(path)})
    return model.pipeline.encode([crop_to_face(picture, model.data_set) or picture])


@lru_cache(maxsize=64)
def _noise_of(model: PublishedModel, start: torch.Tensor) -> list[torch.Tensor] | None:
    """What a move starts from, found once for each of the starts that are cached."""
    return model.pipeline.noise_of(start)


@lru_cache(maxsize=32)
def _between_samples(model: PublishedModel) -> tuple[float, float]:
    """The mean squared error between two samples, and that of their structure."""
    samples = model.pipeline.sample(NUM_COMPARED, 0).tensors
    others = samples.roll(1, 0)
    return mse(samples, others).mean().item(), structure_change(samples, others).mean().item()


def start_edit(models: dict[str, PublishedModel], *settings: Any) -> tuple[dict, dict, str, str, gr.Markdown, Any]:
    """The image that sliders start from, before and after no change, the sliders of the model without their strips,
    what of an upload the model sees, what the sliders mean, a sentence on labels, and whether their fields are shown.
    `settings` are those of `pca_sweep`."""
    chosen, start = _start(models, *settings)
    shown = data_url(chosen.pipeline.decode(start).images[0])
    picture = {"before": shown, "after": shown, "note": UNTOUCHED}
    sentence, note = _crop_sentence(chosen, settings[4]), label_note(chosen, settings[4] is not None)
    fields = gr.Row(visible=bool(chosen.labels) and settings[4] is None)
    return picture, _shown(handles_of(chosen)), sentence, meaning_of(chosen), note, fields


def strips(models: dict[str, PublishedModel], *settings: Any) -> dict:
    """The sliders of the model with the images below each. `settings` are those of `pca_sweep`."""
    chosen, start = _start(models, *settings)
    images = _swept(chosen, start, handles_of(chosen), STRIP)
    for image in images:
        image.thumbnail((STRIP_EDGE, STRIP_EDGE), Image.Resampling.LANCZOS)
    urls = list(map(data_url, images))
    rows = [urls[row : row + len(STRIP)] for row in range(0, len(urls), len(STRIP))]
    return _shown(handles_of(chosen)) | {"strips": rows}


def _shown(handles: list[Handle]) -> dict:
    """What the widget draws."""
    rows = [
        {
            "title": each.name + each.note,
            "low": each.low,
            "high": each.high,
            "group": each.group,
            "isRandom": each.group == COMPONENTS,
        }
        for each in handles
    ]
    return {"handles": rows, "reach": REACH}


def move(models: dict[str, PublishedModel], value: dict | None, *settings: Any) -> dict:
    """The image with the sliders as they are, and how far it is from the start."""
    chosen, start = _start(models, *settings)
    positions = _positions(chosen, value)
    if not any(positions):
        return {"after": data_url(chosen.pipeline.decode(start).images[0]), "note": UNTOUCHED}
    moved = _moved(chosen, start, *_shifts(chosen, handles_of(chosen), torch.tensor([positions])))
    pair = [chosen.pipeline.decode(latents) for latents in (start, moved)]
    before, after = (each.tensors for each in pair)
    pixels, structure = (
        changed.item() / between if between else 0.0
        for changed, between in zip(
            (mse(before, after), structure_change(before, after)), _between_samples(chosen), strict=True
        )
    )
    note = f"Changed: {pixels:.0%} in pixels, {structure:.0%} in structure. 100% is the distance between two samples."
    return {"after": data_url(pair[1].images[0]), "note": note}


def animate(models: dict[str, PublishedModel], value: dict | None, *settings: Any) -> gr.Image:
    """A GIF from the start to the image with the sliders as they are, and back."""
    chosen, start = _start(models, *settings)
    target = torch.tensor([_positions(chosen, value)])
    if not target.any():
        raise checks.refusal("Nothing has changed yet; move a slider first.")
    shares = torch.linspace(0, 1, GIF_FRAMES)[:, None]
    frames = chosen.pipeline.decode(_moved(chosen, start, *_shifts(chosen, handles_of(chosen), shares * target)))
    path = new_folder() / "edit.gif"
    save_loop(frames.images, path)
    return gr.Image(str(path), visible=True)


def _positions(model: PublishedModel, value: Any) -> list[float]:
    """The positions of the sliders, in the order of `handles_of`."""
    handles = handles_of(model)
    positions = value.get("positions") if isinstance(value, dict) else None
    if positions is None:
        return [0.0] * len(handles)
    if not isinstance(positions, list) or len(positions) != len(handles):
        raise checks.refusal(f"The positions are not those of {len(handles)} sliders; choose the model again.")
    return [
        checks.number(handle.name, position, -REACH, REACH)
        for handle, position in zip(handles, positions, strict=True)
    ]


def meaning_of(model: PublishedModel) -> str:
    """What the sliders of a model mean, as Markdown."""
    notes = [NAMED_NOTE] if model.sliders else []
    if directions := model.directions[:NUM_DIRECTIONS]:
        step = CODE_STEP if model.pipeline.has_code else "The unit is one standard deviation."
        notes.append(LABEL_NOTE.format(each=directions[0].num_heldout, step=step))
    return "\n\n".join([*notes, COMPONENT_NOTE])


def _crop_sentence(model: PublishedModel, picture: dict | None) -> str:
    if picture is None:
        return WITHOUT_PHOTO
    if crop_to_face(checks.picture("The image", picture), model.data_set) is not None:
        return "The model sees the face, cropped as its training images were."
    return "The model sees the largest centered square."


def label_note(model: PublishedModel, has_photo: bool) -> gr.Markdown:
    """What visitors can do with the labels of a model: ask for samples that have them, or move a photo along them."""
    if has_photo:
        return gr.Markdown(BY_LABEL, visible=bool(model.directions))
    these = "this label" if len(model.labels) == 1 else "these labels"
    return gr.Markdown(WITH_LABELS.format(these=these), visible=bool(model.labels))


def another_seed(models: dict[str, PublishedModel], model: str, *fields: Any) -> tuple[str, int, int]:
    """The text of the labels that the fields of a model ask for, and a new sample: a random seed, its first image."""
    return asked_for(models, model, *fields), next_seed(0, True), 1


def clicked(models: dict[str, PublishedModel], drawn: list[Drawn], event: gr.SelectData) -> list:
    """Starts from the sample that was clicked, and opens this tab."""
    model, seed, image, temperature, prior, _, guidance, rest = drawn[event.index]
    priors = gr.Dropdown(prior_choices(models[model].priors), value=prior)
    return [model, seed, temperature, priors, None, image, guidance, rest, gr.Tabs(selected="edit")]


def start_fields(models: dict[str, PublishedModel], model: str, labels: str = "") -> list:
    """The priors of a model, its default selected, and the fields for the labels of the sample if it has some."""
    wanted = checks.labels(models[model], labels, CODE) if labels else {}
    return [own_prior(models, model), *label_fields(models, model, wanted)]


class EditTab(NamedTuple):
    """What other tabs need of this one.

    Args:
        model: The field for the model.
        open_anew: Takes an event that chose another model, and opens it after it.
    """

    model: gr.Dropdown
    open_anew: Callable[[Any], None]


def build(demo: gr.Blocks, tabs: gr.Tabs, models: dict[str, PublishedModel], samples: SampleTab) -> EditTab:
    """Adds the tab. A click on one of the `samples` opens it."""
    encoders = [model for model in models.values() if model.has_encoder]
    # the one whose sliders show most
    first = max(encoders or models.values(), key=lambda model: len(model.sliders) * model.config["image_size"])
    with gr.Tab("Edit your photo", id="edit"):
        gr.Markdown("Upload a photo, then move the sliders.")
        with gr.Row(equal_height=False, elem_classes="edit-start"):
            picture = gr.Image(label="Your photo", height=200, elem_id="edit-upload", min_width=220, **UPLOAD)
            with gr.Column(min_width=220):
                model = gr.Dropdown(model_choices(models), value=first.name, label="Model")
                sentence = gr.Markdown(WITHOUT_PHOTO, elem_id="edit-crop")
                with gr.Accordion("Sample to start from", open=False):
                    with gr.Row():
                        seed = gr.Number(0, label="Seed", precision=0, min_width=80)
                        image = gr.Number(1, label="Image", precision=0, minimum=1, maximum=MAX_COUNT, min_width=80)
                    temperature = gr.Slider(0, checks.MAX_TEMPERATURE, 1, step=0.05, label="Temperature")
                    prior = gr.Dropdown(prior_choices(first.priors), value="own", label="Prior")
                    # hidden, because an empty field with limits shows 0
                    guidance = gr.Number(None, label="Guidance", visible=False)
                    rest = gr.Number(None, label="Rest temperature", visible=False)
        with gr.Row(equal_height=False, elem_classes="edit-work"):
            with gr.Column(elem_classes="edit-result", min_width=260):
                result = widget("before_after", elem_id="edited")
                make_gif = gr.Button("Make it a GIF", size="sm", elem_id="edit-gif")
                gif = gr.Image(label="GIF", alt_text="The change, forwards and backwards", visible=False, **PICTURE)
            with gr.Column(scale=2, min_width=280):
                note = label_note(first, has_photo=False)
                with gr.Row(visible=bool(first.labels), equal_height=False, elem_id="edit-labels") as asking_fields:
                    labels, *fields = label_fields(models, first.name)
                    labels = gr.Textbox(labels, label="Labels", visible=False)
                    draw_anew = gr.Button("Generate a sample", elem_id="edit-draw", min_width=120)
                sliders = widget("sliders", elem_id="sliders")
        with gr.Accordion("What the sliders mean", open=False):
            meaning = gr.Markdown(elem_id="edit-meaning")
        start = [model, seed, temperature, prior, picture]
        settings = [*start, labels, image, guidance, rest]
        _build_endpoints(models, settings)
    shown_first = [result, sliders, sentence, meaning, note, asking_fields]
    opening = {"inputs": settings, "outputs": shown_first, "show_progress": "minimal"}
    sweeping = {"inputs": settings, "outputs": sliders, "show_progress": "hidden"}
    moving = {"inputs": [sliders, *settings], "outputs": result, "show_progress": "hidden"}

    def open_after(event: Any) -> None:
        """After an event, shows the image and the sliders, and then the strips."""
        shown = event(**opening, **model_event(start_edit, models))
        shown.then(**sweeping, **model_event(strips, models))

    def click(drawn: list[Drawn], event: gr.SelectData) -> list:  # Gradio does not see through `partial`
        chosen = drawn[event.index]
        return [*clicked(models, drawn, event), *start_fields(models, chosen.model, chosen.labels)[1:]]

    picked = samples.pictures.select(
        click, samples.drawn, [*start, image, guidance, rest, tabs, labels, *fields], **INTERNAL_EVENT
    )
    open_after(picked.then)

    def open_anew(event: Any) -> None:
        """After an event that chose another model, starts from its sample, or from the photo."""
        fitted = event(partial(start_fields, models), model, [prior, labels, *fields], **INTERNAL_EVENT)
        open_after(fitted.then)

    open_anew(samples.shown.then)  # sends the fields too: Gradio shows 0 in one for a number until it gets a value
    open_anew(model.input)
    asking = {"fn": partial(asked_for, models), "inputs": [model, *fields], "outputs": labels, **INTERNAL_EVENT}
    words, numbers = fields[:NUM_LABELS], fields[NUM_LABELS:]
    asked = gr.on([*(word.input for word in words), *(number.submit for number in numbers)], **asking)
    drawn = draw_anew.click(partial(another_seed, models), [model, *fields], [labels, seed, image], **INTERNAL_EVENT)
    changed = [picture.upload, picture.clear, seed.submit, image.submit, temperature.release, prior.input]
    for event in (asked.then, drawn.then, partial(gr.on, changed)):
        open_after(event)
    sliders.input(**moving, trigger_mode="always_last", **model_event(move, models))
    make_gif.click(inputs=[sliders, *settings], outputs=gif, **model_event(animate, models))
    return EditTab(model, open_anew)


def _build_endpoints(models: dict[str, PublishedModel], settings: list) -> None:
    """The endpoints for programs."""
    model, seed, temperature, prior, picture, *drawn = settings
    start = [model, seed, temperature, prior, picture]
    names = [f"Component {each}" for each in range(1, NUM_COMPONENTS + 1)]
    names += [f"Label {each}" for each in range(1, NUM_DIRECTIONS + 1)]
    shifts = [gr.Slider(-REACH, REACH, 0, step=0.1, label=name, visible=False) for name in names]
    sliders = gr.Textbox("", label="Sliders", visible=False)
    moved = gr.Image(label="Result", format="png", visible=False)
    swept = gr.Gallery(label="Sweeps", visible=False, **THUMBNAILS | {"columns": len(SWEEP)})
    api_endpoint(latent_pca, models, "latent_pca", [*start, *shifts, *drawn], moved)
    api_endpoint(edit, models, "edit", [*start, sliders, *drawn], moved)
    api_endpoint(pca_sweep, models, "pca_sweep", [*start, *drawn], swept)
