"""A snapshot and held-out images to the numbers in `metrics.json`."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ..config import DataConfig
from ..data.cached import DataSplits, load_images
from ..data.split import SPLIT_FILE, Split, first_edition_split, read_split
from ..data.streaming import open_stream
from ..latents.encoding import ENCODE_BATCH, encode_all
from ..models import ImageGenerator
from ..models.auto import AutoGenerator
from ..pictures import to_float
from . import features, metrics
from .features import Features, open_networks


Measures = dict[str, float | int | str | list[str]]

SHARPNESS = {"laplacian_variance": metrics.laplacian_variance, "high_frequency_energy": metrics.high_frequency_energy}

MEASURE_BATCH = 32  # SSIM needs 70 times the memory of the images that it compares
INTERPOLATIONS = 64
PROGRESS = {"disable": None, "delay": 1, "leave": False}  # a bar where stderr is a terminal, and it takes a while
DISTANCE_IMAGES = 2000  # evenly spread ones, where there are more: all their pairs are compared


@torch.no_grad()
def evaluate(
    model: ImageGenerator,
    images: torch.Tensor,
    training_images: torch.Tensor | None = None,
    seed: int = 0,
    networks: Sequence[Features] | None = None,
) -> Measures:
    """Measures a model against held-out `images` (N, C, H, W) in [-1, 1], none of which it was trained on.

    N samples are drawn, seeded by `seed`, from each prior that the model has; those of its own are what "samples" are.
    Reconstructions are decoded from posterior means, and once more without the residual latents of a model that has
    such. Pixels are measured at `image_size`, unresized, on values clipped to [-1, 1]; features in each of `networks`,
    at its own size: in the default ones of `open_networks` unless others are given. The first measures samples of
    every prior, the others of the model's own. With `training_images` (M, C, H, W), uint8, how near samples come to
    them is measured, and how far N of them lie from the held-out ones: the best that a distance of samples can be
    expected to be. A ratio to what is 0 in the held-out images, as the sharpness of even colour is, is left out.

    Raises:
        ValueError: If the images are of another shape than the model's, or fewer than two, or the package of a
            default network is not installed.
    """
    expected = (model.config.image_channels, model.config.image_size, model.config.image_size)
    if tuple(images.shape[1:]) != expected:
        raise ValueError(f"Images of shape {tuple(images.shape[1:])} do not suit this model, which makes {expected}.")
    networks = networks or open_networks()
    model.eval()
    priors = {prior: _sample_all(model, len(images), prior, seed) for prior in model.priors}
    groups = {"samples": priors[model.config.prior]}
    found: Measures = {
        "image_size": model.config.image_size,
        "num_heldout": len(images),
        "num_samples": len(images),
        "sample_seed": seed,
        "sample_prior": model.config.prior,
        "feature_network": networks[0].name,
        "feature_networks": [network.name for network in networks],
    }
    if model.has_encoder:
        latents = encode_all(model, images)
        found |= {"num_latents": latents.shape[1], "num_image_values": images[0].numel()}
        groups |= _reconstructions(model, latents)
        found |= _likeness(groups, images)
        found |= _evenness(model, latents)
    found |= _sharpness(groups, images) | _variety(groups["samples"], images, training_images)
    compared = {f"prior_{prior}": samples for prior, samples in priors.items()}
    if training_images is not None:
        compared["training_images"] = to_float(_evenly(training_images, len(images)))
    own = {name: compared[name] for name in compared if name in (f"prior_{model.config.prior}", "training_images")}
    for network in networks:
        found |= _feature_distances(compared if network is networks[0] else own, images, network)
    return {name: value for name, value in found.items() if not isinstance(value, float) or math.isfinite(value)}


def _reconstructions(model: ImageGenerator, latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is drawn from latents `(N, Z + D)`, and from the first Z of them where there are D residual ones."""
    groups = {"reconstructions": _decode_all(model, latents)}
    if model.num_latents > model.config.latent_dim:
        groups["reconstructions_without_details"] = _decode_all(model, latents[:, : model.config.latent_dim])
    return groups


def _likeness(groups: dict[str, torch.Tensor], images: torch.Tensor) -> Measures:
    found: Measures = {}
    for group in (group for group in groups if group.startswith("reconstructions")):
        suffix = group.removeprefix("reconstructions")
        for name, measure in (("mse", metrics.mse), ("psnr", metrics.psnr), ("ssim", metrics.ssim)):
            found[f"reconstruction_{name}{suffix}"] = _mean(measure, groups[group], images)
    return found


def _evenness(model: ImageGenerator, latents: torch.Tensor) -> Measures:
    """For each kind of path between held-out images that the model has: sharpness in its middle, as a ratio to that at
    its ends; and the longest of its 8 steps in pixels, as a ratio to their mean, averaged over paths: 1 if all are
    equal."""
    some = latents[: 2 * (min(len(latents), 2 * INTERPOLATIONS) // 2)]
    found: Measures = {}
    for kind in model.latent_prior.paths:
        points = model.path(*some.chunk(2), 9, kind)  # (P, 9, Z)
        frames = _decode_all(model, points.flatten(0, 1)).unflatten(0, points.shape[:2])  # (P, 9, C, H, W)
        first, middle, last = (_mean(metrics.laplacian_variance, frames[:, place]) for place in (0, 4, 8))
        steps = frames.diff(dim=1).square().flatten(2).mean(2).sqrt()  # (P, 8)
        found[f"interpolation_{kind}_sharpness_middle_ratio"] = _ratio(2 * middle, first + last)
        found[f"interpolation_{kind}_step_unevenness"] = (steps.max(1).values / steps.mean(1)).mean().item()
    return found


def _sharpness(groups: dict[str, torch.Tensor], images: torch.Tensor) -> Measures:
    found: Measures = {}
    for name, measure in SHARPNESS.items():
        real = _mean(measure, images)
        found[f"{name}_real"] = real
        for group, values in groups.items():
            found[f"{name}_{group}"] = _mean(measure, values)
            found[f"{name}_{group}_ratio"] = _ratio(found[f"{name}_{group}"], real)
    spectrum = metrics.radial_power_spectrum(images).mean(0)
    found |= {f"spectrum_band_{band}_real": power.item() for band, power in enumerate(spectrum, 1)}
    for group, values in groups.items():
        ratios = metrics.radial_power_spectrum(values).mean(0) / spectrum
        found |= {f"spectrum_band_{band}_{group}_ratio": ratio.item() for band, ratio in enumerate(ratios, 1)}
    return found


def _variety(samples: torch.Tensor, images: torch.Tensor, training_images: torch.Tensor | None) -> Measures:
    found: Measures = {}
    samples, images = (_evenly(group, DISTANCE_IMAGES) for group in (samples, images))
    for name, measure in (("median", metrics.median_distance), ("nearest", metrics.nearest_distance)):
        real, sampled = measure(images), measure(samples)
        found |= {f"{name}_distance_real": real, f"{name}_distance_samples": sampled}
        found[f"{name}_distance_samples_ratio"] = _ratio(sampled, real)
    if training_images is not None:
        views = (view for batch in training_images.split(ENCODE_BATCH) for view in (batch, batch.flip(3)))
        seen = torch.cat([metrics.thumbnails(to_float(view)) for view in views])
        real, sampled = (metrics.nearest_reference_distance(group, seen) for group in (images, samples))
        found |= {"training_distance_real": real, "training_distance_samples": sampled}
        found["training_distance_samples_ratio"] = _ratio(sampled, real)
    return found


def _feature_distances(groups: dict[str, torch.Tensor], images: torch.Tensor, network: Features) -> Measures:
    references = features.extract(network, images)
    found: Measures = {}
    for group, values in groups.items():
        extracted = features.extract(network, values)
        found[f"frechet_{network.name}_{group}"] = features.frechet_distance(extracted, references)
        found[f"kernel_{network.name}_{group}"] = features.kernel_distance(extracted, references)
        precision, recall = features.precision_and_recall(extracted, references)
        found[f"precision_{network.name}_{group}"] = precision
        found[f"recall_{network.name}_{group}"] = recall
    return found


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else math.nan


def _evenly(images: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of the images, evenly spread over them."""
    return images[torch.linspace(0, len(images) - 1, min(len(images), most)).long()]


def _mean(measure: Callable[..., torch.Tensor], *groups: torch.Tensor) -> float:
    """The mean over images of a measure of one group, or of pairs of two."""
    batches = list(zip(*(group.split(MEASURE_BATCH) for group in groups), strict=True))
    progress = tqdm(batches, desc=f"Measuring {measure.__name__}", **PROGRESS)
    return torch.cat([measure(*batch) for batch in progress]).mean().item()


def _sample_all(model: ImageGenerator, num_images: int, prior: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    counts = [min(ENCODE_BATCH, num_images - first) for first in range(0, num_images, ENCODE_BATCH)]
    batches = tqdm(counts, desc=f"Sampling, {prior} prior", **PROGRESS)
    return torch.cat([model.sample(count, generator, prior=prior).cpu() for count in batches])


def _decode_all(model: ImageGenerator, latents: torch.Tensor) -> torch.Tensor:
    batches = tqdm(latents.split(ENCODE_BATCH), desc="Decoding", **PROGRESS)
    return torch.cat([model.decode(batch).sample.float().cpu() for batch in batches]).clamp(-1, 1)


def evaluate_folder(
    folder: Path, data: DataConfig, save: bool = True, networks: Sequence[Features] | None = None
) -> Measures:
    """Measures the model in `folder` on the images that it held out, in the features of `networks` as `evaluate` does,
    and writes `metrics.json` there unless `save` is off.

    Raises:
        ValueError: If the folder holds no model of ours, or `data` are not the images of its run.
    """
    model = AutoGenerator.from_pretrained(folder).to("cuda" if torch.cuda.is_available() else "cpu")
    splits = open_recorded(folder, data, model.config.image_size, model.config.image_channels)
    # of a part of the training images, distances to them are larger, and not worth publishing
    is_whole = not data.streaming and len(splits.train) == len(splits.split.train)
    training_images = splits.train[:] if is_whole else None
    found = evaluate(model, to_float(splits.heldout[:]), training_images, networks=networks)
    if save:
        save_metrics(found, folder)
    return found


def open_recorded(folder: Path, data: DataConfig, image_size: int, image_channels: int) -> DataSplits:
    """The images of `data` on the sides of the split that the run in `folder` recorded.

    Raises:
        ValueError: If they are not the images of the run, or cannot be used.
    """
    split = read_split(folder)
    if data.streaming:
        if split is None:
            raise ValueError(f"{folder} has no {SPLIT_FILE}: which images of the stream it held out is not known.")
        return open_stream(data, image_size, image_channels, split)
    if split is None:
        split = _unrecorded_split(folder, load_images(data, image_size, image_channels), data)
    return load_images(data, image_size, image_channels, split)


def _unrecorded_split(folder: Path, found: DataSplits, data: DataConfig) -> Split:
    """The split of a model of the first edition, which can only be known to be right by its counts."""
    if not (folder / "training.json").is_file():
        raise ValueError(f"{folder} has no {SPLIT_FILE}: which images it was trained on is not known.")
    split = first_edition_split(found.digests, data.validation_fraction, data.split_seed)
    recorded = json.loads((folder / "training.json").read_text())["pictures"]
    if (recorded["train"], recorded["heldout"]) != (len(split.train), len(split.heldout)):
        raise ValueError(
            f"{folder} has no {SPLIT_FILE}, and its dataset had {recorded['train']} training and "
            f"{recorded['heldout']} held-out images instead of {len(split.train)} and {len(split.heldout)}: which "
            "images it was trained on is not known. Name its own dataset with --train_data_dir."
        )
    print(f"{folder} has no {SPLIT_FILE}: its split is right only if the dataset is as it was, in the same order.")
    return split


def rounded(found: Measures) -> Measures:
    """The measures with six significant digits, as they are published."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in found.items()}


def save_metrics(found: Measures, folder: Path) -> None:
    """Writes `metrics.json`."""
    (folder / "metrics.json").write_text(json.dumps(rounded(found), indent=2) + "\n")
