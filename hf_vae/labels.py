"""What is said about each picture beside the picture itself: columns of a dataset or of parquet, and the
`metadata.csv` or `metadata.jsonl` of a folder, as `datasets` reads an "imagefolder"."""

import json
from pathlib import Path
from typing import Any

import datasets
from pyarrow import csv

from .config import DataConfig
from .datasets import DataSplits
from .presets import with_preset
from .sources import find_files, holds_pictures, open_dataset


METADATA_FILES = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"


def load_labels(data: DataConfig, column: str, splits: DataSplits) -> list[Any]:
    """The label in `column` of each of `splits.train.images`, None where it has none. So those of `splits.train` are
    at `splits.train.indices`, and those of `splits.heldout` at its own. Classes are given by their names.

    Args:
        data: What `splits` were loaded from.
        column: A column of the dataset or the parquet file, or of the folder's metadata files.
        splits: What `load_images` made of `data`; not a stream, whose pictures are not numbered.

    Raises:
        ValueError: If there is no such column; the message names those that there are.
    """
    columns = read_columns(data)
    if column not in columns:
        raise ValueError(f"There is no label column {column!r}; there are: {', '.join(columns) or 'none'}.")
    return [columns[column][row] for row in splits.rows]


def read_columns(data: DataConfig) -> dict[str, list[Any]]:
    """Every label column of a source, one value for each picture that `open_source` gives, in its order.

    Raises:
        ValueError: If `data` names no source or two, or it does not exist, or a metadata file cannot be used.
    """
    data = with_preset(data)
    dataset = open_dataset(data)
    if dataset is None:
        return _folder_columns(Path(data.train_data_dir).expanduser(), find_files(data.train_data_dir))
    names = [name for name, feature in dataset.features.items() if not holds_pictures(feature)]
    return {name: _values(dataset, name) for name in names}


def _values(dataset: datasets.Dataset, name: str) -> list[Any]:
    values, feature = dataset[name][:], dataset.features[name]
    if not isinstance(feature, datasets.ClassLabel):
        return values
    return [None if value is None else feature.int2str(value) for value in values]


def _folder_columns(folder: Path, files: list[Path]) -> dict[str, list[Any]]:
    rows: dict[Path, dict[str, Any]] = {}
    for name in METADATA_FILES:
        for metadata in sorted(folder.rglob(name)):
            described = {metadata.parent / row.pop(FILE_NAME): row for row in _read_metadata(metadata)}
            if not described.keys() & set(files):
                raise ValueError(
                    f"{metadata} describes no picture that is there, such as {next(iter(described), '-')}."
                )
            rows |= described
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return {name: [rows.get(file, {}).get(name) for file in files] for name in names}


def _read_metadata(file: Path) -> list[dict[str, Any]]:
    """The rows of a metadata file; numbers in a CSV are read as such.

    Raises:
        ValueError: If it cannot be read, or has no column `file_name`.
    """
    try:
        if file.suffix == ".csv":
            rows = csv.read_csv(file, convert_options=csv.ConvertOptions(strings_can_be_null=True)).to_pylist()
        else:
            rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    except ValueError as error:  # Arrow's errors are such, too
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not all(isinstance(row, dict) and isinstance(row.get(FILE_NAME), str) for row in rows):
        raise ValueError(f"{file} needs a {FILE_NAME} in every row: the picture that the row is about.")
    return rows
