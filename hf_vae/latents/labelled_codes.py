"""The code of an image given its labels: one Gaussian of both. `fit_directions` has what it is fitted to."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as short_repr
from typing import Any

import torch


RIDGE = 1e-3  # added to the variance of each feature, as a share of it; words that exclude each other need some
MIN_LABELLED = 20  # images
LABEL_GUIDANCE = 4.0  # model_cards/EXPERIMENTS.md has what others give
LABEL_REACH = 3.0  # standard deviations of the code: guidance moves its mean no further


@dataclass(frozen=True)
class NumberLabel:
    """A label whose values are numbers. Its features are the standardised number and the square of that, so that the
    code may differ most at either end.

    Args:
        name: The column of labels.
        mean: Of the training images.
        std: Of the training images, above 0.
        lowest: The smallest number among the training images.
        highest: The largest.
    """

    name: str
    mean: float
    std: float
    lowest: float
    highest: float

    num_features = 2

    @property
    def allowed(self) -> str:
        """The values that it can have, in words."""
        return f"a number from {self.lowest:g} to {self.highest:g}"

    def features(self, value: Any) -> list[float]:
        """The features of a number, or of the text of one.

        Raises:
            ValueError: If it is another value than the `allowed` ones.
        """
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not self.lowest <= number <= self.highest:  # NaN is in no range
            raise ValueError(f"The label {self.name!r} is {short_repr(value)}; it must be {self.allowed}.")
        standardised = (number - self.mean) / self.std
        return [standardised, standardised**2]


@dataclass(frozen=True)
class WordLabel:
    """A label whose values are words. It has one feature for each word: 1 for the image's own, 0 for the others.

    Args:
        name: The column of labels.
        words: Its values, sorted.
    """

    name: str
    words: tuple[str, ...]

    @property
    def num_features(self) -> int:
        return len(self.words)

    @property
    def allowed(self) -> str:
        """The values that it can have, in words."""
        return f"one of: {', '.join(self.words)}"

    def features(self, value: Any) -> list[float]:
        """The features of a word.

        Raises:
            ValueError: If it is another value than the `allowed` ones.
        """
        if str(value) not in self.words:
            raise ValueError(f"The label {self.name!r} is {short_repr(value)}; it must be {self.allowed}.")
        return [float(word == str(value)) for word in self.words]


Label = NumberLabel | WordLabel


def are_numbers(values: Iterable[Any]) -> bool:
    """Whether all values of a label are numbers, and not words."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


@dataclass(frozen=True)
class LabelledCodes:
    """A Gaussian of the codes of the training images together with the features of their labels. The code given some
    of the labels is then a Gaussian too, whose mean is linear in their features.

    Args:
        labels: The labels, in the order of their features.
        mean: `(K + F,)`: of the K numbers of the code, along its principal components in standard deviations, and of
            the F features.
        root: A root R `(K + F, K + F)` of the covariance R R^T. Any matrix is one, so that a file cannot hold an
            impossible covariance.
    """

    labels: tuple[Label, ...]
    mean: torch.Tensor
    root: torch.Tensor

    @classmethod
    def fit(cls, codes: torch.Tensor, columns: Mapping[str, Sequence[Any]]) -> "LabelledCodes":
        """Fits it to the images that have all of the labels.

        Args:
            codes: `(N, K)`: a draw from the posterior of each code, along its principal components in standard
                deviations.
            columns: A value for each of the N images, None where there is none, by label.

        Raises:
            ValueError: If fewer than 20 images have all of the labels, or a label has only one value among them.
        """
        complete = [all(value is not None for value in row) for row in zip(*columns.values(), strict=True)]
        if sum(complete) < MIN_LABELLED:
            raise ValueError(
                f"{sum(complete)} training images have all of the labels {', '.join(columns)}; samples on request "
                f"need {MIN_LABELLED}."
            )
        chosen = {
            name: [value for value, wanted in zip(values, complete, strict=True) if wanted]
            for name, values in columns.items()
        }
        labels = tuple(_label(name, values) for name, values in chosen.items())
        features = [
            sum((label.features(value) for label, value in zip(labels, row, strict=True)), [])
            for row in zip(*chosen.values(), strict=True)
        ]
        both = torch.cat(
            [codes[torch.tensor(complete)].cpu().double(), torch.tensor(features).double()], 1
        )  # (N, K + F)
        return cls(labels, both.mean(0).float(), _root(both.T.cov()).float())

    @property
    def code_dim(self) -> int:
        """K, the numbers of the code."""
        return len(self.mean) - sum(label.num_features for label in self.labels)

    def given(
        self, wanted: Mapping[str, Any], label_guidance: float = LABEL_GUIDANCE
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The Gaussian of the code given some of the labels: its mean `(K,)`, and a root R `(K, K)` of its covariance
        R R^T. The root is the symmetric one, so that the same noise gives codes that are alike whatever is wanted.

        `label_guidance` is how far the labels move the mean, as a multiple of how far they do among the training
        images. Above 1, more of the samples visibly have the labels, as with the guidance of diffusion models (Ho and
        Salimans 2022). It moves the mean by at most three standard deviations, or as far as among the training images.

        Raises:
            ValueError: If there is no such label, or it cannot have the value. If `label_guidance` is below 0, or not
                finite.
        """
        if not (math.isfinite(label_guidance) and label_guidance >= 0):
            raise ValueError(f"label_guidance={label_guidance} is not possible; it must be a number of at least 0.")
        names = [label.name for label in self.labels]
        for name in wanted:
            if name not in names:
                raise ValueError(f"There is no label {name!r}; this model has {', '.join(names)}.")
        mean, covariance, size = self.mean.double(), self.root.double() @ self.root.double().T, self.code_dim
        places: list[int] = []
        values: list[float] = []
        first = size
        for label in self.labels:
            if label.name in wanted:
                places += range(first, first + label.num_features)
                values += label.features(wanted[label.name])
            first += label.num_features
        features = covariance[places][:, places]
        tiny = torch.finfo(torch.float32).tiny
        ridge = (RIDGE * features.diagonal()).clamp(min=tiny).diag()
        gain = torch.linalg.solve(features + ridge, covariance[places, :size]).T  # (K, features)
        shift = gain @ (torch.tensor(values).double() - mean[places])
        reach = LABEL_REACH / shift.norm().clamp(min=tiny).item()
        code_mean = mean[:size] + min(label_guidance, max(1.0, reach)) * shift
        code_covariance = covariance[:size, :size] - gain @ covariance[places, :size]
        return code_mean.float(), _root(code_covariance).float()


def _label(name: str, values: Sequence[Any]) -> Label:
    found = set(values)
    if len(found) < 2:
        raise ValueError(f"The label {name!r} has {len(found)} different values; samples on request need two.")
    if not are_numbers(found):
        return WordLabel(name, tuple(sorted(map(str, found))))
    numbers = torch.tensor(values).double()
    return NumberLabel(name, numbers.mean().item(), numbers.std().item(), numbers.min().item(), numbers.max().item())


def _root(covariance: torch.Tensor) -> torch.Tensor:
    """The symmetric root of a covariance. Variances below 0, as rounding leaves them, are 0."""
    variances, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * variances.clamp(min=0).sqrt()) @ vectors.T
