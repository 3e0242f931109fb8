"""Writing so that a name that exists is a file that is whole, whenever the machine goes down."""

import os
from collections.abc import Callable
from pathlib import Path


def write_text_whole(path: Path, text: str) -> None:
    """Writes a text as `write_whole` does."""
    write_whole(path, lambda unfinished: unfinished.write_text(text))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Has `write` write a file beside `path`, whose name it is given, and moves it into place.

    Raises:
        Exception: Whatever `write` raises. What was at `path` before stays.
    """
    unfinished = path.with_name(f".writing-{path.name}")
    try:
        write(unfinished)
        flush_to_disk(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Waits until a file, or the list of a folder's files, is on the disk itself."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
