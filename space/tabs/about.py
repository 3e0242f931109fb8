"""The tab about the model families, their limits, and what happens to uploads."""

import html
from functools import partial

import gradio as gr

import checks
from hf_vae.families import FAMILIES
from published import PublishedModel
from tabs import INTERNAL_EVENT, model_choices


PRIVACY = """**Limits.** The models are small, and each generates one kind of image. They may reconstruct other kinds
too, because latents on a grid and residual latents preserve detail of any image. A good reconstruction therefore does
not show that a model has learned such images. For a model without an encoder, a search finds the nearest image that it
can generate.

The models reproduce the biases of their training images, and their measurements say nothing about people. **Do not use
them to identify people, or to depict a real person.**

**Privacy.** Uploads are processed in memory on this server and used for nothing else. The files that the page needs
are cached and deleted within the hour. Nothing is logged or sent elsewhere.

**API.** Programs can call everything on this page: see "Use via API" at the bottom of the page, or the Space's
README.
"""


def describe_families() -> str:
    """A Markdown list of all families, one paragraph each."""
    return "\n".join(f"- **{family.title}.** {' '.join(family.description.split())}" for family in FAMILIES.values())


def card_of(models: dict[str, PublishedModel], model: str) -> str:
    """The card of a model: its training data and their licence, its training, measurements and limits."""
    chosen = checks.choice("The model", model, models)
    return chosen.card or f"{model} has no model card."


def build(models: dict[str, PublishedModel], broken: dict[str, str]) -> None:
    """Adds the tab. `broken` has the reason for each model that could not be loaded."""
    with gr.Tab("About", id="about"):
        gr.Markdown("## Model families\n\n" + describe_families())
        if broken:
            gr.Markdown("## Models that could not be loaded")
            # HTML, because Markdown would interpret underscores in file names
            lines = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in broken.values())
            gr.HTML(f"<ul>{lines}</ul>", elem_id="broken")
        gr.Markdown("## Limits, privacy, API\n\n" + PRIVACY)
        with gr.Accordion("Model cards", open=False):
            model = gr.Dropdown(model_choices(models), label="Model")
            card = gr.Markdown(card_of(models, next(iter(models))), elem_id="card", header_links=False)
    model.input(partial(card_of, models), model, card, **INTERNAL_EVENT)
