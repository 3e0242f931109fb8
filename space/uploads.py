"""Opens untrusted files as images of a bounded size."""

import math
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000  # of a baseline JPEG, which is decoded at a reduced size; phones take 48 megapixels
MAX_PIXELS_DECODED = 20_000_000  # of any other file, progressive JPEGs included: decoded within a second
MAX_EDGE = 2048

# Pillow's own limit, for sizes that a header does not give: a GIF frame may be larger than its canvas
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class UploadError(ValueError):
    """The file is refused; the message is meant for the sender."""


def open_upload(path: str | Path) -> Image.Image:
    """Decodes the first frame of an image and scales it down until neither edge is longer than `MAX_EDGE` pixels.

    EXIF rotation and transparency remain: `hf_vae.pictures.square_picture` handles both.

    Raises:
        UploadError: If the file is not a JPEG, PNG, WebP, GIF or BMP, is damaged, or has more than
            `MAX_PIXELS_DECODED` pixels (`MAX_PIXELS` for a baseline JPEG).
    """
    too_large = UploadError(
        f"This image is too large. The limit is {MAX_PIXELS // 10**6} megapixels for a baseline JPEG and "
        f"{MAX_PIXELS_DECODED // 10**6} for any other image."
    )
    try:
        picture: Image.Image = Image.open(path, formats=FORMATS)  # reads only the header
        is_scaled = picture.format == "JPEG" and "progressive" not in picture.info
        if picture.width * picture.height > (MAX_PIXELS if is_scaled else MAX_PIXELS_DECODED):
            raise too_large
        picture.draft(None, (MAX_EDGE, MAX_EDGE))  # decodes a JPEG at a reduced size
        picture.load()
        factor = math.ceil(max(picture.size) / MAX_EDGE)
        if factor > 1 and picture.mode in ("LA", "RGBA"):  # Pillow's thumbnail does not reduce these in two steps
            picture = picture.reduce(factor)  # in one step
        # nor can it reduce 16-bit images
        picture.thumbnail((MAX_EDGE, MAX_EDGE), reducing_gap=None if picture.mode.startswith("I;16") else 2.0)
        ImageOps.exif_transpose(picture)  # damaged EXIF fails here rather than later
    except UploadError:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except UnidentifiedImageError:
        raise UploadError("This file is not a JPEG, PNG, WebP, GIF or BMP image; choose another file.") from None
    except Exception:  # Pillow does not document what it raises on damaged data
        raise UploadError("This image is damaged and cannot be read; choose another file.") from None
    return picture
