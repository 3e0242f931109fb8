"""Directions of latent space that labels lie along, stored beside the weights. `fit_directions` learns them."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..models.loading import refuse_lfs_pointer
from ..run_folder import DIRECTIONS_FILE


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
        vector: `(Z,)`: one standard deviation of the training images' latents along the direction.
    """

    name: str
    low: str
    high: str
    accuracy: float
    num_heldout: int
    vector: torch.Tensor


def write_directions(folder: Path, directions: list[Direction]) -> Path:
    """Writes `directions.safetensors` into a model's folder, replacing an earlier one, and returns its path."""
    path = folder / DIRECTIONS_FILE
    facts = [
        {"name": each.name, "low": each.low, "high": each.high, "accuracy": each.accuracy, "heldout": each.num_heldout}
        for each in directions
    ]
    vectors = {str(number): each.vector.cpu().contiguous() for number, each in enumerate(directions)}
    path.touch()  # with the usual mode; safetensors makes a file that only its owner may read
    mode = path.stat().st_mode
    save_file(vectors, path, {"directions": json.dumps(facts)})
    path.chmod(mode)
    return path


def read_directions(folder: Path, latent_dim: int) -> list[Direction]:
    """The directions of the model in `folder`; an empty list if none were fitted.

    Raises:
        ValueError: If the file is not as `write_directions` writes it, or is for another latent space.
    """
    path = folder / DIRECTIONS_FILE
    if not path.is_file():
        return []
    refuse_lfs_pointer(path, "directions")
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["directions"])
            slices = [file.get_slice(str(number)) for number in range(len(facts))]
            if any(part.get_shape() != [latent_dim] or part.get_dtype() != "F32" for part in slices):
                raise ValueError(f"{path} is for another latent space than one of {latent_dim} dimensions.")
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
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not all(each.vector.isfinite().all() for each in found):
        raise ValueError(f"{path} has values that are not finite.")
    return found
