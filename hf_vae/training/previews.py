"""Preview grids of a fixed seed during training, and the timelapse that joins them."""

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


def draw_preview(
    model: ImageGenerator,
    batches: Iterable[torch.Tensor] | None,
    num_images: int = PREVIEW_IMAGES,
    columns: int = GRID_COLUMNS,
) -> Image.Image:
    """Samples from the same noise at any time of a run. Global random state is not touched.

    Args:
        model: The model. It is put into evaluation mode.
        batches: Images `(B, C, H, W)` in [-1, 1]. The preview's prior is fitted to them, as the encoder has changed
            since the last preview. It is the model's own if that is fitted in seconds, else a faster one. With None,
            the model's prior is used as it is.
        num_images: Number of samples.
        columns: Samples in a row.
    """
    model.eval()
    prior = model.config.prior if batches is None else fit_for_preview(model, batches)
    generator = torch.Generator().manual_seed(PREVIEW_SEED)
    samples = model.sample(num_images, generator=generator, prior=prior)
    return picture_grid(to_pictures(samples, model.output_size), columns)


def preview_name(pattern: str, step: int, images: int, images_per_step: int, images_per_epoch: int | None) -> str:
    """The file name of the preview after `step` updates and `images` images.

    Args:
        pattern: May hold {step}, {epoch} (which starts at 1) and {epoch_step} (updates in that epoch).
        step: Number of updates.
        images: Number of images.
        images_per_step: Number of images in an update.
        images_per_epoch: Number of images in an epoch; None for a run without epochs.

    Raises:
        ValueError: If the pattern holds another placeholder, does not end with .png or .jpg, or gives names whose
            order is not that of the steps, such as those of numbers without leading zeros.
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
            f"preview_file={pattern!r} needs leading zeros, as in {{step:07d}}, so that the names sort by step."
        )
    return name


def name_with_prior(name: str) -> str:
    """The file name of the preview that is drawn from the fitted prior, after the last update: it sorts behind `name`,
    that of the last preview which another prior stood in for."""
    return f"{Path(name).stem}_prior{Path(name).suffix}"


def drop_previews_after(last: str, folder: Path) -> None:
    """Removes the previews that a resumed run will draw again: those whose names sort after `last`."""
    for file in folder.glob(f"*{Path(last).suffix}"):
        if file.name > last:
            file.unlink()


def save_timelapse(folder: Path, path: Path) -> None:
    """Joins the previews in `folder`, sorted by name, into one animation at `path`, whose ending decides the format.
    The last frame stays for 2 seconds. Only one frame is in memory at a time."""
    files = sorted(file for file in folder.glob("*") if file.suffix in ENDINGS)
    if files:
        durations = [TIMELAPSE_MILLISECONDS] * (len(files) - 1) + [2000]
        frames = (Image.open(file).convert("RGB") for file in files)
        next(frames).save(path, save_all=True, append_images=frames, duration=durations, loop=0, quality=80)
