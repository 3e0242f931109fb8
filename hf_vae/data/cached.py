"""Images that are decoded once to uint8, cached on disk, and split into training and held-out images."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import cached_assets_path, constants
from tqdm import tqdm

from ..atomic import flush_to_disk
from ..config import DataConfig
from ..pictures import picture_mode, to_float
from .decoding import Tally, decode_files
from .presets import with_preset
from .sources import Files, open_source
from .split import Split, draw_split, positions, refuse_other_images


CACHE_VERSION = 4


@dataclass(frozen=True)
class ImageSet:
    """Decoded images, and which of them belong to the set.

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
        """Up to `num_images` of this set, evenly spread, in batches of floats `(B, C, H, W)` in [-1, 1]."""
        count = min(num_images, len(self))
        chosen = torch.arange(count) * len(self) // count
        return (to_float(self[positions]) for positions in chosen.split(batch_size))

    def training_batches(
        self, batch_size: int, seed: int, first_image: int = 0, rank: int = 0, num_ranks: int = 1
    ) -> Generator[torch.Tensor, None, None]:
        """An endless series of batches for this rank: uint8 `(batch_size, C, H, W)` each.

        The batches of all ranks are consecutive pieces of one endless sequence: a permutation of the images for each
        epoch, seeded by run and epoch. So every image is seen once an epoch, whatever the batch size and the number of
        ranks are. A run resumes by starting at `first_image`.

        Args:
            batch_size: Images in each batch.
            seed: Seed of the run.
            first_image: Number of images that all ranks together have seen before.
            rank: Number of this process, from 0.
            num_ranks: Number of processes.
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
        """The set with its images on `device`, if that is a GPU with memory of its own and four times as much of it
        free as they need. Apple's GPUs share the memory of the CPU, so there a copy would gain nothing."""
        memory_info = getattr(torch.get_device_module(device), "mem_get_info", None)  # (free, total), in bytes
        if memory_info is None or 4 * self.images.nbytes > memory_info(device)[0]:
            return self
        return replace(self, images=self.images.to(device))


@lru_cache(maxsize=2)
def _permutation(num_images: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(num_images, generator=torch.Generator().manual_seed(seed + 1_000_003 * (epoch + 1)))


@dataclass(frozen=True)
class DataSplits:
    """The training and held-out images of a source, and what was found in it.

    Args:
        train: The training images: an `ImageSet`, or an `ImageStream`, which has the same methods but no length.
        heldout: The held-out images, for measurements.
        facts: Counts for the log and the card: `pictures_found, duplicates_dropped, broken_skipped, train, heldout`;
            for a stream `heldout` alone. If files were left out, `left_out` has their number for each reason.
        split: The images on either side, by their content. A run records it.
        rows: The position in the source of each decoded image, which `labels` needs; empty for a stream.
        digests: The first 16 hexadecimal digits of the SHA-256 of each decoded image's file; empty for a stream.
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

    Files that do not decode are skipped, exact copies of an image are dropped, and both are counted. The cache lies in
    `HF_VAE_CACHE`, or else in the assets folder of `huggingface_hub` under `HF_HOME`. Its folder is named by a
    fingerprint of the source and the transform. A damaged cache is built again.

    Args:
        data: Where the images are. If no `split` is given, its `validation_fraction` and `split_seed` draw one.
        image_size: Edge of the square images, in pixels.
        image_channels: 3 for colour, 1 for greyscale.
        split: The split that a run recorded. The images must be those of the run.
        exact: Whether new and missing images are refused, as for a run that is resumed; see `refuse_other_images`.
        known: The split of the model that a run starts from. Its images stay on their side.

    Raises:
        ValueError: If `data` does not name exactly one source, or the source or its image column does not exist. If
            more than 1% of the files cannot be used, or there are too few images to split.
        OSError: If a file cannot be read, or the cache cannot be written. No part of the cache is left then.
    """
    picture_mode(image_channels)  # refuses an impossible number of channels, before any image is blamed for it
    data = with_preset(data)
    files = open_source(data).files()
    recipe = [CACHE_VERSION, files.fingerprint, image_size, image_channels, data.crop_box]
    fingerprint = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:24]
    for notice in files.notices:
        print(notice)
    folder, facts = _open_cache(files, fingerprint, image_size, image_channels, data.crop_box)
    facts |= {"left_out": files.left_out} if files.left_out else {}
    rows, digests, names = (tuple(facts.pop(key)) for key in ("rows", "digests", "names"))
    shape = (facts.pop("images"), image_channels, image_size, image_size)
    images = torch.from_file(str(folder / "images.uint8"), size=math.prod(shape), dtype=torch.uint8).view(shape)

    if split is None:
        split = draw_split(digests, data.validation_fraction, data.split_seed, known)
    else:
        refuse_other_images(split, digests, names, data.place, exact)
    train, heldout = positions(digests, split.train), positions(digests, split.heldout)
    facts |= {"train": len(train), "heldout": len(heldout)}
    return DataSplits(ImageSet(images, train), ImageSet(images, heldout), facts, split, rows, digests)


def _open_cache(
    files: Files, fingerprint: str, image_size: int, channels: int, crop_box: tuple[int, int, int, int] | None
) -> tuple[Path, dict[str, Any]]:
    """The folder of a cache, which is built if it does not exist, and its facts."""
    folder = _cache_folder() / fingerprint
    try:
        return folder, _read_facts(folder) or _write_cache(files, folder, image_size, channels, crop_box)
    except OSError as error:
        if error.errno is None:  # a file of the source: see `read_file`
            raise
        raise _not_writable(folder.parent, error) from error


def _cache_folder() -> Path:
    """The folder of all caches, which is made if it does not exist."""
    chosen = os.environ.get("HF_VAE_CACHE")
    try:
        if not chosen:
            return cached_assets_path("hf_vae", "images", "decoded")
        folder = Path(chosen).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except RuntimeError as error:  # a user without a home folder, as in a container
        raise ValueError(
            f"The cache of decoded images has no folder: {error} Set HF_VAE_CACHE or HF_HOME to a folder."
        ) from error
    except (OSError, ValueError) as error:  # the second where a file lies in the place of a folder
        raise _not_writable(chosen or constants.HF_ASSETS_CACHE, error) from error


def _not_writable(folder: str | Path, error: Exception) -> OSError:
    return OSError(
        f"The cache of decoded images in {folder} could not be written: {error}. Make room there, or set HF_VAE_CACHE "
        "(or HF_HOME) to a folder that can be written."
    )


def _read_facts(folder: Path) -> dict[str, Any] | None:
    """The facts of a cache. None if there is no cache, or it was damaged and has been removed."""
    if not folder.is_dir():
        return None
    try:
        facts = json.loads((folder / "facts.json").read_text())
        with open(folder / "images.uint8", "rb") as images:
            is_whole = facts.pop("sha256") == hashlib.file_digest(images, "sha256").hexdigest()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_whole = False
    if is_whole:
        return facts
    print(f"The cache {folder} is damaged. It is removed, and the images are decoded again.")
    shutil.rmtree(folder, ignore_errors=True)  # another process may be removing it, too
    return None


def _write_cache(
    files: Files, folder: Path, image_size: int, channels: int, crop_box: tuple[int, int, int, int] | None
) -> dict[str, Any]:
    """Decodes every file once and moves the result into place as a whole, so that a cache that exists is complete.

    Returns:
        The facts of the cache. Among them are the place in the source (`rows`), the digest and the name of each image
        in it.
    """
    written = hashlib.sha256()
    tally = Tally()
    rows: list[int] = []
    digests: list[str] = []
    names: list[str] = []
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as temporary:
        building = Path(temporary) / folder.name
        building.mkdir()
        contents = tqdm(files.contents, "Decoding images", files.length, unit="image", disable=None)
        with open(building / "images.uint8", "wb") as out:
            for row, file in enumerate(decode_files(contents, image_size, channels, crop_box)):
                tally.count(file)
                if file.image is not None:
                    out.write(file.image.numpy().tobytes())
                    written.update(file.image.numpy().tobytes())
                    rows.append(row)
                    digests.append(file.digest)
                    names.append(file.name)
        tally.refuse_unusable()
        facts = {
            "images": tally.usable,
            "pictures_found": tally.read,
            "duplicates_dropped": tally.copies,
            "broken_skipped": tally.num_broken,
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
    for line in tally.broken.elements():
        print(f"Skipped a broken image: {line}")
    print(
        f"{tally.usable:,} of {tally.read:,} images: {tally.copies:,} copies dropped, {tally.num_broken:,} broken "
        "skipped."
    )
    return facts
