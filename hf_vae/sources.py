"""Where pictures come from: the Hub, a folder or parquet; as encoded files in a fixed order."""

import glob
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants

from .config import DataConfig


PICTURE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class Source:
    """Encoded pictures, in a fixed order: `(name, content)` each, without decoding."""

    fingerprint: str
    length: int
    files: Iterable[tuple[str, bytes]]


def open_source(data: DataConfig) -> Source:
    """The pictures that `data` names; a preset has to be filled in before.

    Raises:
        ValueError: If `data` names no source or two, or the source or its image column does not exist.
    """
    dataset = open_dataset(data)
    if dataset is not None:
        return _column_source(dataset, data.image_column, _download_folders(data))
    path, files = Path(data.train_data_dir).expanduser(), find_files(data.train_data_dir)
    states = [(str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    fingerprint = hashlib.sha256(json.dumps(states).encode()).hexdigest()
    return Source(fingerprint, len(files), ((str(file.relative_to(path)), file.read_bytes()) for file in files))


def open_dataset(data: DataConfig) -> datasets.Dataset | None:
    """The Hub dataset or the parquet that `data` names, or None for a folder of pictures.

    Raises:
        ValueError: As `open_source` does.
    """
    refuse_unless_one_source(data)
    if data.dataset_name:
        return load_from_hub(data, partial(datasets.load_dataset, split="train"))
    files = find_files(data.train_data_dir)
    if files[0].suffix != ".parquet":
        return None
    names = [glob.escape(str(file)) for file in files]  # `datasets` takes a name with brackets for a pattern
    try:
        return datasets.Dataset.from_parquet(names)
    except (datasets.exceptions.DatasetGenerationError, OSError) as error:  # no parquet, or with other columns
        raise ValueError(
            f"train_data_dir={data.train_data_dir} cannot be read as parquet: {error.__cause__ or error}"
        ) from error


def refuse_unless_one_source(data: DataConfig) -> None:
    """Raises a `ValueError` if `data` names no source or two."""
    if bool(data.dataset_name) == bool(data.train_data_dir):
        raise ValueError(
            "Say where the pictures are: give either --dataset_name (a preset or a Hub id) or --train_data_dir."
        )


def find_files(train_data_dir: str) -> list[Path]:
    """The pictures of a folder and of the folders in it, or its parquet files, in the order of their paths.

    Raises:
        ValueError: If there is nothing, or both.
    """
    path = Path(train_data_dir).expanduser()
    if not path.exists():
        raise ValueError(
            f"train_data_dir={train_data_dir} does not exist; say where the pictures are with --train_data_dir."
        )
    parquet = [path] if path.suffix == ".parquet" else sorted(path.rglob("*.parquet"))
    files = sorted(file for file in path.rglob("*") if _is_picture(file))
    if not parquet and not files:
        endings = ", ".join(sorted(PICTURE_ENDINGS))
        raise ValueError(f"train_data_dir={train_data_dir} holds no {endings} or .parquet file.")
    if parquet and files:
        raise ValueError(f"train_data_dir={train_data_dir} holds both pictures and parquet; name one of them.")
    return parquet or files


def _is_picture(file: Path) -> bool:
    """Hidden files are not: a zip from a Mac has a `._name.jpg` beside each picture that is none."""
    return file.suffix.lower() in PICTURE_ENDINGS and not file.name.startswith(".") and file.is_file()


def load_from_hub(data: DataConfig, load: Callable[..., Any]) -> Any:
    """What `load` makes of the dataset that `data` names, called like `datasets.load_dataset`.

    Raises:
        ValueError: If it cannot be loaded.
    """
    try:
        return load(data.dataset_name, data.dataset_config_name, revision=data.revision)
    except (OSError, RuntimeError) as error:  # an unknown id or no connection; a dataset that is a script
        raise ValueError(f"dataset_name={data.dataset_name} cannot be loaded from the Hub: {error}") from error


def _download_folders(data: DataConfig) -> list[Path]:
    """Where the files lie that the rows of a Hub dataset name; nowhere for parquet, which holds its own."""
    if data.dataset_name is None:
        return []
    downloads = [datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE]
    return [Path(folder).resolve() for folder in (*downloads, data.dataset_name)]  # the last is one if it is local


def _column_source(dataset: datasets.Dataset, column: str | None, folders: list[Path]) -> Source:
    column = find_image_column(dataset.features, column)
    rows = dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return Source(rows._fingerprint, len(rows), _column_files(rows, column, folders))


def find_image_column(features: dict[str, Any], column: str | None) -> str:
    """The column that holds the images: `column`, or the only one that does.

    Raises:
        ValueError: If `column` does not, or is None and there is not exactly one.
    """
    image_columns = [name for name, feature in features.items() if holds_pictures(feature)]
    if column is None and len(image_columns) == 1:
        column = image_columns[0]
    if column not in image_columns:
        raise ValueError(
            f"image_column={column!r} is no image column. Image columns here: {', '.join(image_columns) or 'none'}; "
            f"all columns: {', '.join(features)}."
        )
    return column


def holds_pictures(feature: Any) -> bool:
    """Whether a column is marked as images, or is what an image column is stored as: bytes, or bytes with a path."""
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("binary", "large_binary")
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and feature.keys() == {"bytes", "path"})


def _column_files(rows: datasets.Dataset, column: str, folders: list[Path]) -> Iterator[tuple[str, bytes]]:
    """The files of a column. One that only names a file is empty if that is in none of `folders`: whoever wrote the
    rows does not choose what is read here."""
    for number, row in enumerate(rows):
        value = row[column] or {"path": None, "bytes": b""}
        content = value["bytes"]
        if content is None:
            file = Path(value["path"] or "/").resolve()
            content = file.read_bytes() if any(folder in file.parents for folder in folders) else b""
        yield value["path"] or f"row {number}", content
