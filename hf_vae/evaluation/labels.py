"""How often a sample has what was asked for, and what label sliders change: by probes that were trained apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from ..data.cached import DataSplits, ImageSet
from ..latents.directions import Direction
from ..latents.encoding import ENCODE_BATCH
from ..latents.fit_directions import sides
from ..latents.labelled_codes import are_numbers
from ..pictures import to_float
from ..pipeline import ImagePipeline
from ..run_folder import METRICS_FILE, read_json, save_metrics
from .evaluate import LABEL_MEASURES, PROGRESS, Measures
from .features import Features, extract


SAMPLES = 256  # for each value that is asked for
NUMBERS = 5  # asked for, evenly spaced between two quantiles of the training images
QUANTILES = (0.1, 0.9)
SLIDER_STEP = 2.0  # of a label slider
PROBE_IMAGES = 4000  # at most, evenly spread
INVERSE_STRENGTH = 0.001  # of the regularisation of a logistic regression on standardised features
RIDGES = tuple(10.0**power for power in range(1, 7))


@dataclass(frozen=True)
class Probe:
    """Tells a label of images from their features: a logistic regression of words, a ridge regression of numbers.

    Args:
        name: The column of labels.
        model: What was fitted to the training images.
        is_number: Whether the values are numbers.
        score: On the held-out images: the balanced accuracy of words, or the mean absolute error of numbers.
    """

    name: str
    model: Pipeline
    is_number: bool
    score: float

    def __call__(self, features: torch.Tensor) -> np.ndarray:
        """The values `(N,)` of images with the features `(N, F)`."""
        return self.model.predict(features.numpy())


class SliderMeasures(NamedTuple):
    """What two steps of a label slider change.

    Args:
        direction: The slider's.
        flips: The share of samples on its low side that the probe sees on the high side afterwards. NaN if the probe
            sees no sample on the low side.
        change: The mean change of the features of these samples, as a ratio to the mean difference between two
            samples.
    """

    direction: Direction
    flips: float
    change: float


def measure_labels(
    pipeline: ImagePipeline,
    splits: DataSplits,
    labels: dict[str, list[Any]],
    directions: Sequence[Direction],
    network: Features,
    seed: int = 0,
) -> tuple[Measures, list[SliderMeasures]]:
    """Measures samples on request and label sliders of a model with a code.

    A probe of each label learns from the features of the training images, which knew nothing of the model. It then
    judges 256 samples for each word, or for each of five numbers between the 10th and the 90th percentile.

    Args:
        pipeline: The model with its `codes`.
        splits: The images that these were fitted on.
        labels: As in `fit_directions`.
        directions: What `fit_directions` gave for them.
        network: Gives the features.
        seed: Seed of the samples.

    Returns:
        The measures by their names in `metrics.json`, and those of each slider.
    """
    probes = fit_probes(network, splits, labels)
    found: Measures = {}
    for name, probe in probes.items():
        kind = "error" if probe.is_number else "accuracy"
        found[f"{LABEL_MEASURES}{name}_probe_{kind}"] = probe.score
        training = [labels[name][index] for index in splits.train.indices.tolist()]
        score = _measure_requests(pipeline, probe, [value for value in training if value is not None], network, seed)
        found[f"{LABEL_MEASURES}{name}_samples_{kind}"] = score
    sliders = _measure_sliders(pipeline, splits, labels, directions, probes, network, seed)
    for name in probes:
        own = [each for each in sliders if each.direction.name == name and not math.isnan(each.flips)]
        if own:
            found[f"{LABEL_MEASURES}{name}_slider_flips"] = float(np.mean([each.flips for each in own]))
            found[f"{LABEL_MEASURES}{name}_slider_change"] = float(np.mean([each.change for each in own]))
    return found, sliders


def save_label_measures(found: Measures, folder: Path) -> None:
    """Writes the measures into the `metrics.json` of a folder, instead of those of other labels.

    Raises:
        ValueError: If there is no such file.
    """
    others = {k: v for k, v in read_json(folder, METRICS_FILE).items() if not k.startswith(LABEL_MEASURES)}
    save_metrics(others | found, folder)


def fit_probes(network: Features, splits: DataSplits, labels: dict[str, list[Any]]) -> dict[str, Probe]:
    """Fits a probe of each label to the features of at most 4,000 training images, evenly spread, and measures it on
    as many held-out images. The features of an image are computed once for all labels."""
    groups = [_features(network, images) for images in (splits.train, splits.heldout)]
    return {name: _fit_probe(name, values, groups) for name, values in labels.items()}


def _features(network: Features, images: ImageSet) -> tuple[torch.Tensor, list[int]]:
    """The features `(N, F)` of images, and their places in a column of labels."""
    chosen = torch.linspace(0, len(images) - 1, min(len(images), PROBE_IMAGES)).long()
    batches = tqdm(chosen.split(ENCODE_BATCH), desc="Extracting features", **PROGRESS)
    features = torch.cat([extract(network, to_float(images[positions]).cpu()) for positions in batches])
    return features, images.indices[chosen].tolist()


def _fit_probe(name: str, values: list[Any], groups: list[tuple[torch.Tensor, list[int]]]) -> Probe:
    is_number = are_numbers(value for value in values if value is not None)
    sets = []
    for features, places in groups:
        labelled = torch.tensor([values[place] is not None for place in places])
        wanted = [values[place] for place in places if values[place] is not None]
        sets.append((features[labelled].numpy(), np.array(wanted if is_number else list(map(str, wanted)))))
    (seen, answers), (unseen, truth) = sets
    if is_number:
        model = make_pipeline(StandardScaler(), RidgeCV(RIDGES)).fit(seen, answers)
        return Probe(name, model, True, float(np.abs(model.predict(unseen) - truth).mean()))
    regression = LogisticRegression(C=INVERSE_STRENGTH, class_weight="balanced", max_iter=1000)
    model = make_pipeline(StandardScaler(), regression).fit(seen, answers)
    return Probe(name, model, False, float(balanced_accuracy_score(truth, model.predict(unseen))))


def _measure_requests(
    pipeline: ImagePipeline, probe: Probe, training: list[Any], network: Features, seed: int
) -> float:
    """The mean absolute error of samples that were asked for numbers, or the share of samples that have the word that
    they were asked for, as a mean over words."""
    if probe.is_number:
        lowest, highest = np.quantile(training, QUANTILES)
        asked: list[Any] = np.linspace(lowest, highest, NUMBERS).tolist()
    else:
        asked = sorted(set(map(str, training)))
    scores = []
    for number, value in enumerate(tqdm(asked, desc=f"Sampling by {probe.name}", **PROGRESS)):
        samples = pipeline.sample(SAMPLES, seed + number * SAMPLES, labels={probe.name: value})
        seen = probe(extract(network, samples.tensors))
        scores.append(np.abs(seen - value).mean() if probe.is_number else (seen == value).mean())
    return float(np.mean(scores))


def _measure_sliders(
    pipeline: ImagePipeline,
    splits: DataSplits,
    labels: dict[str, list[Any]],
    directions: Sequence[Direction],
    probes: dict[str, Probe],
    network: Features,
    seed: int,
) -> list[SliderMeasures]:
    samples = pipeline.sample(SAMPLES, seed)
    features = extract(network, samples.tensors)
    between = (features - features.roll(1, 0)).norm(dim=1).mean()
    training = splits.train.indices.tolist()
    middles = [side.middle for name, values in labels.items() for side in sides(name, values, training)]
    found = []
    pairs = list(zip(directions, middles, strict=True))
    for direction, middle in tqdm(pairs, desc="Moving along labels", **PROGRESS):
        probe = probes[direction.name]
        is_low = torch.from_numpy(~_is_high(probe(features), direction, middle))
        if not is_low.any():
            found.append(SliderMeasures(direction, math.nan, math.nan))
            continue
        latents = samples.latents[is_low.to(samples.latents.device)]
        steps = SLIDER_STEP * direction.vector.to(latents).expand(len(latents), -1)
        moved = extract(network, pipeline.decode(pipeline.shift(latents, steps)).tensors)
        change = (moved - features[is_low]).norm(dim=1).mean() / between
        flips = _is_high(probe(moved), direction, middle).mean()
        found.append(SliderMeasures(direction, float(flips), change.item()))
    return found


def _is_high(values: np.ndarray, direction: Direction, middle: float | None) -> np.ndarray:
    return values == direction.high if middle is None else values > middle
