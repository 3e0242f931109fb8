"""The tab that says what the models are, what they know and what happens to uploads."""

from functools import partial

import gradio as gr

import checks
from published import PublishedModel
from tabs import INTERNAL_EVENT


FAMILIES = """
- An **autoencoder** draws a picture again from a few numbers, and learns nothing else: it reconstructs.
- A **VAE** does the same with noise on the numbers, so that near numbers are like pictures: it samples, moves and
  morphs, and it blurs.
- A **DC-GAN** learns from a discriminator that tells its pictures from real ones: its samples are sharp, and it cannot
  reconstruct.
- A **VAE-GAN** does both: it reconstructs and samples with detail.
"""

PRIVACY = """The models are small and know one kind of picture; whatever else you upload is turned into the nearest
thing they know. They repeat what their training pictures were biased to, and their measurements say nothing about
people. **Do not use them to identify anybody, or to depict a real person.**

**Privacy.** Uploads are processed in memory on this server and used for nothing else. The files that the page needs
lie in a cache, and are deleted within the hour. Nothing is logged or sent elsewhere.

**API.** Everything on this page can be called from a program: see "Use via API" below, or the README.
"""


def card_of(models: dict[str, PublishedModel], model: str) -> str:
    """The model card of a model: what it was trained on and on what terms, how, its measurements and its limits."""
    chosen = checks.choice("The model", model, models)
    return chosen.card or f"{model} has no card."


def build(models: dict[str, PublishedModel]) -> None:
    """Adds the tab."""
    with gr.Tab("About", id="about"):
        gr.Markdown("## Four families\n" + FAMILIES)
        gr.Markdown("## Limits and privacy\n\n" + PRIVACY)
        with gr.Accordion("Model cards", open=False):
            model = gr.Dropdown(list(models), label="Model")
            card = gr.Markdown(card_of(models, next(iter(models))), elem_id="card", header_links=False)
    model.input(partial(card_of, models), model, card, **INTERNAL_EVENT)
