"""Decodes image files to uint8 images, finds copies and broken files, and counts them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import islice
from typing import NamedTuple, cast

import torch
from PIL import Image, UnidentifiedImageError

from ..models.loading import LFS_POINTER
from ..pictures import IMAGE_FORMATS, MAX_PIXELS, picture_mode, picture_to_uint8, square_picture, upright_picture
from .messages import LFS_HINT, printable


BROKEN_SHARE_LIMIT = 0.01
MIN_USABLE = 3  # one image to train on, two to hold out
LISTED_BROKEN = 50  # broken files that an error names
DIGEST_LETTERS = 16  # of the SHA-256 of a file: 64 bits tell millions of images apart
DECODE_CHUNK = 256  # files that are in memory at a time, encoded and decoded


class Looks(NamedTuple):
    """What the header of an image says: width and height in pixels, Pillow's mode, and the format."""

    size: tuple[int, int]
    mode: str
    format: str


class DecodedFile(NamedTuple):
    """One file of a source: an image, a copy of an earlier file, or broken.

    Args:
        name: Its name in the source, with unprintable characters spelled out.
        digest: The first 16 hexadecimal digits of the SHA-256 of its content; empty if it has no content.
        image: uint8 `(C, H, W)`; None for a copy and for a broken file.
        looks: What its header says; None for a broken file.
        problem: A line that names the file and what is wrong with it; None for an image and for a copy.
    """

    name: str
    digest: str
    image: torch.Tensor | None
    looks: Looks | None
    problem: str | None


@dataclass
class Tally:
    """Counts the files of a source as they are decoded.

    Args:
        read: Files so far.
        copies: Files with the content of an earlier one.
        broken: How often each line about a broken file came up, in the order of the first time.
    """

    read: int = 0
    copies: int = 0
    broken: Counter[str] = field(default_factory=Counter)

    @property
    def num_broken(self) -> int:
        """Files that do not decode. The same file counts again each time it is read."""
        return self.broken.total()

    @property
    def usable(self) -> int:
        """Distinct images."""
        return self.read - self.copies - self.num_broken

    def count(self, file: DecodedFile) -> bool:
        """Counts a file. Returns whether it holds an image, and not a copy of an earlier one."""
        self.read += 1
        self.copies += file.image is None and file.problem is None
        if file.problem:
            self.broken[file.problem] += 1
        return file.image is not None

    @property
    def is_trainable(self) -> bool:
        """Whether training takes a source with these counts."""
        return not self.too_many_broken() and self.usable >= MIN_USABLE

    def too_many_broken(self, judged_after: int = 0) -> bool:
        """Whether more than 1% of the files are broken.

        Args:
            judged_after: The share is taken of at least this many files: two of the first ten may be bad luck.
        """
        return self.num_broken > BROKEN_SHARE_LIMIT * max(self.read, judged_after)

    def refuse_broken(self, judged_after: int = 0) -> None:
        """Refuses a source of which more than 1% is broken.

        Raises:
            ValueError: If `too_many_broken(judged_after)`; the message lists the broken files.
        """
        if self.too_many_broken(judged_after):
            listing = "\n  ".join(islice(self.broken, LISTED_BROKEN))
            raise ValueError(
                f"{self.num_broken} of {self.read} images cannot be used, more than {BROKEN_SHARE_LIMIT:.0%}. Remove "
                f"or replace them:\n  {listing}"
            )

    def refuse_unusable(self) -> None:
        """Refuses a source, all of which was counted, that cannot be trained on.

        Raises:
            ValueError: If it is not `is_trainable`; the message lists the broken files or the number of images.
        """
        self.refuse_broken()
        if not self.is_trainable:
            raise ValueError(
                f"Distinct images found: {self.usable}; at least {MIN_USABLE} are needed, one to train on and two to "
                "hold out."
            )


def content_digest(content: bytes | str) -> str:
    """The start of the SHA-256 of a file's content, in hexadecimal digits; empty if there is no content."""
    return "" if isinstance(content, str) else hashlib.sha256(content).hexdigest()[:DIGEST_LETTERS]


def decode_files(
    files: Iterable[tuple[str, bytes | str]],
    image_size: int,
    channels: int,
    crop_box: tuple[int, int, int, int] | None,
) -> Iterator[DecodedFile]:
    """Decodes files in their order, and each content only once.

    A file that cannot be decoded is broken, however many others have the same content: only images have copies.

    Args:
        files: `(name, content)` each; the content of a file that is not read is a line that says why.
        image_size: Width and height of the decoded images, in pixels.
        channels: 1 (greyscale) or 3 (colour).
        crop_box: Left, top, right and bottom of the part that is used, in pixels.
    """
    decode = partial(decode_content, image_size=image_size, channels=channels, crop_box=crop_box)
    known: dict[str, Looks | str] = {}  # for each content, what it looks like, or what is wrong with it
    distinct_looks: dict[Looks, Looks] = {}  # kept once each, as there are few
    files = iter(files)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(files, DECODE_CHUNK)):
            digests = [content_digest(content) for _, content in chunk]
            fresh = {
                digest: content
                for digest, (_, content) in zip(digests, chunk, strict=True)
                if not isinstance(content, str) and digest not in known
            }
            images: dict[str, torch.Tensor] = {}
            for digest, found in zip(fresh, pool.map(decode, fresh.values()), strict=True):
                if isinstance(found, str):
                    known[digest] = found
                else:
                    images[digest], looks = found
                    known[digest] = distinct_looks.setdefault(looks, looks)
            for digest, (name, content) in zip(digests, chunk, strict=True):
                seen = content if isinstance(content, str) else known[digest]
                if isinstance(seen, str):
                    yield _broken(name, digest, seen)
                else:  # the first file with this content takes the image, and the others are its copies
                    yield DecodedFile(printable(name), digest, images.pop(digest, None), seen, None)


def decode_file(
    name: str, content: bytes | str, image_size: int, channels: int, crop_box: tuple[int, int, int, int] | None
) -> DecodedFile:
    """Decodes one file, without a look at others. For the arguments see `decode_files`."""
    digest = content_digest(content)
    found = content if isinstance(content, str) else decode_content(content, image_size, channels, crop_box)
    return (
        _broken(name, digest, found) if isinstance(found, str) else DecodedFile(printable(name), digest, *found, None)
    )


def _broken(name: str, digest: str, reason: str) -> DecodedFile:
    name = printable(name)
    return DecodedFile(name, digest, None, None, f"{name}: {reason}")


def decode_content(
    content: bytes, image_size: int, channels: int, crop_box: tuple[int, int, int, int] | None
) -> tuple[torch.Tensor, Looks] | str:
    """Decodes the content of a file, and crops and resizes the image. Of several frames the first is taken.

    Returns:
        The image, uint8 `(C, H, W)`, and what its header says; or a line that says what is wrong with it.
    """
    if content.startswith(LFS_POINTER):
        return LFS_HINT
    try:
        with Image.open(BytesIO(content), formats=IMAGE_FORMATS) as picture:
            looks = Looks(picture.size, picture.mode, cast(str, picture.format))  # known of a file that is opened
            _refuse_unusual(picture)
            if crop_box is None:  # which counts pixels; else a large JPEG is decoded at a fraction of its size
                picture.draft(picture_mode(channels), (2 * image_size, 2 * image_size))
            return picture_to_uint8(square_picture(picture, image_size, channels, crop_box)), looks
    except Exception as error:  # Pillow raises whatever its decoders run into: any of it means a broken file
        return _reason(error, content)


def decode_whole(content: bytes | str) -> Image.Image | str:
    """Decodes the content of a file at its own size, upright and in RGB. Of several frames the first is taken. The
    content of a file that is not read is a line that says why.

    Returns:
        The image, or a line that says what is wrong with it.
    """
    if isinstance(content, str):
        return content
    if content.startswith(LFS_POINTER):
        return LFS_HINT
    try:
        with Image.open(BytesIO(content), formats=IMAGE_FORMATS) as picture:
            _refuse_unusual(picture)
            return upright_picture(picture)
    except Exception as error:
        return _reason(error, content)


def _refuse_unusual(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(f"{picture.width}x{picture.height} is more than {MAX_PIXELS // 10**6} megapixels")
    if picture.mode == "F" or (picture.mode == "I" and not _has_16_bits(picture)):
        raise ValueError("holds values whose range is not known; save it with 8 or 16 bits")


def _reason(error: Exception, content: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not a {', '.join(IMAGE_FORMATS)} image" if content else "the file is empty"
    return str(error) or type(error).__name__


def _has_16_bits(picture: Image.Image) -> bool:
    lowest, highest = cast(tuple[float, float], picture.getextrema())  # a pair, as there is one channel
    return lowest >= 0 and highest < 2**16
