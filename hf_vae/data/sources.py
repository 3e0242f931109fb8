"""Where images come from: the Hub, a folder or parquet; as encoded files in a fixed order."""

import errno
import glob
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

import datasets
from huggingface_hub import constants

from ..config import DataConfig
from ..models.loading import is_lfs_pointer
from .listing import LFS_HINT, Listing, list_folder, no_such_split, only_datasets_reads, printable


SAVED = [{"state.json", "dataset_info.json"}, {"dataset_dict.json"}]  # by `save_to_disk` of a Dataset, a DatasetDict
MAX_FILE_BYTES = 2**30  # of a file in an archive: a few kilobytes there may stand for a terabyte
NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTDIR, errno.EEXIST}

NamedContent = tuple[str, bytes | str]  # the name of a file, and its content, or why there is none


@dataclass(frozen=True)
class Source:
    """Encoded images, in a fixed order, without decoding.

    Args:
        fingerprint: Another one if the files are others.
        length: How many files there are.
        files: `(name, content)` each; of a file that is not read, the content is a line that says why.
        left_out: How many files are no part of this, for each reason.
        notices: Sentences that whoever trains on it should read.
    """

    fingerprint: str
    length: int
    files: Iterable[NamedContent]
    left_out: dict[str, int]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Images in the rows of a dataset.

    Args:
        rows: The dataset.
        folders: Where the files may lie that rows name.
        left_out: As of a `Source`.
        notices: As of a `Source`.
        states: What changes when its files do, beside the fingerprint that `datasets` gives the rows.
    """

    rows: datasets.Dataset
    folders: tuple[Path, ...]
    left_out: dict[str, int]
    notices: tuple[str, ...]
    states: tuple[tuple[int, int, int], ...] = ()


def open_source(data: DataConfig) -> Source:
    """The images that `data` names; a preset has to be filled in before.

    Raises:
        ValueError: If `data` names no source or two, or the source, its split or its image column does not exist.
    """
    found = find_images(data)
    if isinstance(found, Table):
        return _column_source(found, data.image_column)
    states = [(str(file.relative_to(found.folder)), *_state(file)) for file in found.images]
    fingerprint = hashlib.sha256(json.dumps(states).encode()).hexdigest()
    files = ((str(file.relative_to(found.folder)), read_file(file)) for file in found.images)
    return Source(fingerprint, len(states), files, found.left_out, found.notices)


def find_images(data: DataConfig) -> Table | Listing:
    """The rows of the Hub dataset, saved dataset or parquet that `data` names, or what a folder of images holds.

    Raises:
        ValueError: As `open_source` does.
    """
    refuse_unless_one_source(data)
    if saved := saved_folder(data):
        return _saved_table(saved, data.dataset_split)
    if data.dataset_name:
        return _hub_table(data)
    listing = list_folder(data.train_data_dir, data.dataset_split)
    if listing.images:
        return listing
    refuse_pointers(listing.parquet)
    names = [glob.escape(str(file)) for file in listing.parquet]  # `datasets` takes brackets for a pattern
    with loading(f"train_data_dir={data.train_data_dir} cannot be read as parquet", listing.parquet):
        rows = datasets.Dataset.from_parquet(names)
    return Table(rows, (), listing.left_out, listing.notices)


def refuse_unless_one_source(data: DataConfig) -> None:
    """Raises a `ValueError` if `data` names no source or two."""
    if bool(data.dataset_name) == bool(data.train_data_dir):
        raise ValueError(
            "Say where the images are: give either --dataset_name (a preset or a Hub id) or --train_data_dir."
        )


def name_of_place(place: str) -> dict[str, str]:
    """The setting that `place` is for: `train_data_dir` of a folder of images or parquet, or else `dataset_name`."""
    path = Path(place).expanduser()
    return {"train_data_dir" if path.exists() and not only_datasets_reads(path) else "dataset_name": place}


def read_file(file: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: If it cannot be read, which is another fault than a file that is broken. It has no number, as the same
            numbers stand for caches that cannot be written.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        message = f"{printable(str(file))} cannot be read: {error.strerror}. Make it readable, or remove it."
        raise type(error)(message) from error


def refuse_pointers(files: Iterable[Path]) -> None:
    """Raises a `ValueError` if Git left a pointer in place of one of the files."""
    if pointer := next(filter(is_lfs_pointer, files), None):
        raise ValueError(f"{printable(str(pointer))} {LFS_HINT}.")


def saved_folder(data: DataConfig) -> Path | None:
    """The folder that `data` names, if `save_to_disk` of `datasets` wrote it."""
    folder = Path(data.dataset_name or data.train_data_dir).expanduser()
    return folder if any(all((folder / name).is_file() for name in names) for names in SAVED) else None


def load_saved(folder: Path, dataset_split: str | None) -> tuple[datasets.Dataset, dict[str, int], tuple[str, ...]]:
    """What `save_to_disk` wrote: the rows of a split, how many there are in others, and what to say about the choice.

    Raises:
        ValueError: If it cannot be loaded, or has no such split.
    """
    with loading(f"{folder}, which save_to_disk wrote, cannot be loaded", list(folder.rglob("*.arrow"))):
        saved = datasets.load_from_disk(str(folder))
    if isinstance(saved, datasets.Dataset):
        saved = datasets.DatasetDict({str(saved.split or "train"): saved})
    names, notices = choose_splits(str(folder), list(saved), dataset_split)
    left_out = other_splits({name: len(rows) for name, rows in saved.items()}, names)
    return datasets.concatenate_datasets([saved[name] for name in names]), left_out, notices


def choose_splits(place: str, names: list[str], wanted: str | None) -> tuple[list[str], tuple[str, ...]]:
    """The splits to read of those that a dataset has, and what to say about the choice.

    Raises:
        ValueError: If there is none that is called like that.
    """
    if wanted == "all":
        return names, ()
    chosen = [name.strip() for name in (wanted or "train").split("+")]
    if set(chosen) <= set(names):
        return chosen, ()
    if wanted is None and len(names) == 1:
        return names, (f"{place} has no split called train. Its only split, {names[0]}, is used.",)
    raise ValueError(no_such_split(place, wanted or "train", names))


def other_splits(sizes: dict[str, int], chosen: Iterable[str]) -> dict[str, int]:
    """What is left out by the choice of splits, given how many images each has."""
    return {f"images of the split {name}": size for name, size in sizes.items() if name not in chosen and size}


def load_from_hub(data: DataConfig, load: Callable[..., Any], **options: Any) -> Any:
    """What `load` makes of the dataset that `data` names, called like `datasets.load_dataset`.

    Raises:
        ValueError: If it cannot be loaded.
    """
    place = Path(data.dataset_name)
    if place.is_file():
        raise ValueError(
            f"dataset_name={data.dataset_name} is a file; give a parquet file as --train_data_dir, and of any other "
            "file the folder that holds it."
        )
    files = [file for file in place.rglob("*") if file.is_file()] if place.is_dir() else []
    origin = "" if place.is_dir() else " from the Hub"
    with loading(f"dataset_name={data.dataset_name} cannot be loaded{origin}", files):
        try:
            return load(data.dataset_name, data.dataset_config_name, revision=data.revision, **options)
        except Exception as error:
            # `datasets` takes the names of folders in a zip for labels, and then the zip's own folder for one of them
            if options or "Invalid string class label" not in str(error.__cause__ or error):
                raise
            print(f"dataset_name={data.dataset_name}: the folders in its zip are not read as labels.", file=sys.stderr)
            return load(data.dataset_name, data.dataset_config_name, revision=data.revision, drop_labels=True)


@contextmanager
def loading(what: str, files: list[Path]) -> Iterator[None]:
    """Turns whatever `datasets` and Arrow raise into one sentence with the cause and the way out.

    Args:
        what: How the sentence begins.
        files: Files of the user's that are read, as far as they are known.

    Raises:
        ValueError: In place of those errors.
        OSError: If the cache of `datasets` cannot be written.
    """
    try:
        yield
    except Exception as error:  # these libraries raise whatever they run into
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        text = printable(" ".join(str(cause).split()))
        if isinstance(cause, OSError) and _is_about_cache(cause, text, files):
            raise OSError(
                f"The cache of the datasets library in {datasets.config.HF_DATASETS_CACHE} cannot be written: {text}. "
                "Make room there, or set HF_HOME (or HF_DATASETS_CACHE) to a folder that can be written."
            ) from error
        refuse_pointers(files)
        raise ValueError(f"{printable(what)}: {_explained(cause, text)}") from error


def _is_about_cache(cause: OSError, text: str, files: list[Path]) -> bool:
    """Whether an error is about the cache of `datasets`, rather than one of the user's `files`."""
    if cause.errno in NOT_WRITABLE:
        return not any(printable(str(file)) in text for file in files)
    caches = [Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]
    return cause.errno is not None and any(cause.filename == str(part) for part in (*caches, *caches[0].parents))


def _explained(cause: BaseException, text: str) -> str:
    """What went wrong and, where it is known, what to do about it."""
    if isinstance(cause, UnicodeEncodeError):
        return f"a name is not UTF-8: {printable(cause.object)}. Rename it, or give the folder as --train_data_dir."
    if isinstance(cause, datasets.table.CastError):
        ours, theirs = set(cause.requested_column_names), set(cause.table_column_names)
        columns = ", ".join(sorted(ours ^ theirs)) or "one of them is of another type"
        return f"its files have different columns ({columns}). Give files with the same columns."
    return text if len(text) <= 500 else f"{text[:500]} ..."


def _hub_table(data: DataConfig) -> Table:
    notices: tuple[str, ...] = ()
    split = data.dataset_split or "train"
    try:
        rows = load_from_hub(data, partial(datasets.load_dataset, split=split))
    except ValueError as error:
        if not any(f"{word} split" in str(error) for word in ("Unknown", "Bad")):
            raise
        names = load_from_hub(data, _split_names)
        (split, *_), notices = choose_splits(f"dataset_name={data.dataset_name}", names, data.dataset_split)
        rows = load_from_hub(data, partial(datasets.load_dataset, split=split))
    sizes = {name: info.num_examples for name, info in (rows.info.splits or {}).items()}
    left_out = _passed_over(Path(data.dataset_name), sum(sizes.values()))
    chosen = sizes if split == "all" else {part.split("[")[0] for part in split.split("+")}
    if (beyond := sum(sizes[name] for name in chosen if name in sizes) - len(rows)) > 0:
        left_out["images outside of the slice"] = beyond
    return Table(rows, _download_folders(data), other_splits(sizes, chosen) | left_out, notices)


def _passed_over(place: Path, num_rows: int) -> dict[str, int]:
    """Images in a folder here that `datasets` did not find, as it follows no links to folders."""
    try:
        missing = len(list_folder(str(place), "all").images) - num_rows if place.is_dir() else 0
    except ValueError:  # no folder of images
        return {}
    return {"images that the datasets library passed over": missing} if missing > 0 else {}


def _split_names(name: str, config: str | None, revision: str | None) -> list[str]:
    return datasets.get_dataset_split_names(name, config, revision=revision)


def _saved_table(folder: Path, dataset_split: str | None) -> Table:
    rows, left_out, notices = load_saved(folder, dataset_split)
    # its fingerprint is what a file in the folder says
    states = tuple(_state(Path(entry["filename"])) for entry in rows.cache_files)
    return Table(rows, (folder.resolve(),), left_out, notices, states)


def _download_folders(data: DataConfig) -> tuple[Path, ...]:
    """Where the files lie that the rows of a Hub dataset name. Rows of parquet may name none, they hold their own."""
    downloads = [datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE]
    return tuple(
        Path(folder).resolve() for folder in (*downloads, data.dataset_name)
    )  # the last is one if it is local


def _state(file: Path) -> tuple[int, int, int]:
    """What changes with the content of a file: an archive may give all of its files one time, but not their ctime."""
    state = file.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _column_source(table: Table, column: str | None) -> Source:
    column = find_image_column(table.rows.features, column)
    rows = table.rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    fingerprint = json.dumps([rows._fingerprint, *table.states])
    return Source(fingerprint, len(rows), _column_files(rows, column, table.folders), table.left_out, table.notices)


def find_image_column(features: dict[str, Any], column: str | None) -> str:
    """The column that holds the images: `column`, or the only one that does.

    Raises:
        ValueError: If `column` does not, or is None and there is not exactly one.
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
    """Whether a column is marked as images, or is what an image column is stored as: bytes, or bytes with a path."""
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("binary", "large_binary")
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and feature.keys() == {"bytes", "path"})


def _way_to_images(kinds: dict[str, str]) -> str:
    """What an image column is, and how to make one of columns that hold these `kinds`."""
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
    """What a column holds, in words."""
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


def _column_files(rows: datasets.Dataset, column: str, folders: tuple[Path, ...]) -> Iterator[NamedContent]:
    """The files of a column. Whoever wrote the rows does not choose what is read here: a row may name a file in one of
    `folders`, or in a zip there."""
    with ExitStack() as archives:
        # kept open, as finding one of its files means to read the list of them all
        open_zip = lru_cache(maxsize=None)(lambda file: archives.enter_context(ZipFile(file)))
        read = partial(_read_named, folders=folders, open_zip=open_zip)
        for number, row in enumerate(rows):
            yield row_content(row[column], f"row {number}", read)


def row_content(value: dict[str, Any] | None, name: str, read: Callable[[str], bytes | str]) -> NamedContent:
    """The name and the content of a row: its bytes, or what `read` makes of the path that it names instead."""
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
    """The line about a row that is refused, as it names what may not be read."""
    return f"names a file instead of holding it ({printable(path)}); embed the images, or train on their folder"


def _read_named(path: str, folders: tuple[Path, ...], open_zip: Callable[[Path], ZipFile]) -> bytes | str:
    *inner, outer = path.split("::")  # as `datasets` says what lies in an archive: zip://name::archive
    file = Path(outer).resolve()
    # or a link in the folder that the user named, which is theirs as in --train_data_dir
    is_ours = any(folder in place.parents for folder in folders for place in (file, Path(os.path.abspath(outer))))
    if not is_ours or len(inner) > 1 or not all(hop.startswith("zip://") for hop in inner):
        return names_a_file(path)
    if not file.is_file():
        return f"names {printable(outer)}, which is not there"
    return _read_member(file, inner[0].removeprefix("zip://"), open_zip) if inner else read_file(file)


def _read_member(file: Path, name: str, open_zip: Callable[[Path], ZipFile]) -> bytes | str:
    try:
        archive = open_zip(file)
        if archive.getinfo(name).file_size > MAX_FILE_BYTES:
            return f"is larger than {MAX_FILE_BYTES // 2**20} MiB"
        return archive.read(name)
    except (BadZipFile, KeyError, RuntimeError, EOFError, ZlibError) as error:  # damaged, or with a password
        return f"cannot be read out of {printable(file.name)}: {error}"
