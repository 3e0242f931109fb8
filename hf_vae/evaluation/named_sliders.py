"""Sliders that change one thing in an image: fitted to samples of a model, and kept if they do in other samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..data.landmarks import Landmarks, find_landmarks, open_network
from ..latents.sliders import NamedSlider, slider_coordinates
from ..pipeline import ImagePipeline
from .metrics import luma


FITTED_SAMPLES = 1536
SETS, SAMPLES = 3, 64  # of samples to check the sliders on, and samples in each
BATCH = 64
MOST_COORDINATES = 128
RIDGE = 1 / 16  # per sample: penalty on squared coefficients, for codes and measures of variance 1
SHARED = 0.2  # how much of a measure's direction may be shared with others: 0 for none
REACH = 2.0  # standard deviations in either direction
LEAST_EFFECT = 1.0  # of what a slider is called by
MOST_OTHER = 0.6  # of this effect: the largest one of another measure that does not follow from it
NOSE = 2  # among the points of a face
CHEEK_POINTS = 7  # in either direction
LEAST_FACES = 0.5  # share of the samples; below, the model is of something else


@dataclass(frozen=True)
class Measure:
    """One thing that can be told of an image, or of a face in it. Left and right are those of the image.

    Args:
        name: What it is.
        low: How it is where the measure is low, in words.
        high: How it is where it is high.
        values: The measure `(N,)` of images `(N, C, H, W)` in [-1, 1] and the points of the faces in them.
    """

    name: str
    low: str
    high: str
    values: Callable[[torch.Tensor, Landmarks], torch.Tensor]


def _upright(faces: Landmarks) -> torch.Tensor:
    """The points `(N, 5, 2)` relative to the middle of the eyes, in distances between these, with the eyes level."""
    points = (faces.points - faces.eye_centres[:, None]) / faces.eye_distances.clamp(min=1e-3)[:, None, None]
    angle = torch.deg2rad(faces.rolls)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
    return points @ turn


def _turn(images: torch.Tensor, faces: Landmarks) -> torch.Tensor:
    return _upright(faces)[:, NOSE, 0]


def _nose(images: torch.Tensor, faces: Landmarks) -> torch.Tensor:
    points = _upright(faces)
    return points[:, NOSE, 1] / points[:, 3:, 1].mean(1).clamp(min=0.1)


def _smile(images: torch.Tensor, faces: Landmarks) -> torch.Tensor:
    points = _upright(faces)
    return (points[:, 4] - points[:, 3]).norm(dim=1)


def _size(images: torch.Tensor, faces: Landmarks) -> torch.Tensor:
    to_mouths = (faces.points[:, 3:].mean(1) - faces.eye_centres).norm(dim=1)
    return (faces.eye_distances * to_mouths).sqrt() / images.shape[-1]


def _length(images: torch.Tensor, faces: Landmarks) -> torch.Tensor:
    return _upright(faces)[:, 3:, 1].mean(1)


def _place(axis: int) -> Callable[[torch.Tensor, Landmarks], torch.Tensor]:
    return lambda images, faces: faces.points.mean(1)[:, axis] / images.shape[-1]


def _light_side(images: torch.Tensor, faces: Landmarks) -> torch.Tensor:
    left, right = (faces.points[:, [eye, NOSE, mouth]].mean(1) for eye, mouth in ((0, 3), (1, 4)))
    return _brightness_around(images, faces, right) - _brightness_around(images, faces, left)


def _brightness_around(images: torch.Tensor, faces: Landmarks, points: torch.Tensor) -> torch.Tensor:
    """The mean brightness `(N,)` of a square around one point of each face `(N, 2)`, a third as wide as the eyes are
    apart."""
    height, width = images.shape[2:]
    offsets = torch.linspace(-1 / 6, 1 / 6, CHEEK_POINTS)
    square = torch.cartesian_prod(offsets, offsets) * faces.eye_distances[:, None, None]  # (N, points, 2)
    places = 2 * (points[:, None] + square) / torch.tensor([width, height]) - 1
    found = F.grid_sample(luma(images)[:, None], places[:, None], padding_mode="border", align_corners=False)
    return found.mean((1, 2, 3))


def _background(images: torch.Tensor, faces: Landmarks) -> torch.Tensor:
    grey = luma(images)  # (N, H, W)
    edge = grey.shape[-1] // 8
    middle = grey[:, edge:-edge, edge:-edge]
    ring = (grey.sum((1, 2)) - middle.sum((1, 2))) / (grey[0].numel() - middle[0].numel())
    return ring - middle.mean((1, 2))


def _halves(images: torch.Tensor, faces: Landmarks) -> torch.Tensor:
    left, right = luma(images).chunk(2, 2)
    return right.mean((1, 2)) - left.mean((1, 2))


OF_FACES = (
    Measure("Head turn", "left", "right", _turn),
    Measure("Head tilt", "left", "right", lambda images, faces: faces.rolls),
    Measure("Nose", "short", "long", _nose),
    Measure("Smile", "less", "more", _smile),
    Measure("Face size", "small", "large", _size),
    Measure("Face length", "short", "long", _length),
    Measure("Face place", "left", "right", _place(0)),
    Measure("Face height", "high", "low", _place(1)),
    Measure("Brightness", "dark", "bright", lambda images, faces: luma(images).mean((1, 2))),
    Measure("Warmth", "cold", "warm", lambda images, faces: (images[:, 0] - images[:, -1]).mean((1, 2))),
    Measure("Contrast", "low", "high", lambda images, faces: luma(images).std((1, 2))),
    Measure("Light side", "left", "right", _light_side),
    Measure("Background", "dark", "bright", _background),
)
OF_IMAGES = (  # of anything
    *(measure for measure in OF_FACES if measure.name in ("Brightness", "Warmth", "Contrast", "Background")),
    Measure("Light side", "left", "right", _halves),
)


@dataclass(frozen=True)
class SliderEffects:
    """What sliders change, measured on S independent sets of samples. There is a slider for each of M measures.

    Args:
        effects: `(S, M, M)`: in each set and for each slider, the mean change of each measure from -2 to +2, in
            standard deviations of the measure among samples.
        correlations: `(S, M, M)`: of the measures among the samples of each set.
    """

    effects: torch.Tensor
    correlations: torch.Tensor

    def is_clear(self, slider: int) -> bool:
        """Whether a slider changes its own measure clearly more than all others in every set: its effect is at least
        1, and no other is above 0.6 of it. Of another effect, what follows from its own does not count, up to the
        correlation of both measures among samples times its own: a face that is turned also lies more to one side."""
        effects = self.effects[:, slider]  # (S, M)
        own = effects[:, slider, None]  # (S, 1)
        others = self._beyond_what_follows(slider)
        return bool((own >= LEAST_EFFECT).all() and (others <= MOST_OTHER * own).all())

    def own(self, slider: int) -> float:
        """The effect of a slider on its own measure, mean of the sets."""
        return self.effects[:, slider, slider].mean().item()

    def largest_other(self, slider: int) -> float:
        """The largest effect of a slider on another measure, of either sign, mean of the sets."""
        others = self.effects[:, slider].mean(0).abs()
        others[slider] = 0
        return others.max().item()

    def _beyond_what_follows(self, slider: int) -> torch.Tensor:
        effects = self.effects[:, slider]
        follows = self.correlations[:, slider] * effects[:, slider, None]  # (S, M)
        others = (effects - effects.clamp(follows.clamp(max=0), follows.clamp(min=0))).abs()
        others[:, slider] = 0
        return others


def fit_sliders(
    pipeline: ImagePipeline, num_samples: int = FITTED_SAMPLES, num_checked: int = SAMPLES, seed: int = 0
) -> tuple[list[NamedSlider], list[Measure], SliderEffects]:
    """Fits a slider for each thing that can be measured in an image, and checks it on three further sets of samples.

    A ridge regression tells each of M measures, in standard deviations, from where N samples lie along the principal
    components, `(N, K)`. Its coefficients are W `(M, K)`. The direction of a measure is its column of
    `W^T (W W^T + s diag(W W^T))^-1`. With s = 0 that is the shortest shift that changes this measure by one standard
    deviation and, to first order, no other. Measures that belong together in the data, such as the turn of a head and
    its place, would then need long shifts to be told apart; s = 0.2 lets them share a part. Each direction is scaled
    to unit length.

    Args:
        pipeline: A model. If faces are found in less than half of its samples, only the light in its images is
            measured.
        num_samples: Samples to fit the sliders to.
        num_checked: Samples in each of the three sets.
        seed: Seed of the samples to fit to; those of the others follow.

    Returns:
        The sliders that change one thing alone, see `SliderEffects.is_clear`, what was measured, and the effects of
        all sliders.

    Raises:
        ValueError: As `open_network` does.
    """
    open_network()
    with tqdm(total=num_samples, desc="Measuring samples", disable=None) as progress:
        samples = pipeline.sample(num_samples, seed)
        faces = _faces_in(samples.tensors, progress)
    measures = OF_FACES if faces.found.double().mean() >= LEAST_FACES else OF_IMAGES
    usable = faces.found if measures is OF_FACES else torch.ones_like(faces.found)
    values = _measured(samples.tensors[usable], faces[usable], measures)
    coordinates = slider_coordinates(pipeline.model, samples.latents[usable])[:, :MOST_COORDINATES]
    vectors = _directions(coordinates.cpu().double(), values.double())
    found = _check(pipeline, vectors, measures, num_checked, seed + 1)
    size = len(pipeline.model.latent_prior.sliders.stds)
    sliders = [
        NamedSlider(
            *(measure.name, measure.low, measure.high, found.own(number), found.largest_other(number)),
            vector=F.pad(vectors[number], (0, size - vectors.shape[1])),
        )
        for number, measure in enumerate(measures)
        if found.is_clear(number)
    ]
    return sliders, list(measures), found


def _directions(coordinates: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The direction of each measure `(M, K)`, from coordinates `(N, K)` and values `(N, M)`: see `fit_sliders`."""
    centred = coordinates - coordinates.mean(0)
    standard = (values - values.mean(0)) / values.std(0).clamp(min=torch.finfo(values.dtype).tiny)
    penalty = RIDGE * len(values) * torch.eye(centred.shape[1], dtype=values.dtype)
    coefficients = torch.linalg.solve(centred.T @ centred + penalty, centred.T @ standard).T  # (M, K)
    gram = coefficients @ coefficients.T
    directions = torch.linalg.solve(gram + SHARED * gram.diagonal().diag(), coefficients)  # (M, K)
    return F.normalize(directions, dim=1).float()


def _check(
    pipeline: ImagePipeline, vectors: torch.Tensor, measures: Sequence[Measure], num_samples: int, seed: int
) -> SliderEffects:
    """What the sliders change in three sets of samples, in those images that can be measured at both ends."""
    sets, correlations = [], []
    with tqdm(total=SETS * len(vectors), desc="Checking sliders", disable=None) as progress:
        for number in range(SETS):
            samples = pipeline.sample(num_samples, seed + number)
            values, found = _measure(samples.tensors, measures)
            spread = values[found].std(0)  # (M,)
            correlations.append(values[found].T.corrcoef().nan_to_num())  # of a measure that never changes
            rows = []
            for vector in vectors:
                (low, low_found), (high, high_found) = (
                    _measure(
                        pipeline.decode(pipeline.move(samples.latents, sign * REACH * vector[None])).tensors, measures
                    )
                    for sign in (-1, 1)
                )
                both = low_found & high_found
                change = (high - low)[both].mean(0) if both.any() else torch.zeros(len(measures))
                rows.append(torch.where(spread > 0, change / spread, 0))
                progress.update()
            sets.append(torch.stack(rows))
    return SliderEffects(torch.stack(sets), torch.stack(correlations))


def _measure(images: torch.Tensor, measures: Sequence[Measure]) -> tuple[torch.Tensor, torch.Tensor]:
    """Measures of images `(N, M)`, and whether each could be measured `(N,)`."""
    if measures is OF_FACES:
        faces = find_landmarks(images)
        return _measured(images, faces, measures), faces.found
    nowhere = Landmarks(torch.zeros(len(images), 5, 2), torch.zeros(len(images)))
    return _measured(images, nowhere, measures), torch.ones(len(images), dtype=torch.bool)


def _measured(images: torch.Tensor, faces: Landmarks, measures: Sequence[Measure]) -> torch.Tensor:
    return torch.stack([measure.values(images, faces) for measure in measures], 1)


def _faces_in(images: torch.Tensor, progress: tqdm) -> Landmarks:
    found = []
    for batch in images.split(BATCH):
        found.append(find_landmarks(batch))
        progress.update(len(batch))
    return Landmarks(*(torch.cat([getattr(each, part) for each in found]) for part in ("points", "confidence")))
