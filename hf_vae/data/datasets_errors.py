"""Turns errors of the datasets library and Arrow into one sentence with the cause and the way out."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from huggingface_hub import constants

from .messages import printable, refuse_pointers


NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@contextmanager
def loading(what: str, files: list[Path]) -> Iterator[None]:
    """Turns every error of `datasets` and Arrow into one sentence with the cause and the way out.

    Args:
        what: The beginning of the sentence.
        files: The user's files that are read, as far as they are known.

    Raises:
        ValueError: In place of the library's error.
        OSError: If the cache of `datasets` cannot be written.
    """
    try:
        yield
    except Exception as error:  # these libraries pass on errors of every kind
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
    """Whether an error is about the cache of `datasets`, and not about one of the user's `files`."""
    if cause.errno in NOT_WRITABLE:
        return not any(printable(str(file)) in text for file in files)
    caches = [Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]
    return cause.errno is not None and any(cause.filename == str(part) for part in (*caches, *caches[0].parents))


def _explained(cause: BaseException, text: str) -> str:
    """The cause and, if it is known, the way out."""
    if isinstance(cause, UnicodeEncodeError):
        return f"a name is not UTF-8: {printable(cause.object)}. Rename it, or give the folder as --train_data_dir."
    if isinstance(cause, datasets.table.CastError):
        ours, theirs = set(cause.requested_column_names), set(cause.table_column_names)
        columns = ", ".join(sorted(ours ^ theirs)) or "one of them is of another type"
        return f"its files have different columns ({columns}). Give files with the same columns."
    return text if len(text) <= 500 else f"{text[:500]} ..."
