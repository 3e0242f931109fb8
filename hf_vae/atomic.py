"""Writes files so that a file is whole if its name exists, even if the machine fails while it is written."""

import os
from collections.abc import Callable
from pathlib import Path


def write_text_whole(path: Path, text: str) -> None:
    """Writes a text file with `write_whole`."""
    write_whole(path, lambda unfinished: unfinished.write_text(text))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file under another name beside `path`, and moves it to `path` when it is complete.

    Args:
        path: The file to write or replace.
        write: Writes the content to the path that it is given.

    Raises:
        Exception: Whatever `write` raises. An earlier file at `path` stays as it was.
    """
    unfinished = path.with_name(f".writing-{path.name}")
    try:
        write(unfinished)
        flush_to_disk(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Waits until a file, or a folder's list of files, is on the disk itself."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
