"""Where the face is in a picture, and the square around it that a model was trained on."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageOps

from hf_vae.pictures import upright_picture


SEARCH_EDGE = 640  # pixels; a larger picture is searched at this size
LEAST_SHARE = 8  # a face is at least this fraction of the picture's shorter side


@dataclass(frozen=True)
class FaceCrop:
    """How the pictures of a training set were cut, as measured with OpenCV's cascade on 100 of them.

    Args:
        cascade: The file in OpenCV's package that finds such faces.
        edge: Edge of the square, in edges of the box that the cascade finds.
        below: How far the square's centre lies below the box's, in edges of the square.
    """

    cascade: str
    edge: float
    below: float


CROPS = {
    "cats": FaceCrop("haarcascade_frontalcatface_extended.xml", edge=1.06, below=0.0),
    "lfw": FaceCrop("haarcascade_frontalface_alt2.xml", edge=0.83, below=0.11),
    "utkface": FaceCrop("haarcascade_frontalface_alt2.xml", edge=0.97, below=0.09),
}


def crop_to_face(picture: Image.Image, data_set: str) -> Image.Image | None:
    """The square around the largest face, cut as the pictures of the data set were; None if no face is found, or it is
    not known how they were cut."""
    crop = CROPS.get(data_set)
    if crop is None:
        return None
    picture = upright_picture(picture)
    grey = picture.convert("L")
    grey.thumbnail((SEARCH_EDGE, SEARCH_EDGE))
    least = max(8, min(grey.size) // LEAST_SHARE)
    faces = _cascade(crop.cascade).detectMultiScale(np.asarray(grey), 1.05, 4, minSize=(least, least))
    if len(faces) == 0:
        return None
    left, top, width, _ = max(faces, key=lambda face: face[2]) * (picture.width / grey.width)
    edge = min(crop.edge * width, *picture.size)
    center_x, center_y = left + width / 2, top + width / 2 + crop.below * edge
    left, top = (
        round(min(max(0, center - edge / 2), length - edge))
        for center, length in zip((center_x, center_y), picture.size, strict=True)
    )
    return picture.crop((left, top, left + round(edge), top + round(edge)))


def whole_picture(picture: Image.Image) -> Image.Image:
    """All of a picture on a white square."""
    picture = upright_picture(picture)
    return ImageOps.pad(picture, (max(picture.size),) * 2, color="white")


@cache
def _cascade(name: str) -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(cv2.data.haarcascades + name)
