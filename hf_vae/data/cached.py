"""The pictures of a source, decoded once to uint8, cached on disk, and split."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ..atomic import flush_to_disk
from ..config import DataConfig
from ..models.loading import LFS_POINTER
from ..pictures import IMAGE_FORMATS, MAX_PIXELS, picture_mode, picture_to_uint8, square_picture, to_float
from .listing import LFS_HINT, printable
from .presets import with_preset
from .sources import Source, open_source
from .split import Split, draw_split, positions, refuse_other_images


BROKEN_SHARE_LIMIT = 0.01
MIN_USABLE = 3
CACHE_VERSION = 4
DIGEST_LETTERS = 16  # of the SHA-256 of a file, kept for each image: 64 bits tell millions of images apart
DECODE_CHUNK = 256  # pictures decoded between two writes: what bounds memory while a cache is built


@dataclass(frozen=True)
class ImageSet:
    """Decoded images and which of them to use.

    Args:
        images: uint8 `(N, C, H, W)`, mapped from the cache file, or on the device after `to`.
        indices: The rows of `images` that belong to this set.
    """

    images: torch.Tensor
    indices: torch.Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, positions: torch.Tensor | slice) -> torch.Tensor:
        """The images at `positions` of this set: uint8 `(B, C, H, W)`."""
        return self.images[self.indices[positions].to(self.images.device)]

    def batches(self, num_images: int, batch_size: int = 256) -> Iterator[torch.Tensor]:
        """`num_images` of this set, evenly spread, or all if there are fewer: floats `(B, C, H, W)` in [-1, 1]."""
        count = min(num_images, len(self))
        chosen = torch.arange(count) * len(self) // count
        return (to_float(self[positions]) for positions in chosen.split(batch_size))

    def training_batches(
        self, batch_size: int, seed: int, first_image: int = 0, rank: int = 0, num_ranks: int = 1
    ) -> Iterator[torch.Tensor]:
        """This rank's share of one batch after the other, without end: uint8 `(batch_size, C, H, W)`.

        All batches of all ranks are consecutive pieces of one endless row of permutations, one for each epoch, seeded
        by run and epoch. So every picture is seen once an epoch whatever the sizes are, and a run goes on where it was
        by starting at `first_image`, the number of images that all ranks have seen before.
        """
        start = first_image + rank * batch_size
        while True:
            places = torch.arange(start, start + batch_size)
            epochs = places // len(self)
            positions = torch.cat(
                [
                    _permutation(len(self), seed, epoch)[places[epochs == epoch] % len(self)]
                    for epoch in epochs.unique().tolist()
                ]
            )
            yield self[positions]
            start += num_ranks * batch_size

    def to(self, device: torch.device) -> "ImageSet":
        """The same set with its images on `device`, if that is a GPU with four times the room; else as it is."""
        if device.type != "cuda" or 4 * self.images.nbytes > torch.cuda.mem_get_info(device)[0]:
            return self
        return replace(self, images=self.images.to(device))


@lru_cache(maxsize=2)
def _permutation(num_images: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(num_images, generator=torch.Generator().manual_seed(seed + 1_000_003 * (epoch + 1)))


@dataclass(frozen=True)
class DataSplits:
    """The training and held-out pictures of a source, and what was found in it.

    Args:
        train: What is trained on: an `ImageSet`, or an `ImageStream`, which has its methods but no length.
        heldout: What is measured on.
        facts: Counts for the log and the card: `pictures_found, duplicates_dropped, broken_skipped, train, heldout`;
            of a stream `heldout` alone. If files were left out, `left_out` says how many for each reason.
        split: The images on either side, by their content: what a run records.
        rows: The place in the source of each of the decoded images, which `labels` needs; empty of a stream.
        digests: The first 16 hexadecimal digits of the SHA-256 of each decoded image's file; empty of a stream.
    """

    train: Any
    heldout: ImageSet
    facts: dict[str, Any]
    split: Split
    rows: tuple[int, ...] = ()
    digests: tuple[str, ...] = ()


def load_images(
    data: DataConfig,
    image_size: int,
    image_channels: int,
    split: Split | None = None,
    exact: bool = False,
    known: Split | None = None,
) -> DataSplits:
    """Loads the images that `data` names, from the cache if they were decoded before, and splits them.

    Files that do not decode are skipped; exact copies of an image are dropped, and both are counted. The cache lies
    under `HF_VAE_CACHE` (default `~/.cache/hf_vae`), in a folder named by a fingerprint of the source and the
    transform. One that is not as it was written is built again.

    Args:
        data: Where the images are. Its `validation_fraction` and `split_seed` draw a split where none is given.
        image_size: Edge of the square images, in pixels.
        image_channels: 3 for colour, 1 for greyscale.
        split: The split that a run recorded. The images must be those of the run.
        exact: Whether new and missing images are refused, as for a run that is resumed; see `refuse_other_images`.
        known: The split of a model that the run starts from, whose images stay on their side.

    Raises:
        ValueError: If `data` names no source or two, the source or its image column does not exist, more than 1% of
            the files cannot be used, or there are too few pictures to train on some and hold out others.
        OSError: If a file cannot be read, or the cache not be written. Nothing of it is left then.
    """
    picture_mode(image_channels)  # refuses a number of channels that no picture has, before any picture is blamed
    data = with_preset(data)
    source = open_source(data)
    recipe = [CACHE_VERSION, source.fingerprint, image_size, image_channels, data.crop_box]
    fingerprint = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:24]
    folder = _cache_folder() / fingerprint
    for notice in source.notices:
        print(notice)
    facts = _read_facts(folder) or _build_cache(source, folder, image_size, image_channels, data.crop_box)
    facts |= {"left_out": source.left_out} if source.left_out else {}
    rows, digests, names = (tuple(facts.pop(key)) for key in ("rows", "digests", "names"))
    shape = (facts.pop("images"), image_channels, image_size, image_size)
    images = torch.from_file(str(folder / "images.uint8"), size=math.prod(shape), dtype=torch.uint8).view(shape)

    if split is None:
        split = draw_split(digests, data.validation_fraction, data.split_seed, known)
    else:
        place = data.train_data_dir or data.dataset_name
        refuse_other_images(split, digests, names, place, exact)
    train, heldout = positions(digests, split.train), positions(digests, split.heldout)
    facts |= {"train": len(train), "heldout": len(heldout)}
    return DataSplits(ImageSet(images, train), ImageSet(images, heldout), facts, split, rows, digests)


def _cache_folder() -> Path:
    try:
        return Path(os.environ.get("HF_VAE_CACHE") or Path.home() / ".cache" / "hf_vae").expanduser()
    except RuntimeError as error:  # a user without a home, as in a container
        raise ValueError(f"There is no place for a cache: {error} Set HF_VAE_CACHE to a folder.") from error


def _read_facts(folder: Path) -> dict[str, Any] | None:
    """The facts of a cache; None if there is none, or it is not as it was written and has been removed."""
    try:
        if not folder.is_dir():
            return None
    except OSError:  # which the attempt to build it explains
        return None
    try:
        facts = json.loads((folder / "facts.json").read_text())
        with open(folder / "images.uint8", "rb") as images:
            is_whole = facts.pop("sha256") == hashlib.file_digest(images, "sha256").hexdigest()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_whole = False
    if is_whole:
        return facts
    print(f"The cache {folder} is not as it was written: it is removed, and the pictures are decoded again.")
    shutil.rmtree(folder, ignore_errors=True)  # another process may be at it, too
    return None


def _build_cache(
    source: Source, folder: Path, image_size: int, channels: int, crop_box: tuple | None
) -> dict[str, Any]:
    """`_write_cache`, with an error that says what to do about a disk or a folder that takes no cache."""
    try:
        return _write_cache(source, folder, image_size, channels, crop_box)
    except OSError as error:
        if error.errno is None:  # a file of the source: see `read_file`
            raise
        raise OSError(
            f"The cache of decoded images in {folder.parent} could not be written: {error}. Make room there, or set "
            "HF_VAE_CACHE to a folder that can be written."
        ) from error


def _write_cache(
    source: Source, folder: Path, image_size: int, channels: int, crop_box: tuple | None
) -> dict[str, Any]:
    """Decodes every file once and moves the result into place as a whole, so that a cache that exists is complete.
    Returns its facts, among them the place in the source, `rows`, of each picture that is kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    written = hashlib.sha256()
    broken: list[str] = []
    rows: list[int] = []
    digests: list[str] = []
    names: list[str] = []
    duplicates = 0
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as temporary:
        building = Path(temporary) / folder.name
        building.mkdir()
        with open(building / "images.uint8", "wb") as out:
            for file in decode_files(source, image_size, channels, crop_box, "Decoding images"):
                if file.problem:
                    broken.append(file.problem)
                elif file.image is None:
                    duplicates += 1
                else:
                    out.write(file.image.numpy().tobytes())
                    written.update(file.image.numpy().tobytes())
                    rows.append(file.row)
                    digests.append(file.digest[:DIGEST_LETTERS])
                    names.append(file.name)
        _refuse_unusable(source.length, len(rows), broken)
        facts = {"images": len(rows), "pictures_found": source.length}
        facts |= {
            "duplicates_dropped": duplicates,
            "broken_skipped": len(broken),
            "rows": rows,
            "digests": digests,
            "names": names,
        }
        (building / "facts.json").write_text(json.dumps(facts | {"sha256": written.hexdigest()}))
        for path in (*building.iterdir(), building):
            flush_to_disk(path)
        try:
            building.rename(folder)
        except OSError:  # another process may have built the same cache meanwhile
            if not folder.is_dir():
                raise
    for line in broken:
        print(f"Skipped a broken picture: {line}")
    print(
        f"{len(rows):,} of {source.length:,} pictures: {duplicates:,} copies dropped, {len(broken):,} broken skipped."
    )
    return facts


class Looks(NamedTuple):
    """What the header of an image says: width and height, Pillow's mode, and the format."""

    size: tuple[int, int]
    mode: str
    format: str


class DecodedFile(NamedTuple):
    """One file of a source: an image, a copy of one that came before, or broken.

    Args:
        row: Its place in the source.
        name: What it is called there, in letters that can be printed.
        digest: The SHA-256 of its content, in hexadecimal digits; empty if it has no content.
        image: uint8 `(C, H, W)`; None of a copy and of what is broken.
        looks: What its header says; None of what is broken.
        problem: A line that names the file and says what is wrong with it; None of an image and of a copy.
    """

    row: int
    name: str
    digest: str
    image: torch.Tensor | None
    looks: Looks | None
    problem: str | None


def decode_files(
    source: Source, image_size: int, channels: int, crop_box: tuple[int, int, int, int] | None, task: str
) -> Iterator[DecodedFile]:
    """Every file of a source, in its order, decoded unless its content came before.

    A file that cannot be decoded is broken, however many others have the same content: copies are only of images.

    Args:
        source: The files.
        image_size: Width and height of the decoded images, in pixels.
        channels: 1 (greyscale) or 3 (colour).
        crop_box: Left, top, right and bottom of the part that is used, in pixels.
        task: What the progress bar says.
    """
    known: dict[str, Looks | str] = {}  # for each content, what it looks like, or what is wrong with it
    distinct_looks: dict[Looks, Looks] = {}  # kept once each, as there are few
    files = enumerate(source.files)
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=source.length, desc=task, unit="image", disable=None) as progress,
    ):
        while chunk := list(islice(files, DECODE_CHUNK)):
            digests = ["" if isinstance(content, str) else sha256(content).hexdigest() for _, (_, content) in chunk]
            fresh = {
                digest: content
                for digest, (_, (_, content)) in zip(digests, chunk, strict=True)
                if digest and digest not in known
            }
            decode = partial(decode_content, image_size=image_size, channels=channels, crop_box=crop_box)
            decoded = dict(zip(fresh, pool.map(decode, fresh.values()), strict=True))
            for digest, found in decoded.items():
                known[digest] = found if isinstance(found, str) else distinct_looks.setdefault(found[1], found[1])
            for digest, (row, (name, content)) in zip(digests, chunk, strict=True):
                looks, name = known[digest] if digest else content, printable(name)
                if isinstance(looks, str):
                    yield DecodedFile(row, name, digest, None, None, f"{name}: {looks}")
                else:  # the first with this content takes the image, and others are its copies
                    image, _ = decoded.pop(digest, (None, None))
                    yield DecodedFile(row, name, digest, image, looks, None)
            progress.update(len(chunk))


def decode_content(
    content: bytes, image_size: int, channels: int, crop_box: tuple[int, int, int, int] | None
) -> tuple[torch.Tensor, Looks] | str:
    """The image in the `content` of a file, cut and scaled, as uint8 `(C, H, W)`, and what its header says; or a line
    that says what is wrong with it. Of several frames the first is taken."""
    if content.startswith(LFS_POINTER):
        return LFS_HINT
    try:
        with Image.open(BytesIO(content), formats=IMAGE_FORMATS) as picture:
            looks = Looks(picture.size, picture.mode, picture.format)
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{picture.width}x{picture.height} is more than {MAX_PIXELS // 10**6} megapixels")
            if picture.mode == "F" or (picture.mode == "I" and not _has_16_bits(picture)):
                raise ValueError("holds values whose range is not known; save it with 8 or 16 bits")
            if crop_box is None:  # which counts pixels; else a large JPEG is decoded at a fraction of its size
                picture.draft(picture_mode(channels), (2 * image_size, 2 * image_size))
            return picture_to_uint8(square_picture(picture, image_size, channels, crop_box)), looks
    except UnidentifiedImageError:
        return f"not a {', '.join(IMAGE_FORMATS)} image" if content else "the file is empty"
    except Exception as error:  # Pillow raises whatever its decoders run into: any of it means a broken file
        return str(error) or type(error).__name__


def _has_16_bits(picture: Image.Image) -> bool:
    lowest, highest = picture.getextrema()
    return lowest >= 0 and highest < 2**16


def decode_picture(
    name: str, content: bytes | str, image_size: int, channels: int, crop_box: tuple[int, int, int, int] | None
) -> torch.Tensor | str:
    """The image in the `content` of a file, as `decode_content` gives it; or a line that says what is wrong with
    `name`, which is `content` if that is text."""
    found = content if isinstance(content, str) else decode_content(content, image_size, channels, crop_box)
    return f"{printable(name)}: {found}" if isinstance(found, str) else found[0]


def too_many_broken(found: int, num_broken: int, lines: list[str]) -> ValueError:
    """The error that names broken pictures, `lines` being what `decode_picture` said about them."""
    listing = "\n  ".join(lines[:50])
    return ValueError(
        f"{num_broken} of {found} pictures cannot be used, more than {BROKEN_SHARE_LIMIT:.0%}. Remove or replace "
        f"them:\n  {listing}"
    )


def _refuse_unusable(found: int, usable: int, broken: list[str]) -> None:
    if len(broken) > BROKEN_SHARE_LIMIT * found:
        raise too_many_broken(found, len(broken), broken)
    if usable < MIN_USABLE:
        raise ValueError(
            f"Distinct pictures that were found: {usable}; at least {MIN_USABLE} are needed, one to train on and two "
            "to hold out."
        )
