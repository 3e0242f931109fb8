"""An untrusted file to a picture that is safe to work with."""

from pathlib import Path

from PIL import Image, UnidentifiedImageError


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000  # phones take pictures of 48 megapixels
MAX_EDGE = 2048

# Pillow's own limit, for what a header does not tell: a GIF frame may be larger than the canvas it announces
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class UploadError(ValueError):
    """A file that is not opened; the message is one sentence for the person who sent it."""


def open_upload(path: str | Path) -> Image.Image:
    """Decodes the first frame of a picture, scaled down to at most `MAX_EDGE` pixels an edge.

    EXIF rotation and transparency are left in: `hf_vae.transforms.square_picture` deals with both.

    Raises:
        UploadError: If the file is no JPEG, PNG, WebP, GIF or BMP, has more than `MAX_PIXELS` pixels, or is broken.
    """
    too_large = UploadError(f"This picture has more than {MAX_PIXELS // 10**6} megapixels; choose a smaller one.")
    try:
        picture = Image.open(path, formats=FORMATS)  # reads the header only
        if picture.width * picture.height > MAX_PIXELS:
            raise too_large
        picture.draft(None, (MAX_EDGE, MAX_EDGE))  # a JPEG is decoded at a fraction of its size
        picture.load()
        picture.thumbnail((MAX_EDGE, MAX_EDGE))
    except UploadError:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except UnidentifiedImageError:
        raise UploadError("This file is no JPEG, PNG, WebP, GIF or BMP picture; choose one that is.") from None
    except Exception:  # what Pillow raises on broken data depends on the format and is not documented
        raise UploadError("This picture is damaged and cannot be read; choose another one.") from None
    return picture
