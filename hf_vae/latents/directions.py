"""What is known of the labels of a model's training images, stored beside its weights: directions of latent space that
they lie along, and the code given the labels. `fit_directions` learns both."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..models.loading import refuse_lfs_pointer
from ..models.priors import CODE
from ..models.priors.code import CODE_DIM
from ..run_folder import DIRECTIONS_FILE
from .labelled_codes import Label, LabelledCodes, NumberLabel, WordLabel, are_numbers


MAX_FEATURES = 1000  # of all labels of a file together


@dataclass(frozen=True)
class Direction:
    """What a probe learned about one label.

    Args:
        name: The column of labels.
        low: What lies against the direction, in words: "male", or "age up to 29".
        high: What lies along it: "female", or "age above 29".
        accuracy: Balanced accuracy of the probe on held-out images: the mean of the shares of both sides that it
            classifies correctly. Guessing reaches 0.5.
        num_heldout: Number of held-out images.
        vector: One step of a slider, as `ImagePipeline.shift` takes it. In a model with a code, `(code_dim,)`: the
            way between the two sides along the principal components of the code, in standard deviations, see
            `fit_directions`. In others, `(Z,)`: one standard deviation of the training images' latents along the
            direction.
    """

    name: str
    low: str
    high: str
    accuracy: float
    num_heldout: int
    vector: torch.Tensor


def direction_size(config: Mapping[str, Any]) -> int:
    """The length of the directions of a model with this configuration: `code_dim` if it has a code, else
    `latent_dim`."""
    return config.get("code_dim", CODE_DIM) if config["prior"] == CODE else config["latent_dim"]


def write_directions(folder: Path, directions: list[Direction], codes: LabelledCodes | None = None) -> Path:
    """Writes `directions.safetensors` into a model's folder, replacing an earlier one, and returns its path."""
    path = folder / DIRECTIONS_FILE
    facts = [
        {"name": each.name, "low": each.low, "high": each.high, "accuracy": each.accuracy, "heldout": each.num_heldout}
        for each in directions
    ]
    tensors = {str(number): each.vector.cpu().contiguous() for number, each in enumerate(directions)}
    metadata = {"directions": json.dumps(facts)}
    if codes is not None:
        tensors |= {"codes.mean": codes.mean.cpu().contiguous(), "codes.root": codes.root.cpu().contiguous()}
        metadata["labels"] = json.dumps([asdict(label) for label in codes.labels])
    save_stored(path, tensors, metadata)
    return path


def read_directions(folder: Path, size: int) -> list[Direction]:
    """The directions of the model in `folder`; an empty list if none were fitted.

    Args:
        folder: Folder of the model.
        size: Their length, see `direction_size`.

    Raises:
        ValueError: If the file is not as `write_directions` writes it, or is for another latent space.
    """
    path = folder / DIRECTIONS_FILE
    if not path.is_file():
        return []
    with open_stored(path, "directions") as file:
        facts = json.loads(file.metadata()["directions"])
        slices = [file.get_slice(str(number)) for number in range(len(facts))]
        if any(part.get_shape() != [size] or part.get_dtype() != "F32" for part in slices):
            raise ValueError(f"{path} is for another latent space than one of {size} dimensions.")
        found = [
            Direction(
                str(fact["name"]),
                str(fact["low"]),
                str(fact["high"]),
                float(fact["accuracy"]),
                int(fact["heldout"]),
                part[:],
            )
            for fact, part in zip(facts, slices, strict=True)
        ]
    if not all(each.vector.isfinite().all() for each in found):
        raise ValueError(f"{path} has values that are not finite.")
    return found


def read_labelled_codes(folder: Path, config: Mapping[str, Any]) -> LabelledCodes | None:
    """The codes given labels of the model in `folder`, with the configuration `config`; None if there are none.

    Raises:
        ValueError: If the file is not as `write_directions` writes it, or is for another code.
    """
    path = folder / DIRECTIONS_FILE
    if config["prior"] != CODE or not path.is_file():
        return None
    code_dim = direction_size(config)
    with open_stored(path, "directions") as file:
        metadata = file.metadata()
        if "labels" not in metadata:
            return None
        labels = tuple(_read_label(fact) for fact in json.loads(metadata["labels"]))
        num_features = sum(label.num_features for label in labels)
        if not labels or num_features > MAX_FEATURES or len({label.name for label in labels}) < len(labels):
            raise TypeError(f"{len(labels)} labels with {num_features} features are not possible")
        size = code_dim + num_features
        mean, root = (file.get_slice(f"codes.{name}") for name in ("mean", "root"))
        shapes = mean.get_shape(), root.get_shape()
        if shapes != ([size], [size, size]) or {mean.get_dtype(), root.get_dtype()} != {"F32"}:
            raise ValueError(f"{path} is for another code than one of {code_dim} numbers.")
        found = LabelledCodes(labels, mean[:], root[:])
    if not (found.mean.isfinite().all() and found.root.isfinite().all()):
        raise ValueError(f"{path} has values that are not finite.")
    return found


def save_stored(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file that `open_stored` reads, replacing an earlier one."""
    path.touch()  # with the usual mode; safetensors makes a file that only its owner may read
    mode = path.stat().st_mode
    save_file(tensors, path, metadata)
    path.chmod(mode)


@contextmanager
def open_stored(path: Path, kind: str) -> Iterator[Any]:
    """Opens a safetensors file that holds something of this kind, and turns an error of what is not as it should be in
    it into one sentence.

    Raises:
        ValueError: If it is a Git LFS pointer or no such file, or a key, type or value in it is not as expected.
    """
    refuse_lfs_pointer(path, kind)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (
        *(SafetensorError, KeyError, TypeError, AttributeError),
        *(json.JSONDecodeError, OverflowError, RecursionError),
    ) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _read_label(fact: dict[str, Any]) -> Label:
    if "words" in fact:
        words = tuple(str(word) for word in fact["words"])
        if not 2 <= len(set(words)) == len(words):
            raise TypeError(f"the words {short_repr(words)} are not possible")
        return WordLabel(str(fact["name"]), words)
    numbers = [fact[each] for each in ("mean", "std", "lowest", "highest")]
    if not (are_numbers(numbers) and all(math.isfinite(number) for number in numbers)):
        raise TypeError(f"the numbers {short_repr(numbers)} are not possible")
    label = NumberLabel(str(fact["name"]), *map(float, numbers))
    if not (label.std > 0 and label.lowest < label.highest):
        raise TypeError(f"the numbers {numbers} are not possible")
    return label
