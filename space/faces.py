"""Finds the face in an image and crops it as the images of a dataset were cropped."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from hf_vae.evaluation.faces import open_cascade
from hf_vae.pictures import upright_picture


SEARCH_EDGE = 640  # pixels; larger images are searched at this size
LEAST_SHARE = 8  # a face is at least 1/8 of the image's shorter side


@dataclass(frozen=True)
class FaceCrop:
    """How the images of a dataset were cropped, measured with OpenCV's cascade on 100 of them.

    Args:
        kind: Which faces they are, in `hf_vae.evaluation.faces.CASCADES`.
        edge: Edge of the crop, as a multiple of the edge of the box that the cascade finds.
        below: Distance from the centre of the box down to the centre of the crop, as a multiple of the crop's edge.
    """

    kind: str
    edge: float
    below: float


CROPS = {
    "cats": FaceCrop("cat faces", edge=1.06, below=0.0),
    "lfw": FaceCrop("human faces", edge=0.83, below=0.11),
    "utkface": FaceCrop("human faces", edge=0.97, below=0.09),
}


def crop_to_face(picture: Image.Image, data_set: str) -> Image.Image | None:
    """The square around the largest face, cropped as the images of `data_set` were. None if no face is found, or if
    the dataset is not in `CROPS`."""
    crop = CROPS.get(data_set)
    if crop is None:
        return None
    picture = upright_picture(picture)
    grey = picture.convert("L")
    grey.thumbnail((SEARCH_EDGE, SEARCH_EDGE))
    least = max(8, min(grey.size) // LEAST_SHARE)
    faces = open_cascade(crop.kind).detectMultiScale(np.asarray(grey), 1.05, 4, minSize=(least, least))
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
    """The whole image, centred on a white square."""
    picture = upright_picture(picture)
    return ImageOps.pad(picture, (max(picture.size),) * 2, color="white")
