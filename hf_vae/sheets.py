"""Grids of images to look at: reconstructions below their originals, decoded noise, models one below the other."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from .models import ImageGenerator
from .pictures import picture_grid, to_pictures
from .pipeline import ImagePipeline


STDS = tuple(number / 4 for number in range(1, 9))  # 0.25 to 2.0
SHEET_COLUMNS = 8
LABEL_HEIGHT = 16  # pixels
SWEPT_COMPONENTS = 8  # of a model without named sliders: those with the largest variance
SWEEP_FRAMES, SWEEP_REACH = 7, 3.0


@torch.no_grad()
def draw_reconstructions(model: ImageGenerator, images: torch.Tensor) -> Image.Image:
    """A row of `images` `(B, C, H, W)` in [-1, 1] above a row of their reconstructions. Puts the model into
    evaluation mode."""
    model.eval()
    latents = model.encode(images.to(model.device)).latents
    rows = torch.cat([images, model.decode(latents).sample.float().cpu()])
    return picture_grid(to_pictures(rows, model.output_size), len(images))


@torch.no_grad()
def std_sheet(model: ImageGenerator, seed: int = 0) -> Image.Image:
    """Decoded noise, a row for each standard deviation from 0.25 to 2.0 in steps of 0.25, with the same noise in each
    row: it shows where a latent space ends, and what the model generates beyond."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(SHEET_COLUMNS, model.config.latent_dim, generator=generator).to(model.device)
    rows = torch.cat([model.decode(std * noise).sample.float().cpu() for std in STDS])
    return picture_grid(to_pictures(rows, model.output_size), SHEET_COLUMNS)


def sweep_rows(
    pipeline: ImagePipeline,
    latents: torch.Tensor,
    components: Sequence[int | str] | None = None,
    frames: int = SWEEP_FRAMES,
    reach: float = SWEEP_REACH,
) -> dict[str, list[Image.Image]]:
    """An image moved along sliders: for each a row of `frames` images, from -`reach` to `reach` standard deviations,
    by its name.

    Args:
        pipeline: The model.
        latents: Of the image, `(1, Z)` or `(1, Z + D)`.
        components: Names of sliders, or numbers of components from 0. If None, all named sliders of the model, or its
            first eight components if it has none.
        frames: Images in a row.
        reach: The largest shift in either direction.

    Raises:
        ValueError: If a slider does not exist.
    """
    if components is None:
        few = range(min(SWEPT_COMPONENTS, pipeline.num_components))
        components = [each.name for each in pipeline.sliders] or list(few)
    values = [reach * (2 * frame / (frames - 1) - 1) for frame in range(frames)]
    return {
        name if isinstance(name, str) else f"component {name}": pipeline.vary_latents(latents, name, values).images
        for name in components
    }


def models_sheet(models: dict[str, Path], pictures: list[Image.Image], seed: int = 0) -> Image.Image:
    """A labelled row for each model.

    Args:
        models: The folder of each model, by the name that its row gets.
        pictures: What to reconstruct. They are the first row, and models without an encoder are left out. If there are
            none, a row is 8 samples.
        seed: Seed of the samples, the same for each model.

    Raises:
        ValueError: If there are images to reconstruct and no model has an encoder, or a folder holds no model.
    """
    rows: dict[str, list[Image.Image]] = {}
    for name, folder in models.items():
        pipeline = ImagePipeline.from_pretrained(folder)
        if not pictures:
            rows[name] = pipeline.sample(SHEET_COLUMNS, seed).images
        elif pipeline.model.has_encoder:
            rows[name] = pipeline.reconstruct(pictures).images
            rows = {"images": [pipeline.prepare(picture) for picture in pictures]} | rows
    if not rows:
        raise ValueError(f"None of {', '.join(models)} has an encoder; leave out --pictures to see samples.")
    return labelled_sheet(rows)


def labelled_sheet(rows: dict[str, list[Image.Image]]) -> Image.Image:
    """Rows with equal numbers of images, each below its name, at the size of the largest image."""
    size = max(picture.width for row in rows.values() for picture in row)
    width = size * max(len(row) for row in rows.values())
    sheet = Image.new("RGB", (width, len(rows) * (size + LABEL_HEIGHT)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, row) in enumerate(rows.items()):
        top = number * (size + LABEL_HEIGHT)
        draw.text((2, top + 1), name, fill="black")
        for column, picture in enumerate(row):
            sheet.paste(picture.resize((size, size), Image.Resampling.NEAREST), (column * size, top + LABEL_HEIGHT))
    return sheet
