"""Our runs of the recipes beside what was published about them, models side by side, and sheets of decoded noise."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from ..config import DataConfig
from ..evaluation.evaluate import open_recorded
from ..evaluation.metrics import mse
from ..flags import run_from_recipe
from ..latents.encoding import ENCODE_BATCH, encode_all
from ..models import ImageGenerator
from ..models.auto import AutoGenerator
from ..pictures import picture_grid, to_float, to_pictures
from ..pipeline import ImagePipeline


STDS = tuple(number / 4 for number in range(1, 9))  # 0.25 to 2.0
SHEET_COLUMNS = 8
SCALES = {"[-1, 1]": 1.0, "[0, 1]": 4.0}  # a squared error there, times this, is one on [-1, 1]
COLUMNS = ("recipe", "epochs", "training MSE", "held-out MSE", "published training MSE", "the same on [-1, 1]")
LABEL_HEIGHT = 16

Row = dict[str, str | float | None]


def table_rows(recipes: Path, prefix: str, runs: Path, train_data_dir: str) -> list[Row]:
    """For each recipe whose name begins with `prefix` and which has a finished run of that name in `runs`: mean
    squared errors of reconstructions, from posterior means, on images in [-1, 1], on as many training pictures as
    there are held-out ones and on these, beside what was published. None where there is nothing to say.

    Raises:
        ValueError: If no such recipe has such a run, or the pictures cannot be used.
    """
    rows = []
    for recipe in sorted(recipes.glob(f"{prefix}*.json")):
        if (runs / recipe.stem / "training.json").is_file():
            rows.append(_row(recipe, runs / recipe.stem, train_data_dir))
    if not rows:
        raise ValueError(f"{runs} holds no finished run of a recipe {prefix}* in {recipes}; train one with --recipe.")
    return rows


def table(rows: list[Row]) -> str:
    """The rows of `table_rows` as Markdown."""
    cells = []
    for row in rows:
        published = f"{row['published_mse']:.4f} on {row['published_pixels']}" if row["published_pixels"] else "-"
        errors = ["-" if row[name] is None else f"{row[name]:.4f}" for name in ("training_mse", "heldout_mse")]
        rescaled = "-" if row["rescaled_mse"] is None else f"{row['rescaled_mse']:.4f}"
        cells.append([row["recipe"], f"{row['epochs']:.0f}", *errors, published, rescaled])
    return markdown(COLUMNS, cells)


def markdown(header: Sequence[str], rows: list[list[str]]) -> str:
    """A table in Markdown whose columns are also aligned in a terminal."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def _row(recipe: Path, folder: Path, train_data_dir: str) -> Row:
    sections = json.loads(recipe.read_text())
    facts = json.loads((folder / "training.json").read_text())
    run = run_from_recipe(sections)
    model = AutoGenerator.from_pretrained(folder)
    row: Row = {"recipe": recipe.stem, "epochs": facts["images_seen"] / facts["pictures"]["train"]}
    row |= dict.fromkeys(("training_mse", "heldout_mse", "published_mse", "published_pixels", "rescaled_mse"))
    if not model.has_encoder:
        return row
    data: DataConfig = replace(run.data, train_data_dir=train_data_dir)
    splits = open_recorded(folder, data, model.config.image_size, model.config.image_channels)
    count = len(splits.heldout)
    row["training_mse"] = reconstruction_error(model, to_float(splits.train[:count]))
    row["heldout_mse"] = reconstruction_error(model, to_float(splits.heldout[:count]))
    if published := sections.get("published"):
        error, pixels = published["training_mse"], published["pixels"]
        row |= {"published_mse": error, "published_pixels": pixels, "rescaled_mse": SCALES[pixels] * error}
    return row


@torch.no_grad()
def reconstruction_error(model: ImageGenerator, images: torch.Tensor) -> float:
    """Mean squared error of reconstructions, from posterior means and clipped to [-1, 1], of images `(N, C, H, W)`."""
    latents = encode_all(model, images)
    pairs: Iterable = zip(latents.split(ENCODE_BATCH), images.split(ENCODE_BATCH), strict=True)
    errors = [mse(model.decode(some).sample.float().clamp(-1, 1).cpu(), batch) for some, batch in pairs]
    return torch.cat(errors).mean().item()


@torch.no_grad()
def std_sheet(model: ImageGenerator, seed: int = 0) -> Image.Image:
    """Decoded noise, one row for each standard deviation from 0.25 to 2.0 in steps of 0.25, with the same noise in
    each row: where a latent space ends, and what a model draws beyond."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(SHEET_COLUMNS, model.config.latent_dim, generator=generator).to(model.device)
    rows = torch.cat([model.decode(std * noise).sample.float().cpu() for std in STDS])
    return picture_grid(to_pictures(rows, model.output_size), SHEET_COLUMNS)


def models_sheet(models: dict[str, Path], pictures: list[Image.Image], seed: int = 0) -> Image.Image:
    """A labelled row for each model, by its name and folder: 8 samples of the same seed; or, if there are `pictures`,
    what it makes of them, below a row of these.

    Raises:
        ValueError: If there are pictures and no model has an encoder, or a folder holds no model of ours.
    """
    rows: dict[str, list[Image.Image]] = {}
    for name, folder in models.items():
        pipeline = ImagePipeline.from_pretrained(folder)
        if not pictures:
            rows[name] = pipeline.sample(SHEET_COLUMNS, seed).images
        elif pipeline.model.has_encoder:
            rows[name] = pipeline.reconstruct(pictures).images
            rows = {"pictures": [pipeline.prepare(picture) for picture in pictures]} | rows
    if not rows:
        raise ValueError(f"None of {', '.join(models)} has an encoder; leave out --pictures to see samples.")
    return _labelled(rows)


def _labelled(rows: dict[str, list[Image.Image]]) -> Image.Image:
    """Rows of equally many pictures, each below its name, at the size of the largest."""
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
