"""The tab that says what the models are, what they know and what happens to uploads."""

import html
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

PRIVACY = """The models are small, and each generates one kind of image. Reconstruction goes further: latents on a grid
also carry images of other kinds through, less exactly, and residual latents carry most of any image through. A good
reconstruction does not show that a model knows such images. A DC-GAN has no encoder: a search finds the nearest image
that it can generate. The models repeat the biases of their training images, and their measurements say nothing about
people. **Do not use them to identify anybody, or to depict a real person.**

**Privacy.** Uploads are processed in memory on this server and used for nothing else. The files that the page needs
lie in a cache, and are deleted within the hour. Nothing is logged or sent elsewhere.

**API.** Everything on this page can be called from a program: see "Use via API" below, or the README.
"""


def card_of(models: dict[str, PublishedModel], model: str) -> str:
    """The model card of a model: what it was trained on and on what terms, how, its measurements and its limits."""
    chosen = checks.choice("The model", model, models)
    return chosen.card or f"{model} has no card."


def build(models: dict[str, PublishedModel], broken: dict[str, str]) -> None:
    """Adds the tab; `broken` says of each model that is not shown why."""
    with gr.Tab("About", id="about"):
        gr.Markdown("## Four families\n" + FAMILIES)
        if broken:
            gr.Markdown("## Models that are not shown")
            # not as Markdown, in which the underscores of file names mean something
            lines = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in broken.values())
            gr.HTML(f"<ul>{lines}</ul>", elem_id="broken")
        gr.Markdown("## Limits and privacy\n\n" + PRIVACY)
        with gr.Accordion("Model cards", open=False):
            model = gr.Dropdown(list(models), label="Model")
            card = gr.Markdown(card_of(models, next(iter(models))), elem_id="card", header_links=False)
    model.input(partial(card_of, models), model, card, **INTERNAL_EVENT)
