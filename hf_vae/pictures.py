"""PIL images to tensors in [-1, 1] and back, for training and the Space alike, and the images that users pass in."""

import os
import re
from collections.abc import Iterable, Mapping
from io import IOBase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from .models.loading import refuse_lfs_pointer


ImageLike = Image.Image | str | os.PathLike | np.ndarray | torch.Tensor

# The content of a file decides, and not its name. Pillow decodes these formats by itself, tells them from their first
# bytes, and finds one size in their header. EPS is not among them, as it runs a program, nor ICO with its many sizes.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI", "TGA")
MAX_PIXELS = 100_000_000  # of an image; only JPEGs can be decoded at a smaller size
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")
CHANNELS = (1, 3, 4)
MODES = {1: "L", 3: "RGB"}
GRID_COLUMNS = 8


def square_picture(
    picture: Image.Image, size: int, channels: int = 3, crop_box: tuple[int, int, int, int] | None = None
) -> Image.Image:
    """Turns any image into a square one of `size` pixels, in RGB (`channels=3`) or greyscale (`channels=1`).

    EXIF rotation is applied, and transparent parts become white. Then the image is cropped to `crop_box` (left, top,
    right, bottom, in pixels) if given, and to the largest centred square, and resized with Lanczos.

    Raises:
        ValueError: If `channels` is neither 1 nor 3, or `crop_box` does not lie inside the image.
    """
    mode = picture_mode(channels)
    picture = upright_picture(picture)
    if crop_box is not None:
        left, top, right, bottom = crop_box
        if not (0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height):
            raise ValueError(
                f"crop_box={tuple(crop_box)} does not lie inside an image of {picture.width}x{picture.height}."
            )
        picture = picture.crop((left, top, right, bottom))
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return picture.convert(mode)


def picture_mode(channels: int) -> str:
    """Pillow's mode for 1 channel (greyscale) or 3 channels (colour).

    Raises:
        ValueError: If `channels` is any other number.
    """
    if channels not in MODES:
        raise ValueError(f"image_channels={channels} is not possible; choose 1 (greyscale) or 3 (colour).")
    return MODES[channels]


def refuse_crop_box(crop_box: tuple[int, int, int, int] | None) -> None:
    """Refuses a crop box that fits into no image, however large.

    Raises:
        ValueError: If an edge is negative, left is not below right, or top is not below bottom.
    """
    left, top, right, bottom = crop_box or (0, 0, 1, 1)
    if not (0 <= left < right and 0 <= top < bottom):
        raise ValueError(
            f"crop_box={crop_box} is not possible; it must be left, top, right and bottom in pixels, with left below "
            "right and top below bottom."
        )


def upright_picture(picture: Image.Image) -> Image.Image:
    """An image of the same shape in RGB: rotated as its EXIF data says, and white where it was transparent."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 or 32 bits: Pillow clips these on conversion instead of scaling them
        picture = picture.convert("I").point(lambda value: value / 257).convert("L")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def picture_to_uint8(picture: Image.Image) -> torch.Tensor:
    """A PIL image to a uint8 tensor `(C, H, W)`."""
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return values.view(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 values of any shape to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_pictures(images: torch.Tensor, output_size: int | None = None) -> list[Image.Image]:
    """Images `(B, C, H, W)` in [-1, 1] to PIL images. Values outside of that range are clipped. The PIL images are
    resized with Lanczos to `output_size` pixels if that differs from their size."""
    values = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pictures = [Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()) for image in values]
    if output_size and output_size != images.shape[-1]:
        pictures = [picture.resize((output_size, output_size), Image.Resampling.LANCZOS) for picture in pictures]
    return pictures


def picture_grid(pictures: list[Image.Image], columns: int = GRID_COLUMNS) -> Image.Image:
    """PIL images of one size, side by side in rows of `columns`, without gaps."""
    columns = min(columns, len(pictures))
    width, height = pictures[0].size
    grid = Image.new(pictures[0].mode, (columns * width, -(-len(pictures) // columns) * height))
    for number, picture in enumerate(pictures):
        grid.paste(picture, (number % columns * width, number // columns * height))
    return grid


def to_pil_images(given: ImageLike | Iterable[ImageLike]) -> list[Image.Image]:
    """Converts one image or several to PIL images.

    Paths are opened with `open_image`. Arrays have the shape `(H, W)`, `(H, W, C)` or `(B, H, W, C)`, and tensors
    `(H, W)`, `(C, H, W)` or `(B, C, H, W)`. Both are uint8, with 1, 3 or 4 channels.

    Raises:
        TypeError: If `given` is of another type.
        ValueError: If an array or tensor has another shape or type, there is no image, or an image has no pixels; and
            as `open_image`.
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
    """Converts exactly one image to a PIL image.

    Raises:
        TypeError: As `to_pil_images`.
        ValueError: As `to_pil_images`, or if there are several images.
    """
    images = to_pil_images(given)
    if len(images) > 1:
        raise ValueError(f"One image is needed here; got {len(images)}.")
    return images[0]


def open_image(path: str | os.PathLike) -> Image.Image:
    """Reads an image file. A leading `~` stands for the home folder.

    Raises:
        ValueError: If there is no file at `path`, or it is not an image in one of `IMAGE_FORMATS`, has more than
            `MAX_PIXELS` pixels, or is damaged.
    """
    file = Path(os.path.expanduser(path))
    if not os.path.exists(file):  # os.path.exists also takes a text that is too long for a name
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
    except Exception as error:  # Pillow passes on errors of every kind from its decoders
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
            "or 0, to 1 or 255. Convert it to torch.uint8, from 0 to 255; hf_vae.pictures.to_pictures makes PIL "
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
