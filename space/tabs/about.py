"""The tab about the model families, their limits, and what happens to uploads."""

import html
import re
from functools import partial
from pathlib import Path

import gradio as gr
from PIL import Image

import checks
from hf_vae.families import FAMILIES
from published import PublishedModel
from tabs import INTERNAL_EVENT, model_choices
from widgets import data_url


LIMITS = """## Limits and bias

The models are small, and each generates one kind of image. They may reconstruct other kinds too, because latents on a
grid and residual latents preserve detail of any image. A good reconstruction therefore does not show that a model has
learned such images. For a model without an encoder, a search finds the nearest image that it can generate.

The models reproduce the biases of their training images: who is shown, how, and how often. Their measurements say
nothing about people. The terms of the training images are in each card. **Do not use the models to identify people, or
to depict a real person.**

## Privacy

Uploads are processed in memory on this server and used for nothing else. The files that the page needs are cached and
deleted within the hour. Nothing is logged or sent elsewhere.

## Use it elsewhere

**At home.** Clone the repository of hf_vae and run `make demo`. It installs the package and opens this page on your
machine.

**Your own Space.** Duplicate this Space. In its settings, set the variable `HF_VAE_MODELS` to the ids of your models
on the Hub, separated by commas. Or run `hf-vae push FOLDER --repo_id OWNER/MODEL --space OWNER/SPACE`: it uploads a
model and a Space that shows it.

**API.** Programs can call everything on this page: see "Use via API" at the bottom of the page, or the Space's README.

**Citation.** Name the model, and cite the software:

```bibtex
@software{hf_vae,
  title = {hf_vae: small image generators with a latent space to explore},
  author = {{The contributors of hf\\_vae}},
  year = {2026}
}
```
"""
RELATIVE_IMAGES = re.compile(r"!\[(?P<words>[^\]]*)\]\((?P<file>[^)]*)\)\s*")
RELATIVE_LINKS = re.compile(r"(?<!!)\[(?P<words>[^\]]+)\]\((?![a-z]+:|#)[^)]*\)")  # they lead nowhere on this page
CARD_PICTURE_EDGE = 768  # pixels


def describe_families() -> str:
    """A Markdown list of all families, one paragraph each."""
    return "\n".join(f"- **{family.title}.** {' '.join(family.description.split())}" for family in FAMILIES.values())


def card_of(models: dict[str, PublishedModel], model: str) -> str:
    """The card of a model: its training data and their licence, its training, measurements and limits."""
    chosen = checks.choice("The model", model, models)
    text = RELATIVE_LINKS.sub(r"\g<words>", chosen.card)
    return RELATIVE_IMAGES.sub(partial(_shown, chosen.folder), text) or f"{chosen.title} has no model card."


def _shown(folder: Path, image: re.Match) -> str:
    """An image of a card, with its contents instead of its name; nothing if it is not in the folder."""
    path = folder / Path(image["file"]).name
    if image["file"] != path.name or not path.is_file():
        return ""
    with Image.open(path) as picture:
        picture.thumbnail((CARD_PICTURE_EDGE, CARD_PICTURE_EDGE))
        return f"![{image['words']}]({data_url(picture.convert('RGB'), 'WEBP')})\n\n"


def build(models: dict[str, PublishedModel], broken: dict[str, str]) -> None:
    """Adds the tab. `broken` has the reason for each model that could not be loaded."""
    with gr.Tab("About", id="about"):
        gr.Markdown("## Model families\n\n" + describe_families())
        if broken:
            gr.Markdown("## Models that could not be loaded")
            # HTML, because Markdown would interpret underscores in file names
            lines = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in broken.values())
            gr.HTML(f"<ul>{lines}</ul>", elem_id="broken")
        gr.Markdown(LIMITS)
        with gr.Accordion("Model cards", open=False) as cards:
            model = gr.Dropdown(model_choices(models), label="Model")
            card = gr.Markdown(elem_id="card", header_links=False)
    gr.on([cards.expand, model.input], partial(card_of, models), model, card, **INTERNAL_EVENT)
