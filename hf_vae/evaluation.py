"""A snapshot and held-out images to the numbers in `metrics.json`."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from . import metrics
from .config import DataConfig
from .datasets import load_images
from .families import AutoGenerator
from .latents import ENCODE_BATCH, encode_all
from .models import ImageGenerator
from .streaming import open_stream
from .transforms import to_float


SHARPNESS = {"laplacian_variance": metrics.laplacian_variance, "high_frequency_energy": metrics.high_frequency_energy}

MEASURE_BATCH = 32  # SSIM needs 70 times the memory of the images that it compares
DISTANCE_IMAGES = 2000  # evenly spread ones, where there are more: all their pairs are compared


@torch.no_grad()
def evaluate(model: ImageGenerator, images: torch.Tensor, seed: int = 0) -> dict[str, float | int | str]:
    """Measures a model against held-out `images` (N, C, H, W) in [-1, 1], none of which it was trained on.

    N samples are drawn from the model's own prior, seeded by `seed`, and reconstructions are decoded from posterior
    means. Everything is measured at `image_size`, unresized, on values clipped to [-1, 1]. Sharpness is given for
    real, sampled and reconstructed images, as the mean over images, and as a ratio to the real ones.

    Raises:
        ValueError: If the images are of another shape than the model's.
    """
    expected = (model.config.image_channels, model.config.image_size, model.config.image_size)
    if tuple(images.shape[1:]) != expected:
        raise ValueError(f"Images of shape {tuple(images.shape[1:])} do not suit this model, which makes {expected}.")
    model.eval()
    groups = {"real": images, "samples": _sample_all(model, len(images), seed)}
    found: dict[str, float | int | str] = {
        "image_size": model.config.image_size,
        "num_heldout": len(images),
        "num_samples": len(images),
        "sample_seed": seed,
        "sample_prior": model.config.prior,
    }
    if model.has_encoder:
        latents = encode_all(model, images)
        reconstructions = torch.cat(
            [model.decode(batch).sample.float().cpu() for batch in latents.split(ENCODE_BATCH)]
        )
        groups["reconstructions"] = reconstructions.clamp(-1, 1)
        for name, measure in (("mse", metrics.mse), ("psnr", metrics.psnr), ("ssim", metrics.ssim)):
            found[f"reconstruction_{name}"] = _mean(measure, groups["reconstructions"], images)
    for measure_name, measure in SHARPNESS.items():
        means = {group: _mean(measure, values) for group, values in groups.items()}
        found |= {f"{measure_name}_{group}": mean for group, mean in means.items()}
        found |= {f"{measure_name}_{group}_ratio": means[group] / means["real"] for group in groups if group != "real"}
    some = torch.linspace(0, len(images) - 1, min(len(images), DISTANCE_IMAGES)).long()
    for name, measure in (("median", metrics.median_distance), ("nearest", metrics.nearest_distance)):
        real, sampled = (measure(groups[group][some]) for group in ("real", "samples"))
        found |= {f"{name}_distance_real": real, f"{name}_distance_samples": sampled}
        found[f"{name}_distance_samples_ratio"] = sampled / real
    return found


def _mean(measure: Callable[..., torch.Tensor], *groups: torch.Tensor) -> float:
    """The mean over images of a measure of one group, or of pairs of two."""
    batches = zip(*(group.split(MEASURE_BATCH) for group in groups), strict=True)
    return torch.cat([measure(*batch) for batch in batches]).mean().item()


def _sample_all(model: ImageGenerator, num_images: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    counts = [min(ENCODE_BATCH, num_images - first) for first in range(0, num_images, ENCODE_BATCH)]
    return torch.cat([model.sample(count, generator=generator).cpu() for count in counts])


def evaluate_folder(folder: Path, data: DataConfig, save: bool = True) -> dict[str, float | int | str]:
    """Measures the model in `folder` on the pictures that `data` holds out, and writes `metrics.json` there unless
    `save` is off.

    Raises:
        ValueError: If the folder holds no model of ours or the pictures cannot be used.
    """
    model = AutoGenerator.from_pretrained(folder).to("cuda" if torch.cuda.is_available() else "cpu")
    open_images = open_stream if data.streaming else load_images
    splits = open_images(data, model.config.image_size, model.config.image_channels)
    found = evaluate(model, to_float(splits.heldout[:]))
    if save:
        save_metrics(found, folder)
    return found


def rounded(found: dict[str, float | int | str]) -> dict[str, float | int | str]:
    """The measures with six significant digits, as they are published."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in found.items()}


def save_metrics(found: dict[str, float | int | str], folder: Path) -> None:
    """Writes `metrics.json`."""
    (folder / "metrics.json").write_text(json.dumps(rounded(found), indent=2) + "\n")
