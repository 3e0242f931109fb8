"""Labels in a folder of images: the names of class folders, and `metadata.csv`, `.jsonl` or `.parquet`.

Both follow the "imagefolder" of the datasets library.
"""

import codecs
import json
import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from .dataset_splits import split_word
from .listing import Listing
from .messages import printable


FILE_NAME = "file_name"
LABEL = "label"  # the column that `datasets` makes of the names of class folders
DELIMITERS = ",;\t"


def folder_columns(listing: Listing) -> tuple[dict[str, list[Any]], list[str]]:
    described: dict[Path, dict[str, Any]] = {}
    problems = []
    images = set(listing.images)
    for metadata in listing.metadata:
        try:
            rows = _read_metadata(metadata)
            column = _naming_column(rows, metadata.parent, images)
        except ValueError as error:
            problems.append(f"{printable(str(metadata))} is not used: {error}")
            continue
        if column != FILE_NAME:
            problems.append(f"{printable(str(metadata))}: its column {column} is used as {FILE_NAME}.")
        about = [_named_file(row.pop(column), metadata.parent, images) for row in rows]
        if len(set(about)) < len(about):
            problems.append(f"{printable(str(metadata))}: several rows are about one image; the last one is used.")
        described |= dict(zip(about, rows, strict=True))
    names = dict.fromkeys(name for file, row in described.items() if file in images for name in row)
    columns = {name: [described.get(file, {}).get(name) for file in listing.images] for name in names}
    return _class_folders(listing) | columns, problems


def _class_folders(listing: Listing) -> dict[str, list[Any]]:
    """The name of the folder that each image lies in.

    As in `datasets`, folders are classes only if all images lie equally deep, in more than one folder. Folders with
    the names of splits are not classes.
    """
    parts = [file.relative_to(listing.folder).parts for file in listing.images]
    names = [path[-2] if len(path) > 1 else "" for path in parts]
    if len(set(map(len, parts))) > 1 or len(set(names)) < 2 or all(map(split_word, names)):
        return {}
    return {LABEL: names}


def _naming_column(rows: list[dict[str, Any]], folder: Path, images: set[Path]) -> str:
    """The column with the image file of each row: `file_name`, or the only column with names of images.

    Raises:
        ValueError: If there is no such column, or there are several.
    """
    columns = dict.fromkeys(name for row in rows for name in row)
    if FILE_NAME in columns:
        if not all(isinstance(row.get(FILE_NAME), str) for row in rows):
            raise ValueError(f"it needs a {FILE_NAME} in every row: the image that the row is about.")
        if not any(_named_file(row[FILE_NAME], folder, images) in images for row in rows):
            raise ValueError(
                f"it describes no image in the folder; it names for instance {printable(rows[0][FILE_NAME])}."
            )
        return FILE_NAME
    naming = [name for name in columns if _names_images([row.get(name) for row in rows], folder, images)]
    if not naming:
        raise ValueError(
            f"it needs a {FILE_NAME} in every row: the image that the row is about. Its columns: "
            f"{', '.join(map(printable, columns)) or 'none'}."
        )
    if len(naming) > 1:
        raise ValueError(f"each of its columns {', '.join(naming)} names images; call one of them {FILE_NAME}.")
    return naming[0]


def _names_images(values: Iterable[Any], folder: Path, images: set[Path]) -> bool:
    return all(isinstance(value, str) and _named_file(value, folder, images) in images for value in values)


def _named_file(name: str, folder: Path, images: set[Path]) -> Path:
    """The file that a metadata file in `folder` names. Names written on Windows may have backslashes."""
    file = Path(os.path.normpath(folder / name))
    return file if file in images else Path(os.path.normpath(folder / name.replace("\\", "/")))


def _read_metadata(file: Path) -> list[dict[str, Any]]:
    """The rows of a metadata file. Numbers in a CSV become numbers.

    Raises:
        ValueError: If it cannot be read, or has no rows.
    """
    try:
        if file.suffix == ".parquet":
            rows = parquet.read_table(file).to_pylist()
        elif file.suffix == ".csv":
            rows = _read_csv(_read_text(file))
        else:
            rows = [json.loads(line) for line in _read_text(file).splitlines() if line.strip()]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"it cannot be read: {printable(' '.join(str(error).split()))}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"it needs a {FILE_NAME} in every row, which is a JSON object.")
    if not rows:
        raise ValueError("it has no rows.")
    return rows


def _read_text(file: Path) -> str:
    content = file.read_bytes()
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig")


def _read_csv(text: str) -> list[dict[str, Any]]:
    """The rows of a CSV. The delimiter is the most frequent one in its first line."""
    header = text.partition("\n")[0]
    parse = csv.ParseOptions(delimiter=max(DELIMITERS, key=header.count), newlines_in_values=True)
    convert = csv.ConvertOptions(strings_can_be_null=True)
    return csv.read_csv(BytesIO(text.encode()), parse_options=parse, convert_options=convert).to_pylist()
