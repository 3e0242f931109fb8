"""Fixed-seed grids during training, and the timelapse that they add up to."""

from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image

from .latents import fit_prior
from .models import ImageGenerator
from .transforms import to_pictures


GRID_COLUMNS = 8
PREVIEW_IMAGES = 32
PREVIEW_SEED = 0
TIMELAPSE_MILLISECONDS = 200


def picture_grid(pictures: list[Image.Image], columns: int = GRID_COLUMNS) -> Image.Image:
    """Pictures of one size, side by side in rows of `columns`, without gaps."""
    columns = min(columns, len(pictures))
    width, height = pictures[0].size
    grid = Image.new(pictures[0].mode, (columns * width, -(-len(pictures) // columns) * height))
    for number, picture in enumerate(pictures):
        grid.paste(picture, (number % columns * width, number // columns * height))
    return grid


def draw_preview(model: ImageGenerator, batches: Iterable[torch.Tensor]) -> Image.Image:
    """Samples of the same noise at any time of a run. `batches`, each `(B, C, H, W)` in [-1, 1], are what the prior is
    fitted on first, since a prior fitted to an earlier encoder does not suit this one. No global random state is
    touched."""
    model.eval()
    fit_prior(model, batches)
    generator = torch.Generator().manual_seed(PREVIEW_SEED)
    return picture_grid(to_pictures(model.sample(PREVIEW_IMAGES, generator=generator), model.output_size))


def preview_file(folder: Path, step: int) -> Path:
    """Where the preview after `step` updates is."""
    return folder / f"step_{step:07d}.png"


def drop_previews_after(step: int, folder: Path) -> None:
    """Removes the previews that a resumed run will draw again."""
    for file in folder.glob("step_*.png"):
        if file > preview_file(folder, step):
            file.unlink()


def save_timelapse(folder: Path, path: Path) -> None:
    """Joins the PNG grids in `folder`, in order of their names, into one animated WebP at `path`; the last one stays
    for 2 s."""
    frames = [Image.open(file).convert("RGB") for file in sorted(folder.glob("step_*.png"))]
    if frames:
        durations = [TIMELAPSE_MILLISECONDS] * (len(frames) - 1) + [2000]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=80)
