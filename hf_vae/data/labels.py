"""The labels of images: columns of a dataset or of parquet files, class folders, and metadata files of a folder."""

import sys
from typing import Any

from ..config import DataConfig
from .cached import DataSplits
from .presets import with_preset
from .sources import Source, open_source


def load_labels(data: DataConfig, column: str, splits: DataSplits) -> list[Any]:
    """The label in `column` of each image in `splits.train.images`; None where an image has none.

    The labels of `splits.train` are at `splits.train.indices`, those of `splits.heldout` at its own. Classes are given
    by their names.

    Args:
        data: What `splits` were loaded from.
        column: A column of the dataset, the parquet file or the folder's metadata files; or "label" for the names of
            class folders.
        splits: What `load_images` returned for `data`. A stream has no labels, as its images are not numbered.

    Raises:
        ValueError: If there is no such column; the message names the columns that exist.
    """
    columns, problems = open_source(with_preset(data)).columns()
    if column not in columns:
        raise ValueError(
            " ".join([f"There is no label column {column!r}; there are: {', '.join(columns) or 'none'}.", *problems])
        )
    return [columns[column][row] for row in splits.rows]


def read_columns(source: Source) -> dict[str, list[Any]]:
    """Every label column of a source, with one value for each of its files, in their order.

    A metadata file that cannot be used is named on the standard error, and left out.
    """
    columns, problems = source.columns()
    for problem in problems:
        print(problem, file=sys.stderr)
    return columns
