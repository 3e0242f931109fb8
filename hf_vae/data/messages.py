"""Parts of messages: untrusted text made safe to print, and the advice on Git LFS pointers."""

from collections.abc import Iterable
from pathlib import Path

from ..models.loading import is_lfs_pointer


LFS_HINT = "is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository"


def printable(text: str) -> str:
    """`text` with unprintable characters spelled out, such as terminal commands and halves of characters."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def refuse_pointers(files: Iterable[Path]) -> None:
    """Raises a `ValueError` if one of the files is a Git LFS pointer."""
    if pointer := next(filter(is_lfs_pointer, files), None):
        raise ValueError(f"{printable(str(pointer))} {LFS_HINT}.")
