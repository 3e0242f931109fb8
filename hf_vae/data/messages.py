"""Text from other people's files, made safe to print, and the words on files that Git LFS has not fetched."""

from collections.abc import Iterable
from pathlib import Path

from ..models.loading import is_lfs_pointer


LFS_HINT = "is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository"


def printable(text: str) -> str:
    """`text` with what is not text in it, such as commands to a terminal or half of a character, spelled out."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def refuse_pointers(files: Iterable[Path]) -> None:
    """Raises a `ValueError` if Git left a pointer in place of one of the files."""
    if pointer := next(filter(is_lfs_pointer, files), None):
        raise ValueError(f"{printable(str(pointer))} {LFS_HINT}.")
