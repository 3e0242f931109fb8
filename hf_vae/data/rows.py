"""The rows of a dataset: which column holds the images, and how the image file of a row is read."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

import datasets
from datasets.utils.file_utils import xopen

from .messages import printable


MAX_FILE_BYTES = 2**30  # of a file in an archive: a few kilobytes there may stand for a terabyte

Rows = TypeVar("Rows", datasets.Dataset, datasets.IterableDataset)
NamedContent = tuple[str, bytes | str]  # the name of a file, and its content, or why there is none


def find_image_column(features: dict[str, Any], column: str | None) -> str:
    """The column that holds the images: `column`, or the only one that does.

    Raises:
        ValueError: If `column` holds no images, or it is None and there is not exactly one column that does.
    """
    image_columns = [name for name, feature in features.items() if holds_pictures(feature)]
    if column is None and len(image_columns) == 1:
        column = image_columns[0]
    if column not in image_columns:
        fault = f"image_column={column!r} is not an image column." if column else "One image column is needed."
        kinds = {name: _kind(feature) for name, feature in features.items()}
        way_out = "Choose one with --image_column." if image_columns else _way_to_images(kinds)
        raise ValueError(
            f"{fault} Image columns here: {', '.join(image_columns) or 'none'}; all columns: {', '.join(features)}. "
            f"They hold: {', '.join(f'{name} ({kind})' for name, kind in kinds.items())}. {way_out}"
        )
    return column


def holds_pictures(feature: Any) -> bool:
    """Whether a column holds images: an Image feature, or what it is stored as (bytes, or bytes with a path)."""
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("binary", "large_binary")
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and feature.keys() == {"bytes", "path"})


def _way_to_images(kinds: dict[str, str]) -> str:
    """What an image column is, and how to make one from columns of these `kinds`."""
    message = "An image column holds the bytes of image files, or is an Image feature of datasets."
    if "text" in kinds.values():
        message += (
            " Make one of names of files with dataset.cast_column(name, datasets.Image()).save_to_disk(folder), which "
            "embeds them; decode base64 text to bytes."
        )
    if any(kind.startswith("lists of") for kind in kinds.values()):
        message += " Of a list, take one image for each row; encode arrays of numbers, for instance as PNG."
    return message


def _kind(feature: Any) -> str:
    """The kind of a column, in words."""
    if holds_pictures(feature):
        return "images"
    if isinstance(feature, datasets.Value):
        return {"string": "text", "large_string": "text", "null": "nothing"}.get(feature.dtype, feature.dtype)
    if isinstance(feature, datasets.ClassLabel):
        return "classes"
    if isinstance(feature, list | datasets.List | datasets.LargeList):
        return f"lists of {_kind(feature[0] if isinstance(feature, list) else feature.feature)}"
    if isinstance(feature, dict):
        return f"fields ({', '.join(feature)})"
    return type(feature).__name__


def select_images(rows: Rows, features: dict[str, Any] | None, column: str | None) -> tuple[Rows, str]:
    """The rows with their image column alone, as encoded files, and the name of that column.

    Raises:
        ValueError: As `find_image_column` does.
    """
    column = find_image_column(features or {}, column)
    return rows.select_columns([column]).cast_column(column, datasets.Image(decode=False)), column


def column_files(rows: datasets.Dataset, column: str, folders: tuple[Path, ...]) -> Iterator[NamedContent]:
    """The name and the content of the image file in each row.

    The author of a dataset does not choose which files are read on this machine: a row may only name a file in one of
    `folders`, or in a zip in one of them.
    """
    with ExitStack() as archives:
        # zips stay open, as each opening reads the list of all its files
        open_zip = lru_cache(maxsize=None)(lambda file: archives.enter_context(ZipFile(file)))
        read = partial(_read_named, folders=folders, open_zip=open_zip)
        for number, row in enumerate(rows):
            yield row_content(row[column], f"row {number}", read)


def row_content(value: dict[str, Any] | None, name: str, read: Callable[[str], bytes | str]) -> NamedContent:
    """The name and the content of a row: its bytes, or else what `read` returns for its path."""
    if value is None:
        return name, "holds no image (null)"
    path, content = value["path"], value["bytes"]
    if content is not None:
        return path or name, content
    if not path:
        return name, "holds no image: neither bytes nor a path"
    content = read(path)
    return (name, content) if isinstance(content, str) else (path, content)


def names_a_file(path: str) -> str:
    """The reason why a row is refused that names a file which may not be read."""
    return f"names a file instead of holding it ({printable(path)}); embed the images, or train on their folder"


def _read_named(path: str, folders: tuple[Path, ...], open_zip: Callable[[Path], ZipFile]) -> bytes | str:
    *inner, outer = path.split("::")  # as `datasets` names a file in an archive: zip://name::archive
    file = Path(outer).resolve()
    # a link in the user's own folder is followed, as in --train_data_dir
    is_ours = any(folder in place.parents for folder in folders for place in (file, Path(os.path.abspath(outer))))
    if not is_ours or len(inner) > 1 or not all(hop.startswith("zip://") for hop in inner):
        return names_a_file(path)
    if not file.is_file():
        return f"names {printable(outer)}, which does not exist"
    return _read_member(file, inner[0].removeprefix("zip://"), open_zip) if inner else read_file(file)


def _read_member(file: Path, name: str, open_zip: Callable[[Path], ZipFile]) -> bytes | str:
    try:
        archive = open_zip(file)
        if archive.getinfo(name).file_size > MAX_FILE_BYTES:
            return f"is larger than {MAX_FILE_BYTES // 2**20} MiB"
        return archive.read(name)
    except (BadZipFile, KeyError, RuntimeError, EOFError, ZlibError) as error:  # damaged, or with a password
        return f"cannot be read out of {printable(file.name)}: {error}"


def read_file(file: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: If it cannot be read, which is not the same as a broken image. The error has no `errno`, because those
            with one are about caches that cannot be written.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        message = f"{printable(str(file))} cannot be read: {error.strerror}. Make it readable, or remove it."
        raise type(error)(message) from error


def read_own(path: str, own_files: set[str]) -> bytes | str:
    """The content of one of the dataset's own files, or of a file within one. No other file is read."""
    if path.split("::")[-1] not in own_files:
        return names_a_file(path)
    with xopen(path, "rb") as file:
        return file.read()
