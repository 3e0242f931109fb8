"""What each principal component changes in samples of faces, and its name if that is one thing."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..data.landmarks import Landmarks, find_landmarks, open_network
from ..pipeline import ImagePipeline
from .metrics import luma


COMPONENTS = 10  # that are measured: those with sliders in the Space
SETS, SAMPLES = 3, 64  # of samples, and samples in each
REACH = 2.0  # standard deviations in either direction
LEAST_EFFECT = 1.0  # of the measure that names a component
MOST_OTHER = 0.6  # of this effect: the largest one of another measure that does not follow from it
NOSE = 2  # among the points of a face
CHEEK_POINTS = 7  # in either direction
LEAST_FACES = 0.5  # share of the samples; below, the model is of something else


@dataclass(frozen=True)
class FaceMeasure:
    """One thing that can be told of an image of a face. Left and right are those of the image.

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

    def words(self, effect: float) -> str:
        """The name of a component with this effect."""
        ends = (self.low, self.high) if effect > 0 else (self.high, self.low)
        return f"{self.name}, {ends[0]} to {ends[1]}"


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


MEASURES = (
    FaceMeasure("Head turn", "left", "right", _turn),
    FaceMeasure("Head tilt", "left", "right", lambda images, faces: faces.rolls),
    FaceMeasure("Nose", "short", "long", _nose),
    FaceMeasure("Smile", "less", "more", _smile),
    FaceMeasure("Face size", "small", "large", _size),
    FaceMeasure("Face length", "short", "long", _length),
    FaceMeasure("Face place", "left", "right", _place(0)),
    FaceMeasure("Face height", "high", "low", _place(1)),
    FaceMeasure("Brightness", "dark", "bright", lambda images, faces: luma(images).mean((1, 2))),
    FaceMeasure("Warmth", "cold", "warm", lambda images, faces: (images[:, 0] - images[:, -1]).mean((1, 2))),
    FaceMeasure("Contrast", "low", "high", lambda images, faces: luma(images).std((1, 2))),
    FaceMeasure("Light side", "left", "right", _light_side),
    FaceMeasure("Background", "dark", "bright", _background),
)


@dataclass(frozen=True)
class ComponentEffects:
    """What components change, measured on S independent sets of samples.

    Args:
        effects: `(S, K, M)`: in each set and for each of K components, the mean change of each of `MEASURES` from -2
            to +2 standard deviations, in standard deviations of the measure among samples.
        correlations: `(S, M, M)`: of the measures among the samples of each set.
    """

    effects: torch.Tensor
    correlations: torch.Tensor

    def names(self) -> dict[int, str]:
        """The names of those components that change one measure clearly more than all others, in every set: its
        effect is at least 1, with the same sign, and no other is above 0.6 of it. Of another effect, what follows from
        it does not count, up to the correlation of both measures among samples times its effect: a face that is turned
        lies more to one side."""
        found = {}
        for component, effects in enumerate(self.effects.unbind(1)):  # (S, M)
            place = int(effects.abs().min(0).values.argmax())
            effect = effects[:, place, None]  # (S, 1)
            follows = self.correlations[:, place] * effect  # (S, M)
            others = (effects - effects.clamp(follows.clamp(max=0), follows.clamp(min=0))).abs()
            others[:, place] = 0
            clear = (effect.abs() >= LEAST_EFFECT).all() and (others <= MOST_OTHER * effect.abs()).all()
            if clear and effect.sign().unique().numel() == 1:
                found[component] = MEASURES[place].words(effect[0].item())
        return found


def measure_components(pipeline: ImagePipeline, num_samples: int = SAMPLES, seed: int = 0) -> ComponentEffects:
    """Moves three sets of samples along the first ten components, and measures what changes in those images in which a
    face is found at both ends.

    Args:
        pipeline: A model of faces.
        num_samples: Samples in each set.
        seed: Seed of the first set; those of the others follow.

    Raises:
        ValueError: If less than half of the samples are faces, or as `open_network` does.
    """
    open_network()
    count = min(COMPONENTS, pipeline.num_components)
    sets, correlations = [], []
    with tqdm(total=SETS * count, desc="Measuring components", disable=None) as progress:
        for number in range(SETS):
            samples = pipeline.sample(num_samples, seed + number)
            values, found = _measure(samples.tensors)
            if found.double().mean() < LEAST_FACES:
                raise ValueError(
                    f"A face was found in {int(found.sum())} of {num_samples} samples. Components get names in models "
                    "of faces alone."
                )
            spread = values[found].std(0)  # (M,)
            correlations.append(values[found].T.corrcoef().nan_to_num())  # of a measure that never changes
            rows = []
            for component in range(count):
                shifts = torch.zeros(num_samples, component + 1)
                shifts[:, component] = REACH
                (low, low_found), (high, high_found) = (
                    _measure(pipeline.decode(pipeline.move(samples.latents, sign * shifts)).tensors)
                    for sign in (-1, 1)
                )
                both = low_found & high_found
                change = (high - low)[both].mean(0) if both.any() else torch.zeros(len(MEASURES))
                rows.append(torch.where(spread > 0, change / spread, 0))
                progress.update()
            sets.append(torch.stack(rows))
    return ComponentEffects(torch.stack(sets), torch.stack(correlations))


def _measure(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All measures of images `(N, M)`, and whether each has a face `(N,)`."""
    faces = find_landmarks(images)
    return torch.stack([measure.values(images, faces) for measure in MEASURES], 1), faces.found
