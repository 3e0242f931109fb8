"""The images that the benchmarks train on: from a folder, or drawn by the benchmark itself."""

import random
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet
from PIL import Image, ImageDraw

from hf_vae.config import DataConfig
from hf_vae.data.cached import DataSplits, load_images


NUM_DRAWN, DRAWN_SIZE = 4096, 64


@dataclass(frozen=True)
class Pictures:
    """The same images, with the same split, for both loops.

    Args:
        folder: The folder that holds them.
        splits: The decoded images, for our loop and for measuring.
        train_files: The encoded files of the training split, for the plain loop, which decodes them each time.
    """

    folder: Path
    splits: DataSplits
    train_files: list[bytes]


def load_pictures(folder: Path, image_size: int = 64) -> Pictures:
    """Loads the images in `folder`, through the cache of `hf_vae`.

    Raises:
        ValueError: If they cannot be used, or if some are broken: then the two loops would train on different images.
    """
    splits = load_images(DataConfig(train_data_dir=str(folder)), image_size, image_channels=3)
    files = list(dict.fromkeys(_read_files(folder)))  # `load_images` drops exact copies too
    if len(files) != len(splits.train) + len(splits.heldout):
        raise ValueError(f"{folder} holds broken images. Remove the files that were named above.")
    return Pictures(folder, splits, [files[row] for row in splits.train.indices.tolist()])


def _read_files(folder: Path) -> list[bytes]:
    parquet = [folder] if folder.is_file() else sorted(folder.rglob("*.parquet"))
    if not parquet:
        endings = {".jpg", ".jpeg", ".png", ".webp"}
        return [file.read_bytes() for file in sorted(folder.rglob("*")) if file.suffix.lower() in endings]
    contents = []
    for file in parquet:
        schema = pyarrow.parquet.read_schema(file)
        column = next(field.name for field in schema if str(field.type).startswith("struct<bytes: binary"))
        contents += [row["bytes"] for row in pyarrow.parquet.read_table(file, columns=[column])[column].to_pylist()]
    return contents


def draw_pictures(folder: Path) -> Path:
    """Fills `folder` with JPEGs of coloured shapes, the same in every call, and returns it."""
    chance = random.Random(0)
    folder.mkdir()
    for number in range(NUM_DRAWN):
        _draw(chance).save(folder / f"{number:05d}.jpg", quality=90)
    return folder


def _draw(chance: random.Random) -> Image.Image:
    picture = Image.new("RGB", (DRAWN_SIZE, DRAWN_SIZE), _color(chance))
    draw = ImageDraw.Draw(picture)
    for _ in range(chance.randint(2, 5)):
        left, top = chance.randint(0, 44), chance.randint(0, 44)
        box = (left, top, left + chance.randint(8, 32), top + chance.randint(8, 32))
        chance.choice((draw.ellipse, draw.rectangle))(box, _color(chance))
    return picture


def _color(chance: random.Random) -> tuple[int, int, int]:
    return tuple(chance.randint(0, 255) for _ in range(3))
