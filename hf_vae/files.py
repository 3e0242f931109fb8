"""Writing so that a name that exists is a file that is whole, whenever the machine goes down."""

import os
from pathlib import Path


def write_text_whole(path: Path, text: str) -> None:
    """Writes a file beside `path` and moves it into place."""
    unfinished = path.with_name(f".writing-{path.name}")
    unfinished.write_text(text)
    flush_to_disk(unfinished)
    unfinished.replace(path)


def flush_to_disk(path: Path) -> None:
    """Waits until a file, or the list of a folder's files, is on the disk itself."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
