"""Fixed-seed grids during training, and the timelapse that they add up to."""

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image

from ..latents.fit_prior import fit_for_preview
from ..models import ImageGenerator
from ..pictures import GRID_COLUMNS, picture_grid, to_pictures


PREVIEW_IMAGES = 32
PREVIEW_SEED = 0
TIMELAPSE_MILLISECONDS = 200
ENDINGS = (".png", ".jpg")
TIMELAPSES = ("timelapse.webp", "timelapse.gif")  # that are published


def draw_preview(
    model: ImageGenerator,
    batches: Iterable[torch.Tensor] | None,
    num_images: int = PREVIEW_IMAGES,
    columns: int = GRID_COLUMNS,
) -> Image.Image:
    """Samples of the same noise at any time of a run. A prior that is fitted in seconds stands in for one that takes
    longer. It is fitted to `batches` first, each `(B, C, H, W)` in [-1, 1], since the encoder has changed since the
    last time. Without `batches` the model's prior is used as it is. No global random state is changed."""
    model.eval()
    prior = model.config.prior if batches is None else fit_for_preview(model, batches)
    generator = torch.Generator().manual_seed(PREVIEW_SEED)
    samples = model.sample(num_images, generator=generator, prior=prior)
    return picture_grid(to_pictures(samples, model.output_size), columns)


@torch.no_grad()
def draw_reconstructions(model: ImageGenerator, images: torch.Tensor) -> Image.Image:
    """Images `(B, C, H, W)` in [-1, 1] in the upper row, and below each what the model makes of it."""
    model.eval()
    latents = model.encode(images.to(model.device)).latents
    rows = torch.cat([images, model.decode(latents).sample.float().cpu()])
    return picture_grid(to_pictures(rows, model.output_size), len(images))


def preview_name(pattern: str, step: int, images: int, images_per_step: int, images_per_epoch: int | None) -> str:
    """The name of the preview after `step` updates and `images` images: `pattern` with {step}, {epoch} (from 1) and
    {epoch_step} (updates since that epoch began). Without an `images_per_epoch` all is one epoch.

    Raises:
        ValueError: If the pattern holds anything else, its ending is not that of a PNG or JPEG, or its names are not
            in the order of their steps, as those of a number without leading zeros.
    """
    if not pattern.endswith(ENDINGS):
        raise ValueError(f"preview_file={pattern!r} must end with {' or '.join(ENDINGS)}.")
    epoch = max(1, math.ceil(images / images_per_epoch)) if images_per_epoch else 1
    before = (epoch - 1) * (images_per_epoch or 0)
    try:
        ninth, tenth = (pattern.format(step=number, epoch=number, epoch_step=number) for number in (9, 10))
        name = pattern.format(step=step, epoch=epoch, epoch_step=math.ceil((images - before) / images_per_step))
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"preview_file={pattern!r} may hold {{step}}, {{epoch}} and {{epoch_step}} only.") from error
    if ninth > tenth:
        raise ValueError(
            f"preview_file={pattern!r} needs leading zeros, as in {{step:07d}}, for names in their order."
        )
    return name


def drop_previews_after(last: str, folder: Path) -> None:
    """Removes the previews that a resumed run will draw again: those that come after the name `last`."""
    for file in folder.glob(f"*{Path(last).suffix}"):
        if file.name > last:
            file.unlink()


def save_timelapse(folder: Path, path: Path) -> None:
    """Joins the grids in `folder`, in order of their names, into one animation at `path`, whose ending says its
    format; the last one stays for 2 s. One frame at a time is in memory."""
    files = sorted(file for file in folder.glob("*") if file.suffix in ENDINGS)
    if files:
        durations = [TIMELAPSE_MILLISECONDS] * (len(files) - 1) + [2000]
        frames = (Image.open(file).convert("RGB") for file in files)
        next(frames).save(path, save_all=True, append_images=frames, duration=durations, loop=0, quality=80)
