"""Learns directions of latent space from labels: linear probes on the latents of the training images."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from ..data.cached import DataSplits, ImageSet
from ..models import ImageGenerator, LatentPrior
from ..pictures import to_float
from .directions import Direction
from .encoding import ENCODE_BATCH, encode_all


MAX_CLASSES = 10  # of a label whose values are words; more of them are names, not a direction
MIN_PICTURES = 10  # of either side, in training and held out
REGULARISATION = 0.01  # inverse strength; the probe sees unit variances


def fit_directions(model: ImageGenerator, splits: DataSplits, labels: dict[str, list[Any]]) -> list[Direction]:
    """Fits a logistic regression for each label to the latents' `coordinates` along the principal components, on the
    training images, and measures it on those held out. Both sides of a label have the same weight, however many images
    they have.

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
        _fit(model.latent_prior, train, heldout, splits, name, *side)
        for name, values in labels.items()
        for side in _sides(name, values, splits.train.indices.tolist())
    ]


def _coordinates(model: ImageGenerator, images: ImageSet) -> np.ndarray:
    batches = torch.arange(len(images)).split(ENCODE_BATCH)
    encoded = torch.cat([encode_all(model, to_float(images[positions])) for positions in batches])
    return model.latent_prior.coordinates(encoded[:, : model.config.latent_dim]).cpu().double().numpy()


def _sides(name: str, values: list[Any], training: list[int]) -> Iterator[tuple[str, str, list[bool | None]]]:
    """The two sides to tell apart in a column: their names, and for each image whether it is on the second side."""
    found = {value for value in values if value is not None}
    if len(found) < 2:
        raise ValueError(f"The label {name!r} has {len(found)} different values; a direction needs at least two.")
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in found):
        middle = float(np.median([values[index] for index in training if values[index] is not None]))
        above = [None if value is None else value > middle for value in values]
        yield f"{name} up to {middle:g}", f"{name} above {middle:g}", above
        return
    if len(found) > MAX_CLASSES:
        raise ValueError(
            f"The label {name!r} has {len(found)} different values, more than {MAX_CLASSES}: it names images "
            "instead of describing them."
        )
    low, *others = sorted(found, key=str)
    for high in others if len(found) == 2 else [low, *others]:
        name_of_low = str(low) if len(found) == 2 else f"not {high}"
        yield name_of_low, str(high), [None if value is None else value == high for value in values]


def _fit(
    prior: LatentPrior,
    train: np.ndarray,
    heldout: np.ndarray,
    splits: DataSplits,
    name: str,
    low: str,
    high: str,
    is_high: list[bool | None],
) -> Direction:
    groups = []
    for images, coordinates in ((splits.train, train), (splits.heldout, heldout)):
        wanted = [is_high[index] for index in images.indices.tolist()]
        labelled = np.array([value is not None for value in wanted])
        groups.append((coordinates[labelled], np.array([value for value in wanted if value is not None], dtype=bool)))
        counts = (int((~groups[-1][1]).sum()), int(groups[-1][1].sum()))
        if min(counts) < MIN_PICTURES:
            raise ValueError(
                f"The label {name!r} has {counts[0]} images of {low!r} and {counts[1]} of {high!r} "
                f"{'to train on' if images is splits.train else 'held out'}; a probe needs {MIN_PICTURES} of each."
            )
    probe = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=1000).fit(*groups[0])
    accuracy = balanced_accuracy_score(groups[1][1], probe.predict(groups[1][0]))
    towards = torch.from_numpy(probe.coef_[0] / np.linalg.norm(probe.coef_[0])).to(prior.stds)
    return Direction(name, low, high, float(accuracy), len(groups[1][1]), (towards * prior.stds) @ prior.directions)
