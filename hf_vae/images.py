"""What people give as an image - a PIL image, a path, an array or a tensor of bytes - as PIL images."""

import os
import re
from collections.abc import Iterable, Mapping
from io import IOBase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from .models.loading import refuse_lfs_pointer


ImageLike = Image.Image | str | os.PathLike | np.ndarray | torch.Tensor

# Read by content, whatever a name says: what Pillow decodes by itself and tells from its first bytes, with one size in
# its header. None calls another program, as EPS does, or holds images of other sizes, as ICO does.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI", "TGA")
MAX_PIXELS = 100_000_000  # of an image, as it is decoded whole unless it is a JPEG
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")
CHANNELS = (1, 3, 4)


def to_pil_images(given: ImageLike | Iterable[ImageLike]) -> list[Image.Image]:
    """One image or several as PIL images. Paths are opened with `open_image`. Arrays are `(H, W)`, `(H, W, C)` or
    `(B, H, W, C)` and tensors `(H, W)`, `(C, H, W)` or `(B, C, H, W)`, both uint8, of 1, 3 or 4 channels.

    Raises:
        TypeError: If something else is given.
        ValueError: If an array or tensor has another shape or type, there is no image or one without pixels, or as in
            `open_image`.
    """
    if isinstance(given, Image.Image | str | os.PathLike | np.ndarray | torch.Tensor):
        return _images_of(given)
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray | IOBase | Mapping):
        raise _wrong_type(given)
    images = [image for each in given for image in _images_of(each)]
    if not images:
        raise ValueError("There is no image in what was given; give at least one.")
    return images


def to_pil_image(given: ImageLike) -> Image.Image:
    """The same for what must be one image.

    Raises:
        TypeError: As `to_pil_images` does.
        ValueError: As `to_pil_images` does, or if there are several.
    """
    images = to_pil_images(given)
    if len(images) > 1:
        raise ValueError(f"One image is needed here; got {len(images)}.")
    return images[0]


def open_image(path: str | os.PathLike) -> Image.Image:
    """Reads an image file. A `~` in front is the home folder.

    Raises:
        ValueError: If there is no file at `path`, or it is not an image of `IMAGE_FORMATS`, has more than `MAX_PIXELS`
            pixels or is damaged.
    """
    file = Path(os.path.expanduser(path))
    if not os.path.exists(file):  # which also takes what is too long for a name
        if ADDRESS.match(str(path)):
            raise ValueError(
                f"{str(path)[:200]} is an address, and addresses are not fetched: download the file and give its path."
            )
        raise ValueError(f"{str(path)[:200]} does not exist; give the path of an image file.")
    if not file.is_file():
        raise ValueError(f"{path} is not a file; give the paths of image files.")
    refuse_lfs_pointer(file, "image")
    try:
        image = Image.open(file, formats=IMAGE_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} is more than {MAX_PIXELS // 10**6} megapixels")
        image.load()
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{path} is not an image in a format that is read here ({', '.join(IMAGE_FORMATS)}); convert it to PNG."
        ) from error
    except Exception as error:  # Pillow raises whatever its decoders run into
        raise ValueError(f"{path} is not an image that can be read: {error}") from error
    return image


def _images_of(given: Any) -> list[Image.Image]:
    if isinstance(given, str | os.PathLike):
        return [open_image(given)]
    if isinstance(given, Image.Image):
        if 0 in given.size:
            raise ValueError(f"An image of {given.width}x{given.height} pixels has none; give another one.")
        return [given]
    if isinstance(given, torch.Tensor):
        return _images_of_tensor(given)
    if isinstance(given, np.ndarray):
        return _images_of_array(given)
    raise _wrong_type(given)


def _images_of_tensor(tensor: torch.Tensor) -> list[Image.Image]:
    if tensor.dtype != torch.uint8:
        raise ValueError(
            f"A tensor of {tensor.dtype} is not taken as an image, as it does not say whether its values run from -1 "
            "or 0, to 1 or 255. Convert it to torch.uint8, from 0 to 255; hf_vae.transforms.to_pictures makes PIL "
            "images of (B, C, H, W) in [-1, 1]."
        )
    if tensor.ndim not in (2, 3, 4) or tensor.ndim > 2 and tensor.shape[-3] not in CHANNELS or not tensor.numel():
        raise ValueError(
            f"A tensor of shape {tuple(tensor.shape)} is not an image: (H, W), (C, H, W) or (B, C, H, W) is, with 1, "
            "3 or 4 channels C."
        )
    return _images_of_array((tensor if tensor.ndim == 2 else tensor.movedim(-3, -1)).cpu().numpy())


def _images_of_array(array: np.ndarray) -> list[Image.Image]:
    if array.dtype != np.uint8:
        raise ValueError(
            f"An array of {array.dtype} is not taken as an image, as it does not say whether its values run from -1 "
            "or 0, to 1 or 255. Convert it to numpy.uint8, from 0 to 255."
        )
    if array.ndim not in (2, 3, 4) or array.ndim > 2 and array.shape[-1] not in CHANNELS or not array.size:
        raise ValueError(
            f"An array of shape {array.shape} is not an image: (H, W), (H, W, C) or (B, H, W, C) is, with 1, 3 or 4 "
            "channels C."
        )
    arrays = array if array.ndim == 4 else [array]
    return [Image.fromarray(each.squeeze(2) if each.ndim == 3 and each.shape[2] == 1 else each) for each in arrays]


def _wrong_type(given: Any) -> TypeError:
    return TypeError(
        f"An image cannot be of type {type(given).__name__}: give PIL images, e.g. Image.open(path), paths, or uint8 "
        "arrays (H, W, 3)."
    )
