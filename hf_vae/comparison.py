"""Our runs of the recipes beside what was published about them, and sheets of decoded noise."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from .config import DataConfig
from .datasets import load_images
from .families import AutoGenerator
from .latents import ENCODE_BATCH, encode_all
from .metrics import mse
from .models import ImageGenerator
from .recipes import run_from_recipe
from .transforms import picture_grid, to_float, to_pictures


STDS = tuple(number / 4 for number in range(1, 9))  # 0.25 to 2.0
SHEET_COLUMNS = 8
SCALES = {"[-1, 1]": 1.0, "[0, 1]": 4.0}  # a squared error there, times this, is one on [-1, 1]
COLUMNS = ("recipe", "epochs", "training MSE", "held-out MSE", "published training MSE", "the same on [-1, 1]")


def table(recipes: Path, prefix: str, runs: Path, train_data_dir: str) -> str:
    """A Markdown table of the recipes whose names begin with `prefix` and which have a finished run of that name in
    `runs`: mean squared errors of reconstructions, from posterior means, on images in [-1, 1], on as many
    training pictures as there are held-out ones and on these, beside what was published.

    Raises:
        ValueError: If no such recipe has such a run, or the pictures cannot be used.
    """
    rows = []
    for recipe in sorted(recipes.glob(f"{prefix}*.json")):
        if (runs / recipe.stem / "training.json").is_file():
            rows.append(_row(recipe, runs / recipe.stem, train_data_dir))
    if not rows:
        raise ValueError(f"{runs} holds no finished run of a recipe {prefix}* in {recipes}; train one with --recipe.")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows))


def _row(recipe: Path, folder: Path, train_data_dir: str) -> list[str]:
    sections = json.loads(recipe.read_text())
    facts = json.loads((folder / "training.json").read_text())
    run = run_from_recipe({name: sections[name] for name in ("family", "model", "objective", "data", "train")})
    model = AutoGenerator.from_pretrained(folder)
    cells = [recipe.stem, f"{facts['images_seen'] / facts['pictures']['train']:.0f}"]
    if not model.has_encoder:
        return [*cells, "-", "-", "-", "-"]
    data: DataConfig = replace(run.data, train_data_dir=train_data_dir)
    splits = load_images(data, model.config.image_size, model.config.image_channels)
    count = len(splits.heldout)
    errors = [reconstruction_error(model, to_float(split[:count])) for split in (splits.train, splits.heldout)]
    published = sections.get("published")
    theirs = ["-", "-"]
    if published:
        error, pixels = published["training_mse"], published["pixels"]
        theirs = [f"{error:.4f} on {pixels}", f"{SCALES[pixels] * error:.4f}"]
    return [*cells, *(f"{error:.4f}" for error in errors), *theirs]


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
