"""Where pictures come from: a preset, the Hub, a folder or parquet; decoded once to uint8, cached on disk, and
split."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path

import datasets
import torch
from PIL import Image
from tqdm import tqdm

from .config import DataConfig
from .transforms import picture_to_uint8, square_picture


PICTURE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP")
BROKEN_SHARE_LIMIT = 0.01
CACHE_VERSION = 1
DECODE_CHUNK = 256  # pictures decoded between two writes: what bounds memory while a cache is built


PRESETS: dict[str, DataConfig] = {
    "cats": DataConfig(
        dataset_name="cvdl/catfaces",
        revision="main",
        image_column="img",
        data_notes="29,842 cat faces at 64x64 pixels (cvdl/catfaces on the Hub, from Ferlix/Cat-faces-dataset; collected from "
        "Kaggle, Oxford, Pixabay and COCO). The dataset's card states the MIT licence.",
        data_license="mit",
    ),
    "lfw": DataConfig(
        dataset_name="logasja/lfw",
        revision="main",
        image_column="image",
        crop_box=(83, 92, 167, 176),
        data_notes="13,233 press photographs of public figures, Labeled Faces in the Wild (Huang et al. 2007; logasja/lfw on the "
        "Hub), cut to the face as LFWcrop does. A research benchmark; no licence is stated.",
    ),
    "utkface": DataConfig(
        dataset_name="nu-delta/utkface",
        revision="main",
        image_column="image",
        data_notes="23,705 faces labelled with estimated age, gender and ethnicity, UTKFace (Zhang, Song and Qi 2017; "
        "nu-delta/utkface on the Hub). Available for non-commercial research purposes only; the copyright belongs to "
        "the owners of the images.",
    ),
}


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

    def to(self, device: torch.device) -> "ImageSet":
        """The same set with its images on `device`, if that is a GPU with four times the room; else as it is."""
        if device.type != "cuda" or 4 * self.images.nbytes > torch.cuda.mem_get_info(device)[0]:
            return self
        return replace(self, images=self.images.to(device))


@dataclass(frozen=True)
class DataSplits:
    """The training and held-out pictures of a source, and what was found in it.

    Args:
        train: What is trained on.
        heldout: What is measured on.
        facts: Counts for the log and the card: `pictures_found, duplicates_dropped, broken_skipped, train, heldout`.
    """

    train: ImageSet
    heldout: ImageSet
    facts: dict[str, int]


def with_preset(data: DataConfig) -> DataConfig:
    """The configuration with a preset's values where the caller left them out."""
    preset = PRESETS.get(data.dataset_name or "")
    if preset is None:
        return data
    values = {name: getattr(data, name) or value for name, value in vars(preset).items() if value is not None}
    return replace(
        data, **values | {"dataset_name": preset.dataset_name, "validation_fraction": data.validation_fraction}
    )


def load_images(data: DataConfig, image_size: int, image_channels: int) -> DataSplits:
    """Loads the pictures that `data` names, from the cache if they were decoded before.

    Files that do not decode are skipped; exact copies of a file are dropped, and both are counted. The cache lies
    under `HF_VAE_CACHE` (default `~/.cache/hf_vae`), in a folder named by a fingerprint of the source and the
    transform.

    Raises:
        ValueError: If `data` names no source or two, the source or its image column does not exist, more than 1% of
            the files are broken, or fewer than two distinct pictures are left.
    """
    data = with_preset(data)
    source = _open_source(data)
    recipe = [CACHE_VERSION, source.fingerprint, image_size, image_channels, data.crop_box]
    fingerprint = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:24]
    folder = Path(os.environ.get("HF_VAE_CACHE", Path.home() / ".cache" / "hf_vae")).expanduser() / fingerprint
    if not folder.is_dir():
        _build_cache(source, folder, image_size, image_channels, data.crop_box)
    facts = json.loads((folder / "facts.json").read_text())
    shape = (facts.pop("images"), image_channels, image_size, image_size)
    images = torch.from_file(str(folder / "images.uint8"), size=torch.Size(shape).numel(), dtype=torch.uint8).view(
        shape
    )

    num_heldout = max(1, round(data.validation_fraction * len(images)))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(data.split_seed))
    heldout, train = order[:num_heldout].sort().values, order[num_heldout:].sort().values
    facts |= {"train": len(train), "heldout": len(heldout)}
    return DataSplits(ImageSet(images, train), ImageSet(images, heldout), facts)


@dataclass(frozen=True)
class _Source:
    """Encoded pictures, in a fixed order: `(name, content)` each, without decoding."""

    fingerprint: str
    length: int
    files: Iterable[tuple[str, bytes]]


def _open_source(data: DataConfig) -> _Source:
    if bool(data.dataset_name) == bool(data.train_data_dir):
        raise ValueError(
            "Say where the pictures are: give either --dataset_name (a preset or a Hub id) or --train_data_dir."
        )
    if data.dataset_name:
        dataset = datasets.load_dataset(
            data.dataset_name, data.dataset_config_name, revision=data.revision, split="train"
        )
        return _column_source(dataset, data.image_column)
    path = Path(data.train_data_dir).expanduser()
    if not path.exists():
        raise ValueError(f"train_data_dir={data.train_data_dir} does not exist.")
    parquet = [path] if path.suffix == ".parquet" else sorted(path.glob("*.parquet"))
    if parquet:
        return _column_source(datasets.Dataset.from_parquet([str(file) for file in parquet]), data.image_column)
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURE_ENDINGS and file.is_file())
    if not files:
        raise ValueError(
            f"train_data_dir={data.train_data_dir} holds no {', '.join(sorted(PICTURE_ENDINGS))} or .parquet file."
        )
    states = [(str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    fingerprint = hashlib.sha256(json.dumps(states).encode()).hexdigest()
    return _Source(fingerprint, len(files), ((str(file.relative_to(path)), file.read_bytes()) for file in files))


def _column_source(dataset: datasets.Dataset, column: str | None) -> _Source:
    image_columns = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    if column is None and len(image_columns) == 1:
        column = image_columns[0]
    if column not in image_columns:
        raise ValueError(
            f"image_column={column!r} is no image column. Image columns here: {', '.join(image_columns) or 'none'}; "
            f"all columns: {', '.join(dataset.column_names)}."
        )
    rows = dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return _Source(rows._fingerprint, len(rows), _column_files(rows, column))


def _column_files(rows: datasets.Dataset, column: str) -> Iterator[tuple[str, bytes]]:
    for number, row in enumerate(rows):
        value = row[column] or {"path": None, "bytes": b""}
        content = value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
        yield value["path"] or f"row {number}", content


def _build_cache(source: _Source, folder: Path, image_size: int, channels: int, crop_box: tuple | None) -> None:
    """Decodes every file once and moves the result into place as a whole, so that a cache that exists is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    broken: list[str] = []
    num_images = duplicates = 0

    def decode(file: tuple[str, bytes]) -> torch.Tensor | str:
        name, content = file
        try:
            with Image.open(BytesIO(content), formats=PICTURE_FORMATS) as picture:
                picture.draft("RGB" if channels == 3 else "L", (2 * image_size, 2 * image_size))
                return picture_to_uint8(square_picture(picture, image_size, channels, crop_box))
        except Exception as error:  # Pillow raises whatever its decoders run into: any of it means a broken file
            return f"{name}: {error}"

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as building:
        with (
            open(Path(building) / "images.uint8", "wb") as out,
            ThreadPoolExecutor() as pool,
            tqdm(total=source.length, desc="Decoding pictures", unit="picture", disable=None) as progress,
        ):
            files = iter(source.files)
            while chunk := list(islice(files, DECODE_CHUNK)):
                fresh = []
                for name, content in chunk:
                    digest = hashlib.sha256(content).digest()
                    duplicates += digest in seen
                    if digest not in seen:
                        fresh.append((name, content))
                    seen.add(digest)
                for image in pool.map(decode, fresh):
                    if isinstance(image, str):
                        broken.append(image)
                    else:
                        out.write(image.numpy().tobytes())
                        num_images += 1
                progress.update(len(chunk))
        _refuse_unusable(source.length, num_images, broken)
        facts = {"images": num_images, "pictures_found": source.length}
        facts |= {"duplicates_dropped": duplicates, "broken_skipped": len(broken)}
        (Path(building) / "facts.json").write_text(json.dumps(facts))
        ready = Path(building).with_suffix(".ready")
        shutil.move(building, ready)
        Path(building).mkdir()  # what the context manager removes
        _move_into_place(ready, folder)
    for line in broken:
        print(f"Skipped a broken picture: {line}")
    print(
        f"{num_images:,} pictures of {source.length:,}: {duplicates:,} exact copies dropped, {len(broken):,} broken skipped."
    )


def _move_into_place(ready: Path, folder: Path) -> None:
    try:
        ready.rename(folder)
    except OSError:  # another process built the same cache meanwhile
        if not folder.is_dir():
            raise
        shutil.rmtree(ready)


def _refuse_unusable(found: int, usable: int, broken: list[str]) -> None:
    if len(broken) > BROKEN_SHARE_LIMIT * found:
        listing = "\n  ".join(broken[:50])
        raise ValueError(
            f"{len(broken)} of {found} pictures are broken, more than {BROKEN_SHARE_LIMIT:.0%}. Remove or replace them:\n  {listing}"
        )
    if usable < 2:
        raise ValueError(f"Only {usable} distinct picture was found; training and holding out need at least 2.")
