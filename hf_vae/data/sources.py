"""Where images come from: a folder, parquet files, a saved dataset or the Hub. One class each, behind one contract.

To add a kind of source, write its class and name it in `open_source`: caches, streams, labels and inspection read it.
"""

import glob
import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import datasets
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.utils.file_utils import xopen
from huggingface_hub import constants
from pyarrow.parquet import ParquetFile, read_schema

from ..config import ONE_SOURCE, DataConfig
from .dataset_splits import choose_splits, other_splits
from .datasets_errors import loading
from .folder_metadata import folder_columns
from .listing import Listing, list_folder, only_datasets_reads
from .messages import refuse_pointers
from .rows import (
    NamedContent,
    column_files,
    find_image_column,
    holds_pictures,
    names_a_file,
    read_file,
    read_own,
    select_images,
)


SAVED = [{"state.json", "dataset_info.json"}, {"dataset_dict.json"}]  # by `save_to_disk` of a Dataset, a DatasetDict
MAX_PARTS = 128  # cutting one part out takes `datasets` a pass over the list of all its files
ROWS_READ = 64  # rows taken out of a parquet file at a time
READ_BUFFER = 4 * 2**20  # bytes read of a parquet file at a time; else it is always a whole row group

ReadPart = Callable[[int], Iterator[dict[str, Any] | None]]


@dataclass(frozen=True)
class Files:
    """All image files of a source, encoded, in a fixed order.

    Args:
        fingerprint: Differs if the files differ.
        length: Number of files.
        contents: `(name, content)` of each; the content of a file that is not read is a line that says why.
        left_out: How many files are not used, for each reason.
        notices: Sentences to print before training, such as which split is used.
    """

    fingerprint: str
    length: int
    contents: Iterable[NamedContent]
    left_out: dict[str, int]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """A source in parts that are read on their own, in any order and again in each epoch.

    Args:
        count: Number of parts, such as files.
        read_part: The rows of a part, by its number: `{"path", "bytes"}` each, where one of the two may be None, or
            None.
        read: The content of a path that stands in a row without bytes, or a line that says why it is not read.
        left_out: As of `Files`.
        notices: As of `Files`.
    """

    count: int
    read_part: ReadPart
    read: Callable[[str], bytes | str]
    left_out: dict[str, int]
    notices: tuple[str, ...]


class Source(ABC):
    """Encoded images with their labels. Nothing is decoded here."""

    @abstractmethod
    def files(self) -> Files:
        """All files, for a cache.

        Raises:
            ValueError: If the source cannot be read, or its split or its image column does not exist.
        """

    @abstractmethod
    def parts(self) -> Parts:
        """The parts that a stream reads.

        Raises:
            ValueError: As `files` does.
        """

    @abstractmethod
    def columns(self) -> tuple[dict[str, list[Any]], list[str]]:
        """The label columns, with one value for each of `files`, and a sentence for each label file that is not used.

        Raises:
            ValueError: If the source cannot be read.
        """


def open_source(data: DataConfig) -> Source:
    """The source that `data` names; a preset has to be filled in before.

    Raises:
        ValueError: If `data` names no source or two, or a folder that does not exist or holds no images.
    """
    refuse_unless_one_source(data)
    if folder := saved_folder(data):
        return SavedDataset(folder, data)
    if data.dataset_name:
        return HubDataset(data)
    listing = list_folder(data.place, data.dataset_split)
    return ImageFolder(listing) if listing.images else ParquetFiles(listing, data)


def refuse_unless_one_source(data: DataConfig) -> None:
    """Raises a `ValueError` if `data` names no source or two."""
    if bool(data.dataset_name) == bool(data.train_data_dir):
        raise ValueError(ONE_SOURCE)


def name_of_place(place: str) -> dict[str, Any]:
    """The setting that `place` is for: `train_data_dir` of a folder of images or parquet, or else `dataset_name`.

    Raises:
        ValueError: If `place` is written as a path, and nothing is there.
    """
    path = Path(place).expanduser()
    if not path.exists() and (place.endswith("/") or path.is_absolute() or place.startswith(("./", "../"))):
        raise ValueError(f"{place} does not exist. Pass a folder of images, a parquet file, a preset or a Hub id.")
    return {"train_data_dir" if path.exists() and not only_datasets_reads(path) else "dataset_name": place}


def saved_folder(data: DataConfig) -> Path | None:
    """The folder that `data` names, if `save_to_disk` of `datasets` wrote it."""
    folder = Path(data.place).expanduser()
    return folder if any(all((folder / name).is_file() for name in names) for names in SAVED) else None


class ImageFolder(Source):
    """The image files of a folder. A stream has one part for each of them, so that all are shuffled."""

    def __init__(self, listing: Listing):
        self.listing = listing

    def files(self) -> Files:
        folder, images = self.listing.folder, self.listing.images
        states = [(str(file.relative_to(folder)), *_state(file)) for file in images]
        fingerprint = hashlib.sha256(json.dumps(states).encode()).hexdigest()
        contents = ((str(file.relative_to(folder)), read_file(file)) for file in images)
        return Files(fingerprint, len(states), contents, self.listing.left_out, self.listing.notices)

    def parts(self) -> Parts:
        paths = list(map(str, self.listing.images))

        def read_part(part: int) -> Iterator[dict[str, Any] | None]:
            yield {"path": paths[part], "bytes": None}

        return Parts(
            len(paths), read_part, lambda path: read_file(Path(path)), self.listing.left_out, self.listing.notices
        )

    def columns(self) -> tuple[dict[str, list[Any]], list[str]]:
        return folder_columns(self.listing)


@dataclass(frozen=True)
class Table:
    """Images in the rows of a dataset that lies on the disk.

    Args:
        rows: The dataset.
        folders: Where the files may lie that rows name.
        left_out: As of `Files`.
        notices: As of `Files`.
        states: What changes when its files do, beside the fingerprint that `datasets` gives the rows.
    """

    rows: datasets.Dataset
    folders: tuple[Path, ...]
    left_out: dict[str, int]
    notices: tuple[str, ...]
    states: tuple[tuple[int, int, int], ...] = ()


class TableSource(Source):
    """What all sources share whose images are in the rows of a dataset."""

    def __init__(self, data: DataConfig):
        self.data = data

    @cached_property
    @abstractmethod
    def table(self) -> Table:
        """All rows, on the disk."""

    def files(self) -> Files:
        table = self.table
        rows, column = select_images(table.rows, table.rows.features, self.data.image_column)
        fingerprint = json.dumps([rows._fingerprint, *table.states])
        return Files(fingerprint, len(rows), column_files(rows, column, table.folders), table.left_out, table.notices)

    def columns(self) -> tuple[dict[str, list[Any]], list[str]]:
        names = [name for name, feature in self.table.rows.features.items() if not holds_pictures(feature)]
        return {name: self._values(name) for name in names}, []

    def _values(self, name: str) -> list[Any]:
        values, feature = self.table.rows[name][:], self.table.rows.features[name]
        if not isinstance(feature, datasets.ClassLabel):
            return values
        return [None if value is None else feature.int2str(value) for value in values]


class ParquetFiles(TableSource):
    """A parquet file, or a folder of them."""

    def __init__(self, listing: Listing, data: DataConfig):
        super().__init__(data)
        refuse_pointers(listing.parquet)
        self.listing = listing

    @cached_property
    def table(self) -> Table:
        names = [glob.escape(str(file)) for file in self.listing.parquet]  # `datasets` takes brackets for a pattern
        with loading(f"train_data_dir={self.data.train_data_dir} cannot be read as parquet", self.listing.parquet):
            rows = datasets.Dataset.from_parquet(names)
        return Table(rows, (), self.listing.left_out, self.listing.notices)

    def parts(self) -> Parts:
        files = list(map(str, self.listing.parquet))
        return Parts(
            *_parquet_parts(files, self.data.image_column), names_a_file, self.listing.left_out, self.listing.notices
        )


class SavedDataset(TableSource):
    """A folder that `save_to_disk` of `datasets` wrote."""

    def __init__(self, folder: Path, data: DataConfig):
        super().__init__(data)
        self.folder = folder

    @cached_property
    def table(self) -> Table:
        with loading(f"{self.folder}, which save_to_disk wrote, cannot be loaded", list(self.folder.rglob("*.arrow"))):
            saved = datasets.load_from_disk(str(self.folder))
        if isinstance(saved, datasets.Dataset):
            saved = datasets.DatasetDict({str(saved.split or "train"): saved})
        names, notices = choose_splits(str(self.folder), list(saved), self.data.dataset_split)
        left_out = other_splits({name: len(rows) for name, rows in saved.items()}, names)
        rows = datasets.concatenate_datasets([saved[name] for name in names])
        # its fingerprint is what a file in the folder says
        states = tuple(_state(Path(entry["filename"])) for entry in rows.cache_files)
        return Table(rows, (self.folder.resolve(),), left_out, notices, states)

    def parts(self) -> Parts:
        table = self.table
        rows, column = select_images(table.rows, table.rows.features, self.data.image_column)
        num_parts = max(1, min(len(rows), MAX_PARTS))

        def read_part(part: int) -> Iterator[dict[str, Any] | None]:
            for row in rows.shard(num_parts, part, contiguous=True):
                yield row[column]

        return Parts(num_parts, read_part, names_a_file, table.left_out, table.notices)


class HubDataset(TableSource):
    """A dataset on the Hub, or a folder that is laid out like one."""

    @cached_property
    def table(self) -> Table:
        data = self.data
        notices: tuple[str, ...] = ()
        split = data.dataset_split or "train"
        try:
            rows = self._load(partial(datasets.load_dataset, split=split))
        except ValueError as error:
            if not any(f"{word} split" in str(error) for word in ("Unknown", "Bad")):
                raise
            (split, *_), notices = choose_splits(self._name, self._load(_split_names), data.dataset_split)
            rows = self._load(partial(datasets.load_dataset, split=split))
        sizes = {name: info.num_examples for name, info in (rows.info.splits or {}).items()}
        left_out = _passed_over(Path(data.place), sum(sizes.values()))
        chosen = sizes if split == "all" else {part.split("[")[0] for part in split.split("+")}
        if (beyond := sum(sizes[name] for name in chosen if name in sizes) - len(rows)) > 0:
            left_out["images outside of the slice"] = beyond
        # where the files lie that rows name; the last is a folder if the dataset is one on this machine
        folders = [datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE, data.place]
        resolved = tuple(Path(folder).resolve() for folder in folders)
        return Table(rows, resolved, other_splits(sizes, chosen) | left_out, notices)

    def parts(self) -> Parts:
        builder = self._load(datasets.load_dataset_builder)
        if isinstance(builder, FolderBasedBuilder):  # labels are not needed here, and fail for a zip: see `_load`
            builder = self._load(datasets.load_dataset_builder, drop_labels=True)
        files = {str(split): list(map(str, paths)) for split, paths in (builder.config.data_files or {}).items()}
        sizes = {name: info.num_examples for name, info in (builder.info.splits or {}).items()}
        names, notices = choose_splits(self._name, list(files or sizes), self.data.dataset_split)
        if unknown := [name for name in files if name not in names and not sizes.get(name)]:
            notices += (f"Images of other splits, which are not counted here, are left out: {', '.join(unknown)}.",)
        left_out = other_splits(sizes, names)
        if files and isinstance(builder, Parquet):
            chosen = [file for name in names for file in files[name]]
            return Parts(*_parquet_parts(chosen, self.data.image_column), names_a_file, left_out, notices)
        shards = [builder.as_streaming_dataset(split=name) for name in names]
        read = partial(read_own, own_files={file for paths in files.values() for file in paths})
        return Parts(*_shard_parts(shards, self.data.image_column), read, left_out, notices)

    @property
    def _name(self) -> str:
        return f"dataset_name={self.data.dataset_name}"

    def _load(self, load: Callable[..., Any], **options: Any) -> Any:
        """What `load` returns for this dataset; it is called like `datasets.load_dataset`."""
        name, config, revision = self.data.place, self.data.dataset_config_name, self.data.revision
        place = Path(name)
        if place.is_file():
            raise ValueError(
                f"{self._name} is a file; give a parquet file as --train_data_dir, and of any other file the folder "
                "that holds it."
            )
        files = [file for file in place.rglob("*") if file.is_file()] if place.is_dir() else []
        origin = "" if place.is_dir() else " from the Hub"
        with loading(f"{self._name} cannot be loaded{origin}", files):
            try:
                return load(name, config, revision=revision, **options)
            except Exception as error:
                # `datasets` takes the names of folders in a zip for labels, and then the zip's own folder for one
                if options or "Invalid string class label" not in str(error.__cause__ or error):
                    raise
                print(f"{self._name}: the folders in its zip are not read as labels.", file=sys.stderr)
                return load(name, config, revision=revision, drop_labels=True)


def _split_names(name: str, config: str | None, revision: str | None) -> list[str]:
    return datasets.get_dataset_split_names(name, config, revision=revision)


def _passed_over(place: Path, num_rows: int) -> dict[str, int]:
    """Images in a local folder that `datasets` did not find: it follows no links to folders."""
    try:
        missing = len(list_folder(str(place), "all").images) - num_rows if place.is_dir() else 0
    except ValueError:  # no folder of images
        return {}
    return {"images that the datasets library skipped": missing} if missing > 0 else {}


def _state(file: Path) -> tuple[int, int, int]:
    """What changes with the content of a file: an archive may give all of its files one time, but not their ctime."""
    state = file.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _parquet_parts(files: list[str], column: str | None) -> tuple[int, ReadPart]:
    """Each file is a part. They are not read through `IterableDataset`: it holds a whole file in memory, and a process
    that stops in the middle of one hangs or aborts at its exit, and training stops there
    (https://github.com/apache/arrow/issues/45214)."""
    with loading(f"{files[0]} cannot be read as parquet", list(map(Path, files))), xopen(files[0], "rb") as file:
        schema = read_schema(file)
    column = find_image_column(datasets.Features.from_arrow_schema(schema), column)

    def read_part(part: int) -> Iterator[dict[str, Any] | None]:
        with (
            xopen(files[part], "rb") as file,
            ParquetFile(file, pre_buffer=False, buffer_size=READ_BUFFER) as parquet,
        ):
            for rows in parquet.iter_batches(ROWS_READ, columns=[column], use_threads=False):
                for value in rows[column].to_pylist():
                    yield value if isinstance(value, dict | None) else {"path": None, "bytes": value}

    return len(files), read_part


def _shard_parts(splits: list[datasets.IterableDataset], column: str | None) -> tuple[int, ReadPart]:
    """The shards of one split after the other, up to `MAX_PARTS` of each."""
    parts = []
    for split in splits:
        rows, column = select_images(split, splits[0].features, column)
        num_parts = min(rows.num_shards, MAX_PARTS)
        parts += [(rows, num_parts, part) for part in range(num_parts)]

    def read_part(part: int) -> Iterator[dict[str, Any] | None]:
        rows, num_parts, number = parts[part]
        # cut out anew each time: two readers of one IterableDataset, such as training and a preview, share a position
        for row in rows.shard(num_parts, number):
            yield row[column]

    return len(parts), read_part
