"""The tab that generates new images."""

import secrets
from functools import partial
from typing import NamedTuple

import gradio as gr
from PIL import Image

import checks
from published import PublishedModel
from tabs import INTERNAL_EVENT, THUMBNAILS, model_event, own_prior, prior_choices


MAX_COUNT = 64
MAX_TEMPERATURE = 2.0
ROW_TEMPERATURES = [0.25 * step for step in range(1, 9)]
ROW_COLUMNS = 8

LINK_JS = """(model, count, seed, temperature, prior) =>
    location.origin + location.pathname + "?" + new URLSearchParams({model, count, seed, temperature, prior})"""


class Drawn(NamedTuple):
    """The settings that reproduce one sample."""

    model: str
    seed: int
    temperature: float
    prior: str

    @property
    def caption(self) -> str:
        return f"{self.model}, seed {self.seed}, temperature {self.temperature:g}"


Captioned = list[tuple[Image.Image, str]]


def draw(
    models: dict[str, PublishedModel], model: str, count: int, seed: int, temperature: float, prior: str
) -> tuple[Captioned, list[Drawn]]:
    """Generates `count` images with a model, each with a caption. Each image has its own seed, counting up from
    `seed`, that reproduces it."""
    chosen = checks.choice("The model", model, models)
    count = checks.whole_number("The number of images", count, 1, MAX_COUNT)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    temperature = checks.number("The temperature", temperature, 0, MAX_TEMPERATURE)
    prior = checks.prior(chosen, prior)
    pictures = chosen.pipeline.sample(count, seed, temperature, prior).images
    drawn = [Drawn(model, seed + number, temperature, prior) for number in range(count)]
    return [(picture, each.caption) for picture, each in zip(pictures, drawn, strict=True)], drawn


def draw_rows(models: dict[str, PublishedModel], model: str, seed: int, prior: str) -> tuple[Captioned, list[Drawn]]:
    """Generates the same eight images at eight temperatures from 0.25 to 2.0, one row for each temperature."""
    rows = [draw(models, model, ROW_COLUMNS, seed, temperature, prior) for temperature in ROW_TEMPERATURES]
    return sum((pictures for pictures, _ in rows), []), sum((drawn for _, drawn in rows), [])


def next_seed(seed: int, is_new: bool) -> int:
    """The seed of the next samples: random if `is_new`, else unchanged."""
    return secrets.randbelow(checks.MAX_SEED + 1) if is_new else seed


def linked_view(models: dict[str, PublishedModel], request: gr.Request | None) -> list:
    """The settings in a link to the page: model, number of images, seed, temperature, prior, and whether the next seed
    is new. A link with none of them changes nothing."""
    query = dict(request.query_params) if request else {}
    if not query.keys() & {"model", "count", "seed", "temperature", "prior"}:
        return [gr.skip()] * 6
    model = query.get("model", next(iter(models)))
    chosen = checks.choice("The model", model, models)
    count = checks.whole_number("The number of images", _read(query, "count", 16), 1, MAX_COUNT)
    seed = checks.whole_number("The seed", _read(query, "seed", 0), 0, checks.MAX_SEED)
    temperature = checks.number("The temperature", _read(query, "temperature", 1.0), 0, MAX_TEMPERATURE)
    prior = query.get("prior", "own")
    checks.prior(chosen, prior)
    return [model, count, seed, temperature, gr.Dropdown(prior_choices(chosen.priors), value=prior), False]


def _read(query: dict[str, str], name: str, default: float) -> float | str:
    text = query.get(name, str(default))
    try:
        return float(text)
    except ValueError:
        return text  # refused later, by name


class SampleTab(NamedTuple):
    """The samples on the tab, for other tabs to start from."""

    pictures: gr.Gallery
    drawn: gr.State


def build(demo: gr.Blocks, models: dict[str, PublishedModel]) -> SampleTab:
    """Adds the tab to `demo`. The first images are generated when the page loads."""
    first = next(iter(models.values()))
    with gr.Tab("Sample", id="sample"):
        gr.Markdown(
            "Each image is decoded from a random point in the model's latent space. Click an image to change it with "
            "sliders."
        )
        another = gr.Button("Generate", variant="primary", size="lg", elem_id="another")
        pictures = gr.Gallery(label="Samples", elem_id="samples", allow_preview=False, **THUMBNAILS)
        with gr.Row():
            model = gr.Dropdown(list(models), label="Model")
            count = gr.Slider(1, MAX_COUNT, 16, step=1, label="Number of images")
            temperature = gr.Slider(
                0,
                MAX_TEMPERATURE,
                1,
                step=0.05,
                label="Temperature",
                info="Lower is more typical, higher is more varied",
            )
        with gr.Row():
            prior = gr.Dropdown(
                prior_choices(first.priors),
                value="own",
                label="Prior",
                info="Distribution that latents are sampled from",
            )
            seed = gr.Number(0, label="Seed", precision=0, info="The same seed gives the same images")
            is_new = gr.Checkbox(True, label="New seed each time")
        with gr.Row():
            rows = gr.Button("Compare temperatures from 0.25 to 2.0", elem_id="rows")
            link = gr.Textbox(label="Link to these images", interactive=False, buttons=["copy"], elem_id="link")
        drawn = gr.State([])
    settings = [model, count, seed, temperature, prior]
    drawing = {"inputs": settings, "outputs": [pictures, drawn]}
    linking = {"fn": None, "inputs": settings, "outputs": link, "js": LINK_JS, "api_visibility": "private"}

    def restore(request: gr.Request) -> list:  # Gradio does not find the request argument of a `partial`
        return linked_view(models, request)

    linked = demo.load(restore, None, [*settings, is_new], **INTERNAL_EVENT)
    seedings = [event(next_seed, [seed, is_new], seed, **INTERNAL_EVENT) for event in (another.click, linked.then)]
    seedings[0].then(**drawing, **model_event(draw, models, "sample")).then(**linking)
    seedings[1].then(**drawing, **model_event(draw, models)).then(**linking)
    fitting = model.input(partial(own_prior, models), model, prior, **INTERNAL_EVENT)
    fitting.then(**drawing, **model_event(draw, models)).then(**linking)
    gr.on([count.release, temperature.release, seed.submit, prior.input], **drawing, **model_event(draw, models)).then(
        **linking
    )
    rows.click(inputs=[model, seed, prior], outputs=[pictures, drawn], **model_event(draw_rows, models, "sample_rows"))
    seed.input(lambda: False, outputs=is_new, **INTERNAL_EVENT)  # keep a seed that was typed
    return SampleTab(pictures, drawn)
