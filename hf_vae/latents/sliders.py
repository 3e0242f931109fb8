"""Sliders with a name, stored beside the weights: directions that change one thing in an image."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..models import ImageGenerator
from ..models.principal_components import NUM_DIRECTIONS
from ..models.priors import CODE
from ..models.priors.code import CodePrior
from ..run_folder import SLIDERS_FILE
from .directions import direction_size, open_stored, save_stored


VECTORS = "vectors"
MAX_SLIDERS = 100
MAX_LETTERS = 80  # of a name


@dataclass(frozen=True)
class NamedSlider:
    """A direction along which one thing changes in an image.

    Args:
        name: What changes, such as "Smile".
        low: How it is at the lower end, in words: "less".
        high: How it is at the upper end: "more".
        effect: Its mean change from -2 to +2 in samples, in standard deviations of it among samples.
        side_effect: The largest such change of another thing that was measured, of either sign.
        vector: One step, `(K,)`: a shift along the first K principal components, in standard deviations, of unit
            length. It is what `ImagePipeline.move` takes, times the position of the slider.
    """

    name: str
    low: str
    high: str
    effect: float
    side_effect: float
    vector: torch.Tensor


def slider_size(config: Mapping[str, Any]) -> int:
    """The length K of the vectors of named sliders of a model with this configuration: the number of the principal
    components that sliders move along."""
    if config["prior"] == CODE:
        return direction_size(config)
    return min(config["latent_dim"], config.get("num_directions", NUM_DIRECTIONS))


def slider_coordinates(
    model: ImageGenerator, latents: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Where latents `(B, Z)` lie along what sliders move, in standard deviations: the principal components of the code
    if the model has one, else those of the latents. `(B, K)`. A code is the mean of its posterior, or a draw from it
    with a `generator` (of the CPU)."""
    prior = model.latent_prior
    if CODE not in prior.kinds:
        return prior.coordinates(latents)
    code = prior.get(CODE)
    assert isinstance(code, CodePrior)
    return code.coordinates(latents, prior, generator)


def write_sliders(folder: Path, sliders: Sequence[NamedSlider]) -> Path:
    """Writes `sliders.safetensors` into a model's folder, replacing an earlier one, and returns its path. Without
    sliders, an earlier file is deleted."""
    path = folder / SLIDERS_FILE
    if not sliders:
        path.unlink(missing_ok=True)
        return path
    facts = [{name: value for name, value in vars(each).items() if name != "vector"} for each in sliders]
    vectors = torch.stack([each.vector for each in sliders])
    save_stored(path, {VECTORS: vectors.cpu().contiguous()}, {"sliders": json.dumps(facts)})
    return path


def read_sliders(folder: Path, size: int) -> tuple[NamedSlider, ...]:
    """The named sliders of the model in `folder`; empty if it has none.

    Args:
        folder: Folder of the model.
        size: Their length, see `slider_size`.

    Raises:
        ValueError: If the file is not as `write_sliders` writes it, or is for another latent space.
    """
    path = folder / SLIDERS_FILE
    if not path.is_file():
        return ()
    with open_stored(path, "named sliders") as file:
        facts = json.loads(file.metadata()["sliders"])
        if len(facts) > MAX_SLIDERS:
            raise TypeError(f"{len(facts)} sliders are not possible")
        stored = file.get_slice(VECTORS)
        if stored.get_shape() != [len(facts), size] or stored.get_dtype() != "F32":
            raise ValueError(f"{path} is for another latent space than one of {size} components.")
        sliders = tuple(
            NamedSlider(
                _word(fact["name"]),
                _word(fact["low"]),
                _word(fact["high"]),
                _number(fact["effect"]),
                _number(fact["side_effect"]),
                vector,
            )
            for fact, vector in zip(facts, stored[:], strict=True)
        )
        names = {each.name.casefold() for each in sliders}
        if len(names) < len(sliders):
            raise TypeError("two sliders have the same name")
    if not all(each.vector.isfinite().all() and math.isfinite(each.effect) for each in sliders):
        raise ValueError(f"{path} has values that are not finite.")
    return sliders


def _word(text: object) -> str:
    if not (isinstance(text, str) and 0 < len(text) <= MAX_LETTERS and text.isprintable()):
        raise TypeError("a slider has a name that is not possible")
    return text


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"the effect {value!r} of a slider is not a number")
    return float(value)
