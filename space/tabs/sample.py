"""The tab that draws pictures out of nothing."""

import secrets
from functools import partial

import gradio as gr
from PIL import Image

import checks
from published import PublishedModel
from tabs import INTERNAL_EVENT, MODEL_EVENT, THUMBNAILS


MAX_COUNT = 64
MAX_TEMPERATURE = 2.0


def draw(
    models: dict[str, PublishedModel], model: str, count: int, seed: int, temperature: float
) -> list[tuple[Image.Image, str]]:
    """Draws `count` pictures from a model, each with a caption; the same seed gives the same ones."""
    pipeline = checks.choice("The model", model, models).pipeline
    count = checks.whole_number("The number of pictures", count, 1, MAX_COUNT)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    temperature = checks.number("The temperature", temperature, 0, MAX_TEMPERATURE)
    pictures = pipeline.sample(count, seed, temperature).images
    return [(picture, f"{model}, seed {seed}, {number} of {count}") for number, picture in enumerate(pictures, 1)]


def next_seed(seed: int, is_new: bool) -> int:
    """The seed of the next draw: another one if a new one is wanted."""
    return secrets.randbelow(checks.MAX_SEED + 1) if is_new else seed


def build(demo: gr.Blocks, models: dict[str, PublishedModel]) -> None:
    """Adds the tab to `demo`; the first pictures are drawn when the page loads."""
    with gr.Tab("Sample", id="sample"):
        gr.Markdown("None of these pictures exists: each is decoded from a random point of the model's latent space.")
        another = gr.Button("Another one", variant="primary", size="lg", elem_id="another")
        pictures = gr.Gallery(label="Samples", elem_id="samples", **THUMBNAILS)
        with gr.Row():
            model = gr.Dropdown(list(models), label="Model")
            count = gr.Slider(1, MAX_COUNT, 16, step=1, label="Number of pictures")
            temperature = gr.Slider(
                0, MAX_TEMPERATURE, 1, step=0.05, label="Temperature", info="Lower is more typical, higher more varied"
            )
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0, info="The same seed gives the same pictures")
            is_new = gr.Checkbox(True, label="New seed for each draw")

    drawing = {
        "fn": partial(draw, models),
        "inputs": [model, count, seed, temperature],
        "outputs": pictures,
        "api_description": draw.__doc__,
        **MODEL_EVENT,
    }
    seeding = gr.on([another.click, demo.load], next_seed, [seed, is_new], seed, **INTERNAL_EVENT)
    seeding.then(**drawing, api_name="sample")
    gr.on([model.input, count.release, temperature.release, seed.submit], **drawing, api_visibility="private")
    seed.input(lambda: False, outputs=is_new, **INTERNAL_EVENT)  # who types a seed wants that one
