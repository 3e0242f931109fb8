"""Faces that OpenCV's cascades find in images: how many samples are whole."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from .metrics import luma


if TYPE_CHECKING:
    import cv2


@dataclass(frozen=True)
class Cascade:
    """A detector of OpenCV's (Viola and Jones 2001) and how strict it is.

    Args:
        file: Its name in OpenCV's package.
        min_neighbors: A face needs more detections than this, at slightly different places and sizes. docs/measures.md
            has the figures that it was chosen by.
    """

    file: str
    min_neighbors: int


CASCADES = {
    "human faces": Cascade("haarcascade_frontalface_alt2.xml", 6),
    "cat faces": Cascade("haarcascade_frontalcatface_extended.xml", 3),
}
SEARCH_EDGE = 192  # pixels; images are searched at this size
BORDER = SEARCH_EDGE // 3  # around that, because the box that a cascade looks for may be larger than a crop
SMALLEST_FACE = SEARCH_EDGE * 2 // 3
SCALE_STEP = 1.05
BATCH = 64
CHOICE_IMAGES = 200  # enough to tell which cascade suits a dataset
LEAST_SHARE = 0.5  # of real images; below, the images are of something else


@dataclass(frozen=True)
class Faces:
    """The faces of a dataset.

    Args:
        kind: Which of `CASCADES` finds them.
        share_real: The share of the real images in which it does.
    """

    kind: str
    share_real: float

    def share(self, images: torch.Tensor) -> float:
        """The share of images `(N, C, H, W)` in [-1, 1] in which a face is found."""
        return contain_faces(images, self.kind).double().mean().item()

    def ratio(self, images: torch.Tensor) -> float:
        """The same as a ratio to the real images."""
        return self.share(images) / self.share_real


def find_faces(images: torch.Tensor) -> Faces | None:
    """The faces in real images `(N, C, H, W)` in [-1, 1]: those of the kind that is found more often. None if they are
    found in less than half of the images.

    Raises:
        ValueError: As `open_cascade` does.
    """
    some = images[torch.linspace(0, len(images) - 1, min(len(images), CHOICE_IMAGES)).long()]
    kind = max(CASCADES, key=lambda kind: contain_faces(some, kind).sum().item())
    faces = Faces(kind, contain_faces(images, kind).double().mean().item())
    return faces if faces.share_real >= LEAST_SHARE else None


def contain_faces(images: torch.Tensor, kind: str) -> torch.Tensor:
    """Whether the cascade of a `kind` finds a face in each of the images `(N, C, H, W)` in [-1, 1]: `(N,)`, bool. They
    are searched in grey, resized to 192x192 pixels, in a border that repeats their edges. A face fills at least two
    thirds of an image's edge.

    Raises:
        ValueError: As `open_cascade` does.
    """
    found = [_contains_face(grey, kind) for batch in images.split(BATCH) for grey in _search_images(batch)]
    return torch.tensor(found, dtype=torch.bool)


def _search_images(images: torch.Tensor) -> np.ndarray:
    size = (SEARCH_EDGE, SEARCH_EDGE)
    grey = F.interpolate(luma(images)[:, None], size, mode="bicubic", antialias=True)
    grey = F.pad(grey, (BORDER,) * 4, mode="replicate")
    return grey[:, 0].round().clamp(0, 255).byte().cpu().numpy()  # (B, 320, 320)


def _contains_face(grey: np.ndarray, kind: str) -> bool:
    cascade = CASCADES[kind]
    smallest = (SMALLEST_FACE, SMALLEST_FACE)
    return len(open_cascade(kind).detectMultiScale(grey, SCALE_STEP, cascade.min_neighbors, minSize=smallest)) > 0


@cache
def open_cascade(kind: str) -> "cv2.CascadeClassifier":
    """The cascade of a `kind` in `CASCADES`.

    Raises:
        ValueError: If OpenCV is not installed, or has no cascades, as OpenCV 5.
    """
    try:
        import cv2
        from cv2.data import haarcascades

        return cv2.CascadeClassifier(haarcascades + CASCADES[kind].file)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            "Faces are found with OpenCV 4, which is not installed: pip install 'opencv-python-headless>=4.10,<5', or "
            "all of the extra hf_vae[metrics]."
        ) from error


def open_cascades() -> None:
    """Opens every cascade, so that a missing package is noticed before any work.

    Raises:
        ValueError: As `open_cascade` does.
    """
    for kind in CASCADES:
        open_cascade(kind)
