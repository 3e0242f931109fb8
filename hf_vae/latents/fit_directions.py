"""Learns from labels: directions of latent space by linear probes, and the code given the labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from ..data.cached import DataSplits, ImageSet
from ..models import ImageGenerator, LatentPrior
from ..models.priors import CODE
from ..pictures import to_float
from .directions import Direction
from .encoding import ENCODE_BATCH, encode_all
from .labelled_codes import LabelledCodes, are_numbers
from .sliders import slider_coordinates


MAX_CLASSES = 10  # of a label whose values are words; more of them are names, not a direction
MIN_PICTURES = 10  # of either side, in training and held out
REGULARISATION = 0.01  # inverse strength; the probe sees unit variances


def fit_directions(model: ImageGenerator, splits: DataSplits, labels: dict[str, list[Any]]) -> list[Direction]:
    """Fits a direction for each label on the training images, and measures on those held out how well a logistic
    regression tells its sides apart. Both sides of a label have the same weight, however many images they have.

    In a model with a code, the logistic regression sees the code. The direction is the difference between the mean
    codes of both sides: +1 is the way from the mean of one to the mean of the other, and +2 leads from one side to
    well beyond the other. Between two halves of a label whose values are numbers, it is the covariance of the code and
    the standardised number, times 2: +1 is the way between numbers that are two standard deviations apart. Such a
    direction changes more of an image than the normal of the regression, which ignores what others tell as well.

    In other models, the logistic regression sees the latents' `coordinates` along the principal components. The
    direction is its normal, and +1 is one standard deviation of the latents.

    Args:
        model: One with an encoder and a fitted prior.
        splits: The data, from `load_images`; not a stream.
        labels: A label for each of `splits.train.images`, None where there is none, by column: see
            `labels.load_labels`. Numbers are split at their median over the training images. Two words give one
            direction; more words give one each, against all others.

    Raises:
        ValueError: If the model has no encoder, or a column has only one value, more than ten words, or too few
            images of either side.
    """
    if not model.has_encoder:
        raise ValueError(
            f"A {type(model).__name__} has no encoder, so it cannot tell where labels lie in its latent space."
        )
    train, heldout = (_coordinates(model, images) for images in (splits.train, splits.heldout))
    return [
        _fit(model.latent_prior, train, heldout, splits, side)
        for name, values in labels.items()
        for side in sides(name, values, splits.train.indices.tolist())
    ]


def fit_labelled_codes(
    model: ImageGenerator, splits: DataSplits, labels: dict[str, list[Any]], seed: int = 0
) -> LabelledCodes:
    """Fits the code given the labels to draws of the codes of the training images. The arguments are those of
    `fit_directions`; the model has a code.

    Raises:
        ValueError: As `LabelledCodes.fit` does.
    """
    training = splits.train.indices.tolist()
    codes = _encoded(model, splits.train, torch.Generator().manual_seed(seed))
    return LabelledCodes.fit(codes, {name: [values[index] for index in training] for name, values in labels.items()})


@torch.no_grad()
def _encoded(model: ImageGenerator, images: ImageSet, generator: torch.Generator | None = None) -> torch.Tensor:
    """Where images lie along what sliders move, in standard deviations: the principal components of the code if the
    model has one, else those of the latents. With a `generator`, latents and code are draws, else means."""
    found = []
    for positions in torch.arange(len(images)).split(ENCODE_BATCH):
        latents = encode_all(model, to_float(images[positions]), generator)[:, : model.config.latent_dim]
        found.append(slider_coordinates(model, latents, generator))
    return torch.cat(found).cpu().double()


def _coordinates(model: ImageGenerator, images: ImageSet) -> np.ndarray:
    return _encoded(model, images).numpy()


@dataclass(frozen=True)
class Sides:
    """The two sides of a direction.

    Args:
        name: The column of labels.
        low: Name of the first side.
        high: Name of the second.
        is_high: For each image whether it is on the second side, None where it has no label.
        numbers: The numbers that were split, None where an image has none; None if the values are words.
        middle: Where they were split; None if the values are words.
    """

    name: str
    low: str
    high: str
    is_high: list[bool | None]
    numbers: list[float | None] | None = None
    middle: float | None = None


def sides(name: str, values: list[Any], training: list[int]) -> Iterator[Sides]:
    """What to tell apart in a column of labels, one pair of sides for each direction. `training` are the indices of
    the training images.

    Raises:
        ValueError: If the column has only one value, or more than ten words.
    """
    found = {value for value in values if value is not None}
    if len(found) < 2:
        raise ValueError(f"The label {name!r} has {len(found)} different values; a direction needs at least two.")
    if are_numbers(found):
        middle = float(np.median([values[index] for index in training if values[index] is not None]))
        above = [None if value is None else value > middle for value in values]
        yield Sides(name, f"{name} up to {middle:g}", f"{name} above {middle:g}", above, values, middle)
        return
    if len(found) > MAX_CLASSES:
        raise ValueError(
            f"The label {name!r} has {len(found)} different values, more than {MAX_CLASSES}: it names images "
            "instead of describing them."
        )
    low, *others = sorted(found, key=str)
    for high in others if len(found) == 2 else [low, *others]:
        name_of_low = str(low) if len(found) == 2 else f"not {high}"
        yield Sides(name, name_of_low, str(high), [None if value is None else value == high for value in values])


def _fit(prior: LatentPrior, train: np.ndarray, heldout: np.ndarray, splits: DataSplits, side: Sides) -> Direction:
    groups = []
    for images, coordinates in ((splits.train, train), (splits.heldout, heldout)):
        wanted = [side.is_high[index] for index in images.indices.tolist()]
        labelled = np.array([value is not None for value in wanted])
        groups.append((coordinates[labelled], np.array([value for value in wanted if value is not None], dtype=bool)))
        counts = (int((~groups[-1][1]).sum()), int(groups[-1][1].sum()))
        if min(counts) < MIN_PICTURES:
            raise ValueError(
                f"The label {side.name!r} has {counts[0]} images of {side.low!r} and {counts[1]} of {side.high!r} "
                f"{'to train on' if images is splits.train else 'held out'}; a probe needs {MIN_PICTURES} of each."
            )
    probe = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=1000).fit(*groups[0])
    accuracy = balanced_accuracy_score(groups[1][1], probe.predict(groups[1][0]))
    if CODE in prior.kinds:
        vector = torch.from_numpy(_step(*groups[0], splits, side)).to(prior.stds)
    else:
        towards = torch.from_numpy(probe.coef_[0] / np.linalg.norm(probe.coef_[0])).to(prior.stds)
        vector = (towards * prior.stds) @ prior.directions
    return Direction(side.name, side.low, side.high, float(accuracy), len(groups[1][1]), vector)


def _step(coordinates: np.ndarray, is_high: np.ndarray, splits: DataSplits, side: Sides) -> np.ndarray:
    """One step of a slider along the code `(K,)`, from coordinates `(N, K)` of the labelled training images."""
    if side.numbers is None:
        return coordinates[is_high].mean(0) - coordinates[~is_high].mean(0)
    taken = [side.numbers[index] for index in splits.train.indices.tolist()]
    numbers = np.array([number for number in taken if number is not None], dtype=float)
    standardised = (numbers - numbers.mean()) / numbers.std()
    return 2 * standardised @ coordinates / len(coordinates)
