"""Which images of a dataset a run trains on, and which it holds out.

Images are recorded by their content: the split stays the same when the folder is moved or files are renamed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..atomic import write_text_whole
from ..run_folder import SPLIT_FILE


MIN_HELDOUT = 2  # a single image has no distance to others
SHOWN = 5  # names in an error


@dataclass(frozen=True)
class Split:
    """The digests of the images on either side, sorted. A digest is the start of the SHA-256 of an image's file.

    Args:
        train: The training images; empty for a stream, whose images are not counted.
        heldout: The held-out images, on which every metric is measured.
    """

    train: tuple[str, ...]
    heldout: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """A digest of the whole split: the same images on the same sides have the same fingerprint."""
        return hashlib.sha256(json.dumps([self.train, self.heldout]).encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Writes `split.json`."""
        write_text_whole(folder / SPLIT_FILE, json.dumps({"train": self.train, "heldout": self.heldout}) + "\n")


def read_split(folder: Path) -> Split | None:
    """The split that a run or a published model in `folder` recorded. None if there is no `split.json`.

    Raises:
        ValueError: If `split.json` cannot be read.
    """
    file = folder / SPLIT_FILE
    if not file.is_file():
        return None
    try:
        sides = json.loads(file.read_text())
        split = Split(tuple(sides["train"]), tuple(sides["heldout"]))
        is_sound = all(isinstance(digest, str) for digest in split.train + split.heldout)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read: {error}. Restore it, or start a new run.") from error
    if not is_sound:
        raise ValueError(f"{file} cannot be read: it must hold lists of digests. Restore it, or start a new run.")
    return split


def draw_split(digests: Sequence[str], validation_fraction: float, seed: int, known: Split | None = None) -> Split:
    """Draws a split of the images with these `digests`. It depends on their content and `seed` alone.

    Args:
        digests: One for each image, in any order.
        validation_fraction: Share of the images that is held out. At least two are.
        seed: Another seed holds out other images.
        known: The split of the model that a run starts from. Its images stay on their side, because the model has seen
            its training images; the share is drawn from the other images. The split of a stream lists no training
            images. If some of its held-out images are here, no others are held out.

    Raises:
        ValueError: If no image is left to train on, or too few to hold out.
    """
    train = set(digests) & set(known.train if known else ())
    heldout = set(digests) & set(known.heldout if known else ())
    free = sorted(
        set(digests) - train - heldout, key=lambda digest: hashlib.sha256(f"{seed} {digest}".encode()).digest()
    )
    if known and not known.train and heldout:
        train, free = train.union(free), []
    if 0 < validation_fraction < 1:
        count = max(round(validation_fraction * len(free)), MIN_HELDOUT - len(heldout))
        train, heldout = train.union(free[count:]), heldout.union(free[:count])
        if train and len(heldout) >= MIN_HELDOUT:
            return Split(tuple(sorted(train)), tuple(sorted(heldout)))
    if known and not free:
        raise ValueError(
            f"Of these {len(digests)} images, the model that the run starts from was trained on {len(train)} and held "
            f"out {len(heldout)}; at least {MIN_HELDOUT} must be held out. Add images that are new to it."
        )
    raise ValueError(
        f"validation_fraction={validation_fraction} of {len(digests)} images leaves none to train on or to hold out; "
        "choose a value between 0 and 1, such as 0.1, or add images."
    )


def first_edition_split(digests: Sequence[str], validation_fraction: float, seed: int) -> Split:
    """The split of a model that was published before splits were recorded. It depended on the order of the files."""
    order = torch.randperm(len(digests), generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(MIN_HELDOUT, round(validation_fraction * len(digests)))
    heldout, train = ([digests[place] for place in places] for places in (order[:count], order[count:]))
    return Split(tuple(sorted(train)), tuple(sorted(heldout)))


def refuse_other_images(split: Split, digests: Sequence[str], names: Sequence[str], place: str, exact: bool) -> None:
    """Compares the images at `place` with those that a run recorded.

    Args:
        split: What was recorded.
        digests: The digests of the images at `place`.
        names: Their names, in the same order.
        place: The dataset, as the user named it.
        exact: Whether both must be the same images, as for a run that is resumed. Otherwise all held-out images must
            be there, and other differences are printed.

    Raises:
        ValueError: If they differ; the message counts missing images and names new ones.
    """
    missing_train, missing_heldout = (len(set(part) - set(digests)) for part in (split.train, split.heldout))
    recorded = {*split.train, *split.heldout}
    new = [name for name, digest in zip(names, digests, strict=True) if digest not in recorded]
    if not (new or missing_train or missing_heldout):
        return
    more = f" and {len(new) - SHOWN:,} more" if len(new) > SHOWN else ""
    found = [f"{len(new):,} new ({', '.join(new[:SHOWN])}{more})"] if new else []
    found += [f"{missing_train:,} of {len(split.train):,} training images missing"] if missing_train else []
    found += [f"{missing_heldout:,} of {len(split.heldout):,} held-out images missing"] if missing_heldout else []
    text = f"{place} does not hold the images that the run recorded: {'; '.join(found)}."
    if exact:
        raise ValueError(
            f"{text} Restore the dataset, or pass its new place as --train_data_dir. To train on other images, "
            "start a new run: another --output_dir, and --pretrained_model_name_or_path to start from these weights."
        )
    if missing_heldout:
        raise ValueError(f"{text} Name the dataset that the model was trained on with --train_data_dir.")
    print(f"{text} New images are left out.")


def positions(digests: Sequence[str], side: Sequence[str]) -> torch.Tensor:
    """The positions in `digests` of the images of one side, in the order of `side` and not of the files."""
    places = {digest: place for place, digest in enumerate(digests)}
    return torch.tensor([places[digest] for digest in side if digest in places], dtype=torch.long)
