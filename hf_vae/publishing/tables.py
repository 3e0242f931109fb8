"""Tables: our runs of the recipes beside published results, and how a table is printed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..config import DataConfig
from ..evaluation.evaluate import open_recorded
from ..evaluation.metrics import mse
from ..flags import run_from_recipe
from ..latents.encoding import ENCODE_BATCH, encode_all
from ..models import ImageGenerator
from ..models.auto import AutoGenerator
from ..pictures import to_float
from ..run_folder import FACTS_FILE, read_json


SCALES = {"[-1, 1]": 1.0, "[0, 1]": 4.0}  # a squared error there, times this, is one on [-1, 1]
COLUMNS = ("recipe", "epochs", "training MSE", "held-out MSE", "published training MSE", "the same on [-1, 1]")

Row = dict[str, str | float | None]


def table_rows(recipes: Path, prefix: str, runs: Path, train_data_dir: str) -> list[Row]:
    """A row for each recipe whose name begins with `prefix` and that has a finished run of its name in `runs`.

    A row has the mean squared error of reconstructions from posterior means, for images in [-1, 1]: on the held-out
    images, and on as many training images. Beside it stands the published error. A value that is unknown is None.

    Raises:
        ValueError: If no recipe has such a run, or the images cannot be used.
    """
    rows = []
    for recipe in sorted(recipes.glob(f"{prefix}*.json")):
        if (runs / recipe.stem / FACTS_FILE).is_file():
            rows.append(_row(recipe, runs / recipe.stem, train_data_dir))
    if not rows:
        raise ValueError(f"{runs} holds no finished run of a recipe {prefix}* in {recipes}; train one with --recipe.")
    return rows


def table(rows: list[Row]) -> str:
    """The rows of `table_rows` as a Markdown table."""
    cells: list[list[str]] = []
    for row in rows:
        published = f"{row['published_mse']:.4f} on {row['published_pixels']}" if row["published_pixels"] else "-"
        errors = ["-" if row[name] is None else f"{row[name]:.4f}" for name in ("training_mse", "heldout_mse")]
        rescaled = "-" if row["rescaled_mse"] is None else f"{row['rescaled_mse']:.4f}"
        cells.append([str(row["recipe"]), f"{row['epochs']:.0f}", *errors, published, rescaled])
    return markdown(COLUMNS, cells)


def markdown(header: Sequence[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns are also aligned in a terminal."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def _row(recipe: Path, folder: Path, train_data_dir: str) -> Row:
    sections = json.loads(recipe.read_text())
    facts = read_json(folder, FACTS_FILE)
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
