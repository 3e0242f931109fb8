"""What tests of data share: drawings as files, and the images that are loaded from them."""

from collections.abc import Iterable
from pathlib import Path

import datasets
import pytest
import torch
from conftest import draw_picture
from PIL import Image
from upload_corpus import encoded

import hf_vae.data.decoding
from hf_vae.config import DataConfig
from hf_vae.data.cached import DataSplits, load_images
from hf_vae.pictures import picture_to_uint8, square_picture


def png(number: int) -> bytes:
    """A drawing as the content of a PNG."""
    return encoded(draw_picture(number), "png")


def draw_into(folder: Path, count: int, first: int = 0, ending: str = ".png", **options) -> Path:
    """Saves different drawings in a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        draw_picture(number).save(folder / f"{number:03d}{ending}", **options)
    return folder


def write_tiny(folder: Path, count: int = 120) -> Path:
    """Writes tiny images into a new folder, all different. Of 120, one more may be broken."""
    folder.mkdir()
    for number in range(count):
        Image.new("L", (4, 4), number).save(folder / f"{number:03d}.png")
    return folder


def load(path: Path, image_size: int = 28, image_channels: int = 3, **options) -> DataSplits:
    """The images of a folder or parquet file, cached."""
    return load_images(DataConfig(train_data_dir=str(path), **options), image_size, image_channels)


def all_images(splits: DataSplits) -> torch.Tensor:
    """Every image of both splits, in the order in which they were found."""
    order = torch.cat([splits.train.indices, splits.heldout.indices]).argsort()
    return torch.cat([splits.train[:], splits.heldout[:]])[order]


def as_image(picture: Image.Image, image_size: int = 28, channels: int = 3) -> torch.Tensor:
    """A PIL image as it should be decoded: uint8 `(C, H, W)`."""
    return picture_to_uint8(square_picture(picture, image_size, channels))


def drawn(numbers: Iterable[int]) -> torch.Tensor:
    """The drawings with these numbers as they should be decoded: uint8 `(B, 3, 28, 28)`."""
    return torch.stack([as_image(draw_picture(number)) for number in numbers])


def rows_of(numbers: range) -> datasets.Dataset:
    """The drawings with these numbers as a dataset, with a label each."""
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})
    rows = [{"picture": {"path": None, "bytes": png(number)}, "label": number % 2} for number in numbers]
    return datasets.Dataset.from_list(rows, features=features)


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the rest of a test fail if it decodes an image."""

    def refuse(*_, **__):
        raise AssertionError("an image was decoded again")

    monkeypatch.setattr(hf_vae.data.decoding, "square_picture", refuse)
