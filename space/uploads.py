"""An untrusted file to a picture that is safe to work with."""

from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000  # of a plain JPEG, which is decoded at a fraction of its size; phones take 48 megapixels
MAX_PIXELS_DECODED = 20_000_000  # of what is decoded whole, progressive JPEGs too: what takes less than a second
MAX_EDGE = 2048

# Pillow's own limit, for what a header does not tell: a GIF frame may be larger than the canvas it announces
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class UploadError(ValueError):
    """A file that is not opened; the message is one sentence for the person who sent it."""


def open_upload(path: str | Path) -> Image.Image:
    """Decodes the first frame of a picture, scaled down to at most `MAX_EDGE` pixels an edge.

    EXIF rotation and transparency are left in: `hf_vae.pictures.square_picture` deals with both.

    Raises:
        UploadError: If the file is no JPEG, PNG, WebP, GIF or BMP, has more than `MAX_PIXELS_DECODED` pixels
            (`MAX_PIXELS` in a JPEG that is not progressive), or is broken.
    """
    too_large = UploadError(
        f"This picture is too large: a plain JPEG may have {MAX_PIXELS // 10**6} megapixels and any other picture "
        f"{MAX_PIXELS_DECODED // 10**6}; choose a smaller one."
    )
    try:
        picture = Image.open(path, formats=FORMATS)  # reads the header only
        is_scaled = picture.format == "JPEG" and "progressive" not in picture.info
        if picture.width * picture.height > (MAX_PIXELS if is_scaled else MAX_PIXELS_DECODED):
            raise too_large
        picture.draft(None, (MAX_EDGE, MAX_EDGE))  # a JPEG is decoded at a fraction of its size
        picture.load()
        # for a first rough scaling Pillow has no code for 16 bits
        picture.thumbnail((MAX_EDGE, MAX_EDGE), reducing_gap=None if picture.mode.startswith("I;16") else 2.0)
        ImageOps.exif_transpose(picture)  # fails on damaged EXIF, here and not when it is done for good
    except UploadError:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except UnidentifiedImageError:
        raise UploadError("This file is no JPEG, PNG, WebP, GIF or BMP picture; choose one that is.") from None
    except Exception:  # what Pillow raises on broken data depends on the format and is not documented
        raise UploadError("This picture is damaged and cannot be read; choose another one.") from None
    return picture
