"""Which split of a dataset is used (train, test ...), and which images are left out for that: `--dataset_split`.

The split into training and held-out images is another one: see `split`.
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


def choose_files(
    named: str, root: Path, files: list[Path], wanted: str | None
) -> tuple[list[Path], dict[str, int], tuple[str, ...]]:
    """The files to use, how many images are in each other split, and what to say about it."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(_group(file.relative_to(root)), []).append(file)
    splits = {group: SPLITS[split_word(group)] for group in groups if group}
    if "" in groups:  # outside of all splits
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
    notice = f"{named} has folders or files that are called like splits: found in {_counts(groups)}. Used: {used}."
    if left_out:
        notice += " Pass --dataset_split with the name of another split, or with all."
    return sorted(file for group in chosen for file in groups[group]), left_out, (notice,)


def split_word(name: str) -> str | None:
    """The word in the name of a folder or parquet file that says that it is a split, such as "valid"."""
    found = SPLIT_WORD.search(name.lower()) or SPLIT_NAME.fullmatch(name.lower())
    return next(filter(None, found.groups())) if found else None


def no_such_split(named: str, wanted: str, splits: list[str]) -> str:
    """The sentence about a split that does not exist."""
    return f"{named} has no split {wanted!r}. Splits here: {', '.join(splits)}; choose one with --dataset_split."


def _group(file: Path) -> str:
    """The folder that makes a file part of a split, or the word in the name of a parquet file; else nothing."""
    folder = next((part for part in file.parts[:-1] if split_word(part)), "")
    return folder or (file.suffix.lower() == ".parquet" and split_word(file.stem)) or ""


def _folder(group: str) -> str:
    return f"{printable(group)}/" if group else "other folders"


def _left_out(group: str) -> str:
    return f"images of the split {printable(group)}" if group else "images outside of the splits"


def _counts(groups: dict[str, list[Path]]) -> str:
    return ", ".join(f"{_folder(group)} {_num_images(files):,}" for group, files in groups.items())


def _num_images(files: list[Path]) -> int:
    """Files, or rows of parquet files; one that is not parquet has none."""
    if files[0].suffix.lower() != ".parquet":
        return len(files)
    return sum(_num_rows(file) for file in files)


def _num_rows(file: Path) -> int:
    try:
        return read_metadata(file).num_rows
    except (OSError, ValueError):
        return 0
