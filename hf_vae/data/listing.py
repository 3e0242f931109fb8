"""Which files in a folder are images, and which files are left out and why."""

import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..pictures import IMAGE_FORMATS
from .dataset_splits import choose_files, no_such_split, split_word
from .messages import printable


# for a file with an unknown ending: formats that its first bytes prove (camera raw files begin like TIFF)
CERTAIN_FORMATS = tuple(name for name in IMAGE_FORMATS if name not in ("TIFF", "TGA"))
IMAGE_ENDINGS = {ending for ending, kind in Image.registered_extensions().items() if kind in (*IMAGE_FORMATS, "MPO")}
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # as `datasets` reads an "imagefolder"
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}  # left out and not counted, like .DS_Store
# that other programs create; names that begin with "." or "__" are hidden as well
FOREIGN_FOLDERS = {"@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "venv", "node_modules"}
LISTED_ENDINGS = 10  # endings that are counted one by one

ARCHIVES = {".zip", ".tar", ".gz", ".tgz"}
OTHER_ARCHIVES = {".7z", ".rar", ".bz2", ".xz", ".zst"}
ARRAYS = {".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".pickle", ".pt"}
TABLES = {".csv", ".tsv", ".json", ".jsonl", ".txt", ".xlsx"}
COPIES = {
    ".bak",
    ".orig",
    ".old",
    ".tmp",
    ".part",
    ".crdownload",
    ".thm",
}  # of images, by editors, browsers and cameras


@dataclass(frozen=True)
class Listing:
    """The files that a folder offers for training.

    Args:
        folder: The folder, or the one parquet file.
        images: Files that are images by their ending, or by their content if the ending is unknown; sorted.
        parquet: Parquet files. A folder has either images or parquet files.
        metadata: Metadata files about `images`.
        left_out: Number of files that are not used, for each reason.
        notices: Sentences to print before training, such as which split is used.
    """

    folder: Path
    images: list[Path]
    parquet: list[Path]
    metadata: list[Path]
    left_out: dict[str, int]
    notices: tuple[str, ...] = ()


def list_folder(train_data_dir: str, dataset_split: str | None = None) -> Listing:
    """Lists the images in a folder and its subfolders, or its parquet files, in the order of their paths.

    Linked folders are followed, and each folder is read once. Hidden files and folders, and those that programs leave
    behind, are left out. `dataset_split` chooses among folders (or parquet files) with the name of a split. None takes
    `train`, or the files outside of all splits; a notice says which.

    Raises:
        ValueError: If there is nothing to train on, or both images and parquet, or no such split.
    """
    path = Path(train_data_dir).expanduser()
    named = f"train_data_dir={printable(train_data_dir)}"
    if not path.exists():
        raise ValueError(f"{named} does not exist; pass the folder of the images.")
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise ValueError(f"{named} {_what_to_do_with(path)}")
        if dataset_split not in (None, "all", "train", split_word(path.stem)):
            raise ValueError(no_such_split(named, dataset_split, [split_word(path.stem) or "train"]))
        return Listing(path, [], [path], [], {})
    files, left_out = _walk(path)
    images = [file for file in files if is_image(file)]
    metadata = [file for file in files if file.name in METADATA_FILES]
    parquet = [file for file in files if file.suffix.lower() == ".parquet" and file not in metadata]
    if not parquet and not images:
        raise ValueError(_nothing_found(named, files, left_out))
    if parquet and images:
        raise ValueError(f"{named} holds both images and parquet; name one of them.")
    taken = {*images, *parquet, *metadata}
    left_out.update(_other_endings(file for file in files if file not in taken))
    usable, others, notices = choose_files(named, path, images or parquet, dataset_split)
    roots = {part for file in usable for part in file.parents}  # metadata beside images of another split is not needed
    metadata = [file for file in metadata if file.parent in roots]
    images, parquet = (usable, []) if images else ([], usable)
    return Listing(path, images, parquet, metadata, dict(left_out) | others, notices)


def only_datasets_reads(path: Path) -> bool:
    """Whether a folder holds archives or Arrow files, which `datasets` reads, and neither images nor parquet."""
    if not path.is_dir():
        return False
    files, _ = _walk(path)
    endings = {file.suffix.lower() for file in files if file.name not in METADATA_FILES}
    return not any(map(is_image, files)) and ".parquet" not in endings and bool(endings & (ARCHIVES | {".arrow"}))


def is_image(file: Path) -> bool:
    """Whether a file is an image: by its ending, or by its content if it has no ending or an unknown one, such as
    "face.happy"."""
    ending = file.suffix.lower()
    if ending in IMAGE_ENDINGS:
        return True
    if ending in ARCHIVES | OTHER_ARCHIVES | ARRAYS | TABLES | COPIES | {".parquet", ".arrow"} or ending.endswith("~"):
        return False
    try:
        with Image.open(file, formats=CERTAIN_FORMATS if ending else IMAGE_FORMATS):
            return True
    except Exception:  # Pillow raises whatever its decoders run into
        return False


def _walk(root: Path) -> tuple[list[Path], Counter[str]]:
    """All visible files in a folder and its subfolders, in the order of their paths, and the number left out for each
    reason.

    A folder is entered once, however many links lead to it, and by its own path rather than by that of a link. So
    loops of links end.
    """
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    entered: set[tuple[int, int]] = set()
    folders, linked = [root], deque[Path]()
    while folders or linked:
        folder = folders.pop() if folders else linked.popleft()
        try:
            place = folder.stat()
            if (place.st_dev, place.st_ino) in entered:
                left_out["linked folders that were read already"] += 1
                continue
            entered.add((place.st_dev, place.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except PermissionError:
            if folder == root:
                raise
            left_out["folders that may not be read"] += 1
            continue
        for entry in entries:
            kind, file = _kind(entry), folder / entry.name
            if _is_hidden(entry.name, kind == "folder"):
                _count_hidden(file, kind, left_out)
            elif kind == "folder":
                (linked if entry.is_symlink() else folders).append(file)
            elif kind == "file":
                files += [file] * (entry.name.lower() not in SYSTEM_FILES)
            else:
                left_out[kind] += 1
    return sorted(files), left_out


def _kind(entry: os.DirEntry) -> str:
    """ "folder" or "file", with links followed, or the name of any other kind."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # a link to itself, or through a folder that may not be read
        pass
    return "links that lead nowhere" if entry.is_symlink() else "pipes, sockets and devices"


def _is_hidden(name: str, is_folder: bool) -> bool:
    """Whether a name is hidden. A zip from a Mac has a `._name.jpg`, which is not an image, beside each image, and
    notebooks keep copies in `.ipynb_checkpoints`."""
    return name.startswith(".") or (is_folder and (name.startswith("__") or name.lower() in FOREIGN_FOLDERS))


def _count_hidden(file: Path, kind: str, left_out: Counter[str]) -> None:
    """Counts what looks like an image. Other hidden files are not counted, as they are not expected to be used."""
    if kind == "folder":
        names = [name for _, _, names in os.walk(file) for name in names]
        reason = "images in hidden folders"
    else:
        names, reason = [file.name], "hidden images"
    if count := sum(Path(name).suffix.lower() in IMAGE_ENDINGS for name in names):
        left_out[reason] += count


def _other_endings(files: Iterable[Path]) -> dict[str, int]:
    counted = Counter(printable(file.suffix.lower()) for file in files)
    reasons = {
        f"files with the ending {ending}" if ending else "files without an ending that are not images": count
        for ending, count in counted.most_common(LISTED_ENDINGS)
    }
    if rest := counted.total() - sum(reasons.values()):
        reasons["files with other endings"] = rest
    return reasons


def _what_to_do_with(file: Path) -> str:
    """The rest of an error about a file that was given in place of a folder: what it is, and what to give instead."""
    ending = file.suffix.lower()
    if is_image(file):
        return "is an image file; give the folder that holds it."
    if ending in ARCHIVES:
        return (
            "is an archive; unpack it and give that folder, or put it into a folder of its own and give that one as "
            "--dataset_name."
        )
    if ending in OTHER_ARCHIVES:
        return "is an archive; unpack it and give that folder."
    if ending in ARRAYS:
        return "holds arrays; save each as an image file, with Pillow's Image.fromarray(array).save(...), in a folder."
    if ending in TABLES:
        return (
            "is a table; give the folder of the images that it describes. A metadata.csv in there, with a column "
            "file_name, holds their labels."
        )
    if ending == ".arrow":
        return "is an Arrow file; give the folder that holds it as --dataset_name."
    return "is a file; give a folder of images, or a parquet file."


def _nothing_found(named: str, files: list[Path], left_out: dict[str, int]) -> str:
    """The error about a folder without images: what it holds instead, and what to do about it."""
    endings = {file.suffix.lower() for file in files}
    message = f"{named} holds no image file, such as .jpg or .png, and no .parquet file."
    if found := _other_endings(files) | left_out:
        message += f" Files that are not read: {as_text(found)}."
    if endings & (ARCHIVES | {".arrow"}):
        return f"{message} Give the folder as --dataset_name, which reads zip, tar and Arrow files, or unpack them."
    if endings & OTHER_ARCHIVES:
        return f"{message} Unpack the archives."
    if endings & ARRAYS:
        return f"{message} Save arrays as image files, with Pillow's Image.fromarray(array).save(...)."
    return f"{message} Convert images in other formats to JPEG or PNG." if found else message


def as_text(left_out: dict[str, int]) -> str:
    """Reasons and their counts in one line."""
    return ", ".join(f"{reason}: {count:,}" for reason, count in left_out.items())
