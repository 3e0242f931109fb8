"""Which split that a dataset comes with is used (train, test ...), and which images are left out: `--dataset_split`.

See `split` for the split into training and held-out images.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from pyarrow.parquet import read_metadata

from .messages import printable


SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
# "seg_train", "test2017", "trainA", "training_set"; but no "Val_Kilmer": val and dev are names of people as well
SPLIT_WORD = re.compile(
    r"(?<![a-z])(train|training|valid|validation|test|testing|eval|evaluation)(?:set|[ab])?(?![a-z])"
)
SPLIT_NAME = re.compile(r"(?:(?:.*[-_ .])?(val)|(dev))(?:set|[ab])?(?:[-_ .]?(?:images?|imgs?|data|set|\d).*)?")


def choose_splits(place: str, names: list[str], wanted: str | None) -> tuple[list[str], tuple[str, ...]]:
    """The splits of a dataset to read, and a notice about the choice.

    Args:
        place: The dataset, as an error names it.
        names: The splits that it has.
        wanted: The name of a split, several names with "+" between them, "all", or None for train or the only split.

    Raises:
        ValueError: If the dataset has no such split.
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
    """The number of images left out by the choice of splits, given the size of each."""
    return {f"images of the split {name}": size for name, size in sizes.items() if name not in chosen and size}


def choose_files(
    named: str, root: Path, files: list[Path], wanted: str | None
) -> tuple[list[Path], dict[str, int], tuple[str, ...]]:
    """The files of a folder to use, the number of images left out for each reason, and a notice about the choice."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(_group(file.relative_to(root)), []).append(file)
    splits = {group: SPLITS[word] for group in groups if (word := split_word(group))}
    if "" in groups:  # files outside of all splits
        splits[""] = "" if "train" in splits.values() else "train"
    # a folder called train beside others is a class of vehicles, unless one of them is called like a split, too
    if wanted == "all" or (wanted in (None, "train") and set(splits.values()) <= {"", "train"}):
        chosen = set(groups)
    elif wanted is None:
        chosen = {group for group in groups if splits[group] == "train"} or set(groups)
        if "train" not in splits.values() and len(set(splits.values())) > 1:
            raise ValueError(f"{named} has no train/: found in {_counts(groups)}. Choose with --dataset_split.")
    else:
        names = {name.strip().lower() for name in wanted.split("+")}
        chosen = {group for group in groups if names & {group.lower(), splits[group]} - {""}}
        missing = names - {name for group in chosen for name in (group.lower(), splits[group])}
        if missing:
            raise ValueError(no_such_split(named, wanted, sorted(set(groups) - {""}) or ["train"]))
    left_out = {_left_out(group): _num_images(groups[group]) for group in groups if group not in chosen}
    if set(splits.values()) <= {"", "train"} and not left_out:
        return files, {}, ()
    used = ", ".join(_folder(group) for group in groups if group in chosen)
    notice = f"{named} has folders or files with the names of splits: found in {_counts(groups)}. Used: {used}."
    if left_out:
        notice += " Pass --dataset_split with the name of another split, or with all."
    return sorted(file for group in chosen for file in groups[group]), left_out, (notice,)


def split_word(name: str) -> str | None:
    """The word that marks the name of a folder or parquet file as that of a split, such as "valid"."""
    found = SPLIT_WORD.search(name.lower()) or SPLIT_NAME.fullmatch(name.lower())
    return next(filter(None, found.groups())) if found else None


def no_such_split(named: str, wanted: str, splits: list[str]) -> str:
    """The error about a split that does not exist."""
    return f"{named} has no split {wanted!r}. Splits here: {', '.join(splits)}; choose one with --dataset_split."


def _group(file: Path) -> str:
    """The folder with the name of a split that a file lies in, or the word in a parquet file's name, or ""."""
    folder = next((part for part in file.parts[:-1] if split_word(part)), "")
    return folder or (file.suffix.lower() == ".parquet" and split_word(file.stem)) or ""


def _folder(group: str) -> str:
    return f"{printable(group)}/" if group else "other folders"


def _left_out(group: str) -> str:
    return f"images of the split {printable(group)}" if group else "images outside of the splits"


def _counts(groups: dict[str, list[Path]]) -> str:
    return ", ".join(f"{_folder(group)} {_num_images(files):,}" for group, files in groups.items())


def _num_images(files: list[Path]) -> int:
    """The number of files, or of rows if they are parquet files. A broken parquet file has none."""
    if files[0].suffix.lower() != ".parquet":
        return len(files)
    return sum(_num_rows(file) for file in files)


def _num_rows(file: Path) -> int:
    try:
        return read_metadata(file).num_rows
    except (OSError, ValueError):
        return 0
