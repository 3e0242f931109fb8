"""The tab that generates new images."""

import csv
import io
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gradio as gr
from gradio.events import Dependency
from PIL import Image

import checks
from hf_vae.latents.labelled_codes import NumberLabel
from hf_vae.models.priors import CODE
from published import PublishedModel
from tabs import (
    INTERNAL_EVENT,
    THUMBNAILS,
    api_endpoint,
    model_choices,
    model_event,
    own_prior,
    prior_choices,
    shown_title,
)


MAX_COUNT, START_COUNT = 64, 16
ROW_TEMPERATURES = [0.25 * step for step in range(1, 9)]
ROW_COLUMNS = 8
ANY = ("any", "")
NUM_LINKED = 10  # values that a link restores, beside the labels
NUM_LABELS = 4  # fields for the labels that samples can be asked for by; a model may have none

LINK_JS = """(model, count, seed, temperature, prior, labels, guidance, rest_temperature) =>
    location.origin + location.pathname + "?" + new URLSearchParams({model, count, seed, temperature, prior,
        ...(labels ? {labels} : {}), ...(guidance === null ? {} : {guidance}),
        ...(rest_temperature === null ? {} : {rest_temperature})})"""


class Drawn(NamedTuple):
    """The settings that reproduce one sample."""

    model: str
    seed: int
    image: int  # of those of the seed, from 1
    temperature: float
    prior: str
    labels: str = ""
    guidance: float | None = None  # the model's own
    rest_temperature: float | None = None  # the model's own

    @property
    def caption(self) -> str:
        """How a program gets it again."""
        return f"{self.model}, {self.settings}"

    @property
    def settings(self) -> str:
        """All but the model, in words."""
        settings = f"seed {self.seed}, image {self.image}, temperature {self.temperature:g}"
        settings += "" if self.guidance is None else f", guidance {self.guidance:g}"
        settings += "" if self.rest_temperature is None else f", rest temperature {self.rest_temperature:g}"
        return f"{settings}, {self.labels}" if self.labels else settings


Captioned = list[tuple[Image.Image, str]]


def draw(
    models: dict[str, PublishedModel],
    model: str,
    count: int,
    seed: int,
    temperature: float,
    prior: str,
    labels: str = "",
    guidance: float | None = None,
    rest_temperature: float | None = None,
) -> tuple[Captioned, list[Drawn]]:
    """Generates `count` images with a model, each with a caption: the first images of the seed, which
    `ImagePipeline.sample` gives too. `labels` such as "age=60, gender=female" asks for images of that kind, if the
    model has such labels. `guidance` is the strength of a flow's network: higher is more typical. `rest_temperature`
    is the scale of the noise of what a code does not say: lower is softer. Each is the model's own if None."""
    chosen = checks.choice("The model", model, models)
    count = checks.whole_number("The number of images", count, 1, MAX_COUNT)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    temperature = checks.number("The temperature", temperature, 0, checks.MAX_TEMPERATURE)
    prior = checks.prior(chosen, prior)
    wanted = checks.labels(chosen, labels, prior)
    asked = {"guidance": checks.guidance(guidance)}
    asked["rest_temperature"] = checks.rest_temperature(chosen, prior, rest_temperature)
    pictures = chosen.pipeline.sample(count, seed, temperature, prior, labels=wanted, **asked).images
    first = Drawn(model, seed, 1, temperature, prior, _text(wanted), **asked)
    drawn = [first._replace(image=number) for number in range(1, count + 1)]
    return [(picture, each.caption) for picture, each in zip(pictures, drawn, strict=True)], drawn


def draw_rows(
    models: dict[str, PublishedModel], model: str, seed: int, prior: str, labels: str = ""
) -> tuple[Captioned, list[Drawn]]:
    """Generates the same eight images at eight temperatures from 0.25 to 2.0, one row for each temperature. `labels`
    are as in `/sample`."""
    rows = [draw(models, model, ROW_COLUMNS, seed, temperature, prior, labels) for temperature in ROW_TEMPERATURES]
    return sum((pictures for pictures, _ in rows), []), sum((drawn for _, drawn in rows), [])


def show(
    generated: Callable, models: dict[str, PublishedModel], model: str, *settings: Any
) -> tuple[Captioned, list[Drawn]]:
    """What `draw` or `draw_rows` gives, with the model's title in the captions, which visitors read."""
    pictures, drawn = generated(models, model, *settings)
    title = shown_title(models, model)
    return [(picture, f"{title}: {each.settings}") for (picture, _), each in zip(pictures, drawn, strict=True)], drawn


def next_seed(seed: int, is_new: bool) -> int:
    """The seed of the next samples: random if `is_new`, else unchanged."""
    return secrets.randbelow(checks.MAX_SEED + 1) if is_new else seed


def linked_view(models: dict[str, PublishedModel], request: gr.Request | None) -> list:
    """The settings in a link to the page: model, number of images, seed, temperature, prior, guidance and rest
    temperature (each for `draw`, and on the slider), and whether the next seed is new. A link with none of them
    changes nothing."""
    query = dict(request.query_params) if request else {}
    if not query.keys() & {"model", "count", "seed", "temperature", "prior", "guidance", "rest_temperature"}:
        return [gr.skip()] * NUM_LINKED
    model = query.get("model", next(iter(models)))
    chosen = checks.choice("The model", model, models)
    count = checks.whole_number("The number of images", _read(query, "count", 16), 1, MAX_COUNT)
    seed = checks.whole_number("The seed", _read(query, "seed", 0), 0, checks.MAX_SEED)
    temperature = checks.number("The temperature", _read(query, "temperature", 1.0), 0, checks.MAX_TEMPERATURE)
    prior = query.get("prior", "own")
    checks.prior(chosen, prior)
    guidance, rest = (_read(query, name, 0.0) if name in query else None for name in ("guidance", "rest_temperature"))
    guidance, rest = checks.guidance(guidance), checks.rest_temperature(chosen, CODE, rest)
    priors = gr.Dropdown(prior_choices(chosen.priors), value=prior)
    strong, detailed = scales(models, model, guidance, rest)
    return [model, count, seed, temperature, priors, guidance, strong, rest, detailed, False]


def linked_labels(models: dict[str, PublishedModel], request: gr.Request | None) -> list:
    """The labels in a link to the page, as text and in the fields. Without a model in the link, those of the
    first one are sent empty, since Gradio shows 0 in a field for a number until it gets a value."""
    query = dict(request.query_params) if request else {}
    if query.get("model") not in models:
        return label_fields(models, next(iter(models)))
    chosen = models[query["model"]]
    wanted = checks.labels(chosen, query.get("labels", ""), CODE)
    return label_fields(models, chosen.name, wanted)


def label_fields(models: dict[str, PublishedModel], model: str, wanted: dict[str, str] | None = None) -> list:
    """The labels that are asked for, as text, and the fields of a model for them: first those for words, then those
    for numbers. Of the two fields of a label one is visible."""
    wanted = wanted or {}
    words, numbers = [], []
    for label in [*models[model].labels, *[None] * NUM_LABELS][:NUM_LABELS]:
        is_number, value = isinstance(label, NumberLabel), wanted.get(label.name, "") if label else ""
        choices = [ANY] if label is None or is_number else [ANY, *label.words]
        title = f"{label.name[:1].upper()}{label.name[1:]}" if label else "Label"
        words.append(
            gr.Dropdown(choices, value=value if value in choices else "", label=title, visible=len(choices) > 1)
        )
        info = f"Any, or {label.allowed}" if is_number else None
        number = float(value) if is_number and value else None
        numbers.append(gr.Number(number, label=title, info=info, visible=is_number))
    return [_text(wanted), *words, *numbers]


def asked_for(models: dict[str, PublishedModel], model: str, *fields: Any) -> str:
    """The text of the labels that the fields of a model ask for."""
    wanted = {}
    for label, word, number in zip(models[model].labels, fields[:NUM_LABELS], fields[NUM_LABELS:], strict=False):
        if isinstance(label, NumberLabel) and number is not None:
            wanted[label.name] = f"{number:.12g}"
        elif not isinstance(label, NumberLabel) and word:
            wanted[label.name] = word
    return _text(wanted)


def _text(labels: dict[str, str]) -> str:
    """Labels as `checks.labels` reads them."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(f"{name}={value}" for name, value in labels.items())
    return line.getvalue()


def _read(query: dict[str, str], name: str, default: float) -> float | str:
    return checks.as_number(query.get(name, str(default)))


def own_fields(models: dict[str, PublishedModel], model: str) -> list:
    """What `own_prior` offers for a newly chosen model, its guidance and rest temperature, and its labels, none of
    which is asked for."""
    strong, detailed = scales(models, model)
    return [own_prior(models, model), None, strong, None, detailed, *label_fields(models, model)]


def scales(
    models: dict[str, PublishedModel], model: str, guidance: float | None = None, rest_temperature: float | None = None
) -> list[gr.Slider]:
    """The sliders for the guidance and the rest temperature of a model, at the model's own where none is asked for;
    hidden if it has none."""
    chosen = checks.choice("The model", model, models)
    pairs = ((chosen.guidance, guidance), (chosen.rest_temperature, rest_temperature))
    return [gr.Slider(value=(own if asked is None else asked) or 0, visible=own is not None) for own, asked in pairs]


def asked_scale(models: dict[str, PublishedModel], name: str, model: str, position: float) -> float | None:
    """What `draw` takes for a position on the slider of `name`, "guidance" or "rest_temperature": None for the
    model's own."""
    own = getattr(models[model], name)
    return None if own is None or position == own else position


class SampleTab(NamedTuple):
    """The samples on the tab, for other tabs to start from.

    Args:
        model: The field for the model.
        pictures: The samples.
        drawn: How each was drawn, a list of `Drawn`.
        shown: The event of the first images of the page.
        draw_anew: Takes an event that chose another model, and shows its samples after it.
    """

    model: gr.Dropdown
    pictures: gr.Gallery
    drawn: gr.State
    shown: Dependency
    draw_anew: Callable[[Any], None]


def build(demo: gr.Blocks, models: dict[str, PublishedModel]) -> SampleTab:
    """Adds the tab to `demo`. The first images are generated when the page loads."""
    first = next(iter(models.values()))
    with gr.Tab("Generate", id="generate"):
        with gr.Row(equal_height=True, elem_classes="generate-start"):
            model = gr.Dropdown(
                model_choices(models), value=first.name, show_label=False, container=False, label="Model"
            )
            another = gr.Button(_button_text(START_COUNT), variant="primary", size="lg", elem_id="another")
        pictures = gr.Gallery(label="Samples", show_label=False, elem_id="samples", allow_preview=False, **THUMBNAILS)
        gr.Markdown("The model made these images from noise. Click one to edit it.", elem_id="samples-note")
        with gr.Row():
            temperature = gr.Slider(
                0,
                checks.MAX_TEMPERATURE,
                1,
                step=0.05,
                label="Temperature",
                info="Lower is more typical, higher is more varied",
            )
            strong = gr.Slider(
                0,
                checks.MAX_GUIDANCE,
                first.guidance or 0,
                step=0.1,
                label="Guidance",
                info="Higher is more typical and has more contrast",
                visible=first.guidance is not None,
                elem_id="guidance",
            )
            detailed = gr.Slider(
                0,
                checks.MAX_TEMPERATURE,
                first.rest_temperature or 0,
                step=0.05,
                label="Detail",
                info="Lower is softer, and more images are whole",
                visible=first.rest_temperature is not None,
                elem_id="detail",
            )
            # hidden, because an empty field with limits shows 0
            guidance = gr.Number(None, label="Guidance", visible=False)
            rest = gr.Number(None, label="Rest temperature", visible=False)
        with gr.Row():
            labels, *fields = label_fields(models, first.name)
            labels = gr.Textbox(labels, label="Labels", visible=False)
        with gr.Accordion("More settings", open=False):
            with gr.Row():
                count = gr.Slider(1, MAX_COUNT, START_COUNT, step=1, label="Number of images")
                prior = gr.Dropdown(
                    prior_choices(first.priors),
                    value="own",
                    label="Prior",
                    info="Distribution that latents are sampled from",
                )
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, info="The same seed gives the same images")
                is_new = gr.Checkbox(True, label="New seed each time")
            with gr.Row():
                rows = gr.Button("Compare temperatures from 0.25 to 2.0", elem_id="rows")
                link = gr.Textbox(label="Link to these images", interactive=False, buttons=["copy"], elem_id="link")
        drawn = gr.State([])
        settings = [model, count, seed, temperature, prior, labels, guidance, rest]
        row_settings = [model, seed, prior, labels]
        _build_endpoints(models, settings, row_settings)
    drawing = {"inputs": settings, "outputs": [pictures, drawn], **model_event(partial(show, draw), models)}
    linking = {"fn": None, "inputs": settings, "outputs": link, "js": LINK_JS, "api_visibility": "private"}

    def restore(request: gr.Request) -> list:  # Gradio does not find the request argument of a `partial`
        try:
            return [*linked_view(models, request), *linked_labels(models, request)]
        except gr.Error as reason:  # the visitor still gets a page
            gr.Warning(f"This link cannot be followed. {reason.message}")
            return [gr.skip()] * NUM_LINKED + label_fields(models, first.name)

    restored = [model, count, seed, temperature, prior, guidance, strong, rest, detailed, is_new, labels, *fields]
    # queued: a warning of an event that is not queued is not shown
    linked = demo.load(restore, None, restored, **INTERNAL_EVENT | {"queue": True})
    seedings = [event(next_seed, [seed, is_new], seed, **INTERNAL_EVENT) for event in (another.click, linked.then)]
    seedings[0].then(**drawing).then(**linking)
    shown = seedings[1].then(**drawing)
    shown.then(**linking)

    def draw_anew(event: Any) -> None:
        """After an event that chose another model, shows its samples."""
        fields_of_own = [prior, guidance, strong, rest, detailed, labels, *fields]
        fitting = event(partial(own_fields, models), model, fields_of_own, **INTERNAL_EVENT)
        fitting.then(**drawing).then(**linking)

    draw_anew(model.input)
    for name, slider, scale in (("guidance", strong, guidance), ("rest_temperature", detailed, rest)):
        asked = slider.release(partial(asked_scale, models, name), [model, slider], scale, **INTERNAL_EVENT)
        asked.then(**drawing).then(**linking)
    changed = [count.release, temperature.release, seed.submit, prior.input]
    gr.on(changed, **drawing).then(**linking)
    count.change(_button_text, count, another, **INTERNAL_EVENT)
    asking = {"fn": partial(asked_for, models), "inputs": [model, *fields], "outputs": labels, **INTERNAL_EVENT}
    words, numbers = fields[:NUM_LABELS], fields[NUM_LABELS:]
    asked = gr.on([*(word.input for word in words), *(number.submit for number in numbers)], **asking)
    asked.then(**drawing).then(**linking)
    gr.on([number.input for number in numbers], **asking)  # for the next images, while the number is typed
    rows.click(inputs=row_settings, outputs=[pictures, drawn], **model_event(partial(show, draw_rows), models))
    seed.input(lambda: False, outputs=is_new, **INTERNAL_EVENT)  # keep a seed that was typed
    return SampleTab(model, pictures, drawn, shown, draw_anew)


def _build_endpoints(models: dict[str, PublishedModel], settings: list, row_settings: list) -> None:
    """The endpoints for programs, whose captions have names of models."""
    pictures, drawn = gr.Gallery(label="Samples", visible=False, **THUMBNAILS), gr.State([])
    api_endpoint(draw, models, "sample", settings, [pictures, drawn])
    api_endpoint(draw_rows, models, "sample_rows", row_settings, [pictures, drawn])


def _button_text(count: int) -> str:
    return f"Generate {count}"
