"""Measures of a model on held-out images, as in `metrics.json`."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..config import DataConfig
from ..data.cached import DataSplits, load_images
from ..data.split import Split, first_edition_split, read_split
from ..data.streaming import open_stream
from ..hardware import device_to_use
from ..latents.encoding import ENCODE_BATCH, encode_all
from ..models import ImageGenerator
from ..models.auto import AutoGenerator
from ..pictures import to_float
from ..run_folder import DIRECTIONS_FILE, FACTS_FILE, METRICS_FILE, SPLIT_FILE, read_json, save_metrics
from . import features, metrics
from .faces import Faces, find_faces
from .features import Features, InceptionFeatures, open_networks


Measures = dict[str, float | int | str | list[str]]

LABEL_MEASURES = "label_"  # how the names of what `measure_labels` finds begin
MEASURE_BATCH = 32  # SSIM needs 70 times the memory of the images that it compares
INTERPOLATIONS = 64
SLIDERS, SLIDER_SAMPLES = 10, 64
SLIDER_ENDS = (-2.0, 2.0)  # standard deviations
PROGRESS = {"disable": None, "delay": 1, "leave": False}  # a bar on a terminal, after a second
ESTIMATE_IMAGES = 16
REAL_PERCENTILES = (10, 90)  # of the sharpness of real images: between them lie four of five
DISTANCE_IMAGES = 2000  # at most, evenly spread: all pairs are compared


@torch.no_grad()
def evaluate(
    model: ImageGenerator,
    images: torch.Tensor,
    training_images: torch.Tensor | None = None,
    seed: int = 0,
    networks: Sequence[Features] | None = None,
) -> Measures:
    """Measures a model against held-out `images` (N, C, H, W) in [-1, 1], none of which it was trained on.

    N samples are generated from each prior of the model. Those of its own prior are the "samples" of the measures.
    Reconstructions are decoded from posterior means. If the model has residual latents, they are decoded once more
    without these. Pixels are measured at `image_size`, unresized, on values clipped to [-1, 1]. A ratio is left out
    where its value on the held-out images is 0, as the sharpness of an even colour is. Faces are counted if they are
    found in at least half of the held-out images.

    Args:
        model: The model.
        images: The held-out images.
        training_images: The training images `(M, C, H, W)`, uint8. With them, the distance from samples to the nearest
            training image is measured, and the distance between the held-out images and N training images, which is
            the best that samples can be expected to reach.
        seed: Seed of the samples.
        networks: Networks whose features distances are measured in, each at its own image size (default: those of
            `open_networks`). The first measures the samples of every prior, the others those of the model's own.

    Returns:
        The measures, by their names in `metrics.json`.

    Raises:
        ValueError: If the images have another shape than the model's, there are fewer than two, or OpenCV or the
            package of a default network is not installed.
    """
    expected = (model.config.image_channels, model.config.image_size, model.config.image_size)
    if tuple(images.shape[1:]) != expected:
        raise ValueError(f"Images of shape {tuple(images.shape[1:])} do not suit this model, which makes {expected}.")
    networks = networks or open_networks()
    model.eval()
    faces = find_faces(_evenly(images, DISTANCE_IMAGES))
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
        found |= _evenness(model, latents, faces)
    if faces is not None:
        share = faces.share(_evenly(groups["samples"], DISTANCE_IMAGES))
        found |= {"faces_cascade": faces.kind, "faces_found_real": faces.share_real, "faces_found_samples": share}
        found["faces_found_samples_ratio"] = share / faces.share_real
    found |= _sliders(model, min(len(images), SLIDER_SAMPLES), seed, faces)
    found |= _sharpness(groups, images) | _variety(groups["samples"], images, training_images)
    compared = {f"prior_{prior}": samples for prior, samples in priors.items()}
    if training_images is not None:
        compared["training_images"] = to_float(_evenly(training_images, len(images)))
    own = {name: compared[name] for name in compared if name in (f"prior_{model.config.prior}", "training_images")}
    for network in networks:
        distances = _feature_distances(compared if network is networks[0] else own, images, network)
        found |= distances
        if training_images is not None:
            best = distances[f"frechet_{network.name}_training_images"]
            reached = distances[f"frechet_{network.name}_prior_{model.config.prior}"]
            found[f"frechet_{network.name}_ratio"] = _ratio(reached, best)
        if network.name == InceptionFeatures.name:
            found["fid"] = distances[f"frechet_{network.name}_prior_{model.config.prior}"]
            found |= {"fid_num_images": len(images), "fid_resizing": InceptionFeatures.resizing}
    return {name: value for name, value in found.items() if not isinstance(value, float) or math.isfinite(value)}


@torch.no_grad()
def estimate_seconds(
    model: ImageGenerator, splits: DataSplits, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """About how long `evaluate` will take for a model of this size on the held-out images of a run.

    A few of these images are measured. The time for sliders and paths does not grow beyond their number of samples, so
    it counts as independent of the number of images.

    Args:
        model: Any model of the same size, in evaluation mode.
        splits: The images of the run.
        clock: Gives the time in seconds.

    Returns:
        The seconds that do not depend on the number of images, and those for each image.
    """
    num_heldout, networks = len(splits.heldout), open_networks()
    few = max(2, min(num_heldout, ESTIMATE_IMAGES))
    images = to_float(splits.heldout[:few])
    try:
        num_training = len(splits.train)
    except TypeError:  # a stream, which is not compared with
        num_training = 0
    training_images = splits.train[: max(few, num_training * few // num_heldout)] if num_training else None
    for network in networks:
        features.extract(network, images[:2])  # the first call is slower

    def seconds_of(work: Callable[[], Any]) -> float:
        begin = clock()
        work()
        return clock() - begin

    one_slider_sample = seconds_of(lambda: _sliders(model, 1, 0, None))
    sliders = seconds_of(lambda: _sliders(model, few, 0, None))
    slider_sample = max(0.0, sliders - one_slider_sample) / (few - 1)
    paths = seconds_of(lambda: _evenness(model, encode_all(model, images), None)) if model.has_encoder else 0.0
    everything = seconds_of(lambda: evaluate(model, images, training_images, networks=networks))
    thumbnail = 0.0
    if training_images is not None:  # all are looked at, however few held-out images there are
        thumbnail = 2 * seconds_of(lambda: metrics.thumbnails(to_float(training_images[:few]))) / few
        everything -= thumbnail * len(training_images)
    heldout_image = max(0.0, everything - paths - sliders) / few
    of_paths = min(num_heldout, 2 * INTERPOLATIONS) / few * paths
    of_sliders = sliders + (min(num_heldout, SLIDER_SAMPLES) - few) * slider_sample
    return of_paths + of_sliders + num_training * thumbnail, heldout_image


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
        for name, metric in metrics.LIKENESS.items():
            found[f"reconstruction_{name}{suffix}"] = _mean(metric.measure, groups[group], images)
    return found


def _evenness(model: ImageGenerator, latents: torch.Tensor, faces: Faces | None) -> Measures:
    """Measures of each kind of path between held-out images that the model has. One is the sharpness in the middle, as
    a ratio to that at the ends. The other is the longest of the 8 steps in pixels, as a ratio to the mean step: 1 if
    all steps are equal. Both are averaged over paths. The third is the share of images in the middle in which `faces`
    are found, as a ratio to real images."""
    starts, ends = latents[: 2 * (min(len(latents), 2 * INTERPOLATIONS) // 2)].chunk(2)  # (P, Z) each
    found: Measures = {}
    for kind in model.latent_prior.paths:
        points = model.path(starts, ends, 9, kind)  # (P, 9, Z)
        frames = _decode_all(model, points.flatten(0, 1)).unflatten(0, points.shape[:2])  # (P, 9, C, H, W)
        first, middle, last = (_mean(metrics.laplacian_variance, frames[:, place]) for place in (0, 4, 8))
        steps = frames.diff(dim=1).square().flatten(2).mean(2).sqrt()  # (P, 8)
        found[f"interpolation_{kind}_sharpness_middle_ratio"] = _ratio(2 * middle, first + last)
        found[f"interpolation_{kind}_step_unevenness"] = (steps.max(1).values / steps.mean(1)).mean().item()
        if faces is not None:
            found[f"interpolation_{kind}_faces_found_ratio"] = faces.ratio(frames[:, 4])
    return found


@torch.no_grad()
def _sliders(model: ImageGenerator, num_samples: int, seed: int, faces: Faces | None) -> Measures:
    """How much each of the first components changes the structure of samples, from -2 to +2 standard deviations, as a
    ratio to the change from one sample to another. Beside it stands the share of images at both ends in which `faces`
    are found, as a ratio to real images."""
    prior, generator = model.latent_prior, torch.Generator().manual_seed(seed)
    latents = model.sample_latents(num_samples, generator)  # (B, Z)
    samples, noise = _decode_all(model, latents), prior.noise_of_code(latents)
    between = metrics.structure_change(samples, samples.roll(1, 0)).mean().item()
    strengths, shares = [], []
    for component in range(min(len(prior.sliders.stds), SLIDERS)):
        direction = F.one_hot(torch.tensor(component, device=latents.device)).expand(num_samples, -1)
        low, high = (_decode_all(model, prior.move(latents, value * direction, noise=noise)) for value in SLIDER_ENDS)
        strengths.append(_ratio(metrics.structure_change(low, high).mean().item(), between))
        shares += [faces.ratio(end) for end in (low, high)] if faces is not None else []
    found: Measures = {"slider_strength_median": statistics.median(strengths)}
    found |= {f"slider_strength_component_{number}": strength for number, strength in enumerate(strengths, 1)}
    if shares:
        found["slider_faces_found_ratio"] = statistics.fmean(shares)
    return found


def _sharpness(groups: dict[str, torch.Tensor], images: torch.Tensor) -> Measures:
    found: Measures = {}
    for name, metric in metrics.SHARPNESS.items():
        of_real = _each(metric.measure, images)
        real = of_real.mean().item()
        found[f"{name}_real"] = real
        found |= real_spread(name, of_real)
        for group, values in groups.items():
            value = _mean(metric.measure, values)
            found |= {f"{name}_{group}": value, f"{name}_{group}_ratio": _ratio(value, real)}
    spectrum = metrics.radial_power_spectrum(images).mean(0)
    found |= {f"spectrum_band_{band}_real": power.item() for band, power in enumerate(spectrum, 1)}
    for group, values in groups.items():
        ratios = metrics.radial_power_spectrum(values).mean(0) / spectrum
        found |= {f"spectrum_band_{band}_{group}_ratio": ratio.item() for band, ratio in enumerate(ratios, 1)}
    return found


def real_spread(name: str, values: torch.Tensor) -> dict[str, float]:
    """How much a measure differs between real images: the 10th and the 90th percentile of its `values` `(N,)`, as
    ratios to their mean."""
    mean = values.mean().item()
    return {
        f"{name}_real_percentile_{percentile}_ratio": _ratio(values.quantile(percentile / 100).item(), mean)
        for percentile in REAL_PERCENTILES
    }


def _variety(samples: torch.Tensor, images: torch.Tensor, training_images: torch.Tensor | None) -> Measures:
    found: Measures = {}
    samples, images = (_evenly(group, DISTANCE_IMAGES) for group in (samples, images))
    for name, metric in metrics.VARIETY.items():
        real, sampled = metric.measure(images), metric.measure(samples)
        found |= {f"{name}_real": real, f"{name}_samples": sampled}
        found[f"{name}_samples_ratio"] = _ratio(sampled, real)
    if training_images is not None:
        views = (view for batch in training_images.split(ENCODE_BATCH) for view in (batch, batch.flip(3)))
        seen = torch.cat([metrics.thumbnails(to_float(view)) for view in views])
        real, sampled = (metrics.nearest_reference_distance(group, seen) for group in (images, samples))
        found |= {"training_distance_real": real, "training_distance_samples": sampled}
        found["training_distance_samples_ratio"] = _ratio(sampled, real)
    return found


def _feature_distances(groups: dict[str, torch.Tensor], images: torch.Tensor, network: Features) -> dict[str, float]:
    references = features.extract(network, images)
    found: dict[str, float] = {}
    for group, values in groups.items():
        extracted = features.extract(network, values)
        for name, metric in metrics.DISTANCES.items():
            found[f"{name}_{network.name}_{group}"] = metric.measure(extracted, references)
    return found


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else math.nan


def _evenly(images: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of the images, evenly spread over them."""
    return images[torch.linspace(0, len(images) - 1, min(len(images), most)).long()]


def _mean(measure: Callable[..., torch.Tensor], *groups: torch.Tensor) -> float:
    """The mean over images of a measure of one group, or of pairs of two."""
    return _each(measure, *groups).mean().item()


def _each(measure: Callable[..., torch.Tensor], *groups: torch.Tensor) -> torch.Tensor:
    """A measure of each image of one group, or of each pair of two: `(N,)`."""
    batches = list(zip(*(group.split(MEASURE_BATCH) for group in groups), strict=True))
    progress = tqdm(batches, desc=f"Measuring {measure.__name__}", **PROGRESS)
    return torch.cat([measure(*batch) for batch in progress])


def _sample_all(model: ImageGenerator, num_images: int, prior: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    counts = [min(ENCODE_BATCH, num_images - first) for first in range(0, num_images, ENCODE_BATCH)]
    batches = tqdm(counts, desc=f"Sampling, {prior} prior", **PROGRESS)
    return torch.cat([model.sample(count, generator, prior=prior).cpu() for count in batches])


def _decode_all(model: ImageGenerator, latents: torch.Tensor) -> torch.Tensor:
    batches = tqdm(latents.split(ENCODE_BATCH), desc="Decoding", **PROGRESS)
    return torch.cat([model.decode(batch).sample.float().cpu() for batch in batches]).clamp(-1, 1)


def evaluate_folder(
    folder: Path,
    data: DataConfig,
    save: bool = True,
    networks: Sequence[Features] | None = None,
    splits: DataSplits | None = None,
    num_heldout: int | None = None,
) -> Measures:
    """Measures the model in `folder` on its held-out images, as `evaluate` does, and writes `metrics.json` if `save`.
    `splits` are the images of its run if they are in memory already; otherwise those of `data` are loaded. If
    `num_heldout` is given, at most so many of the held-out images are measured, evenly spread over them. What
    `hf-vae directions` measured stays in the file.

    Raises:
        ValueError: If the folder has no model, or `data` does not have the images of its run.
    """
    model = AutoGenerator.from_pretrained(folder).to(device_to_use())
    if splits is None:
        splits = open_recorded(folder, data, model.config.image_size, model.config.image_channels)
    # distances to a part of the training images would be too large
    is_whole = not data.streaming and len(splits.train) == len(splits.split.train)
    training_images = splits.train[:] if is_whole else None
    heldout = splits.heldout[:] if num_heldout is None else _evenly(splits.heldout[:], num_heldout)
    found = evaluate(model, to_float(heldout), training_images, networks=networks)
    if save:
        save_metrics(found | _label_measures(folder), folder)
    return found


def _label_measures(folder: Path) -> Measures:
    """What was measured of the labelled directions in `folder`."""
    if not ((folder / DIRECTIONS_FILE).is_file() and (folder / METRICS_FILE).is_file()):
        return {}
    return {k: v for k, v in read_json(folder, METRICS_FILE).items() if k.startswith(LABEL_MEASURES)}


def open_recorded(folder: Path, data: DataConfig, image_size: int, image_channels: int) -> DataSplits:
    """The training and held-out images of `data`, as the run in `folder` recorded its split.

    Raises:
        ValueError: If they are not the images of the run, or cannot be used.
    """
    split = read_split(folder)
    if data.streaming:
        if split is None:
            raise ValueError(f"{folder} has no {SPLIT_FILE}: the held-out images of the stream are not known.")
        return open_stream(data, image_size, image_channels, split)
    if split is None:
        split = _unrecorded_split(folder, load_images(data, image_size, image_channels), data)
    return load_images(data, image_size, image_channels, split)


def _unrecorded_split(folder: Path, found: DataSplits, data: DataConfig) -> Split:
    """The split of a model of the first edition. It recorded none; only the counts can be compared."""
    if not (folder / FACTS_FILE).is_file():
        raise ValueError(f"{folder} has no {SPLIT_FILE}: its training images are not known.")
    split = first_edition_split(found.digests, data.validation_fraction, data.split_seed)
    recorded = read_json(folder, FACTS_FILE)["pictures"]
    if (recorded["train"], recorded["heldout"]) != (len(split.train), len(split.heldout)):
        raise ValueError(
            f"{folder} has no {SPLIT_FILE}, and its dataset had {recorded['train']} training and "
            f"{recorded['heldout']} held-out images instead of {len(split.train)} and {len(split.heldout)}: its "
            "training images are not known. Pass its own dataset with --train_data_dir."
        )
    print(f"{folder} has no {SPLIT_FILE}: its split is right only if the dataset has not changed, nor the file order.")
    return split
