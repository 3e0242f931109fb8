"""The versions of the format that models are saved in, and what changed from each to the next. Weights that were
published in an earlier version load for ever: tests/models/published has a model of each.

To change names or shapes of weights, or what an argument that is left out means: raise `FORMAT_VERSION`, add what
changed to `CHANGES` or to `upgraded_config`, and keep a small model of the version before in tests/models/published.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as short_repr
from typing import Any

import torch


FORMAT_VERSION = 8
VERSION_KEY = "format_version"  # in config.json; versions 1 to 4 did not write it


class LoadError(ValueError, OSError):
    """A model that cannot be loaded. diffusers raises an `OSError` for many of the reasons, so this is one too."""


@dataclass(frozen=True)
class FormatChange:
    """What changed in the weights from one version to the next.

    Args:
        renamed: New names of weights, by their old ones.
        added: Weights that are new. A model of an earlier version keeps the values that they start with.
        dropped: The beginning of names that the next version cannot use.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


MIXTURE_NAMES = ("weights", "means", "stds")
CHANGES: dict[int, FormatChange] = {
    # 2026-11-20: the prior was a Gaussian, with as many directions as latents.
    1: FormatChange(added=("latent_prior.rest", *(f"latent_prior.mixture_{name}" for name in MIXTURE_NAMES))),
    # 2026-11-21: a flow. Its network had two meanings under the same names; see `upgraded_config`.
    2: FormatChange(dropped=("latent_prior.flow.",)),
    # 2026-11-21: a flow that is calibrated, and starts from N(0, I).
    3: FormatChange(added=tuple(f"latent_prior.flow.{name}" for name in ("directions", "variances", "rest"))),
    # 2026-11-25: a flow that starts from a Gaussian; residual latents.
    4: FormatChange(
        renamed={f"latent_prior.mixture_{name}": f"latent_prior.mixture.{name}" for name in MIXTURE_NAMES}
    ),
    # 2026-11-26: the prior with a code, in weights of its own; guidance.
    5: FormatChange(),
    # 2026-11-27: the statistics of the latents in the configuration.
    6: FormatChange(),
    # 2026-11-28: a mixture of Gaussians that the code is drawn from.
    7: FormatChange(),
}
# The arguments that versions up to this one did not have, or did not write yet, and the values that they stood for.
FIRST_VALUES: dict[int, dict[str, Any]] = {
    4: {
        "shortcut": False,
        "detail_dim": 0,
        "num_directions": 128,
        "num_gaussians": 16,
        "flow_width": 48,
        "flow_mlp_width": 512,
        "flow_depth": 2,
        "flow_directions": 512,
    },
    5: {"guidance": None},
    7: {"code_gaussians": 1},
}


def refuse_newer_format(config: dict[str, Any], place: Any) -> None:
    """Raises a `LoadError` if the configuration `config` of the model at `place` has a format that is unknown."""
    version = config.get(VERSION_KEY, 1)
    if type(version) is not int or version < 1:
        raise LoadError(
            f"{place}: {VERSION_KEY}={short_repr(version)} is not possible; it must be a whole number from 1."
        )
    if version > FORMAT_VERSION:
        raise LoadError(
            f"{place} has {VERSION_KEY} {version}, and this version of hf_vae reads versions up to {FORMAT_VERSION}: "
            "upgrade hf_vae to load the model."
        )


def upgraded_config(config: dict[str, Any], arguments: Collection[str]) -> dict[str, Any]:
    """The same configuration, with the values of those of the class's `arguments` that its version did not know.

    Raises:
        LoadError: If the version is newer than this code.
    """
    refuse_newer_format(config, "The configuration")
    version = config.get(VERSION_KEY, 4)
    values = {name: value for last, first in FIRST_VALUES.items() if version <= last for name, value in first.items()}
    if VERSION_KEY not in config and "decoder_layers" not in config and "latent_dim" in config:  # version 1
        values |= {"latent_size": 1, "num_directions": config["latent_dim"]}
    upgraded = {name: value for name, value in values.items() if name in arguments} | config
    return {name: value for name, value in upgraded.items() if name != VERSION_KEY}


def version_of(config: dict[str, Any], names: Collection[str]) -> int:
    """The version of a model with this configuration and weights of these `names`. Before version 5 it follows from
    the names."""
    if VERSION_KEY in config:
        return config[VERSION_KEY]
    flow = {name for name in names if name.startswith("latent_prior.flow.")}
    if not any(name == "latent_prior.rest" or name.startswith("latent_prior.mixture") for name in names):
        return 1
    if flow and "latent_prior.flow.mean" not in names:
        return 2
    if flow and "latent_prior.flow.directions" not in names:
        return 3
    return 4


def refuse_early_flow(version: int, prior: Any, place: Any) -> None:
    """Raises a `LoadError` if a model of a version would draw samples from a flow whose meaning is not known."""
    if version == 2 and prior == "flow":
        raise LoadError(
            f"{place} has a flow of 21 November 2026, whose weights had two meanings that cannot be told apart: pass "
            "prior='mixture' to load the model without it, or train the model again."
        )


def upgraded_names(names: Iterable[str], version: int) -> dict[str, str]:
    """The names of weights today, by their names in a `version`. Those that are not used any more are left out."""
    found = {name: name for name in names}
    for change in (CHANGES[number] for number in range(version, FORMAT_VERSION)):
        found = {
            old: change.renamed.get(new, new)
            for old, new in found.items()
            if not new.startswith(change.dropped or "\0")
        }
    return found


def added_names(version: int) -> set[str]:
    """The names today of the weights that a `version` did not have yet."""
    added: list[str] = []
    for change in (CHANGES[number] for number in range(version, FORMAT_VERSION)):
        added = [change.renamed.get(name, name) for name in [*added, *change.added]]
    return set(added)


def upgraded_weights(
    weights: Mapping[str, torch.Tensor], version: int, start: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """The weights of a `version` under the names that they have today. Those that the version did not have yet take
    the values of a new model, `start`."""
    names, added = upgraded_names(weights, version), added_names(version) & start.keys()
    if not added and all(names.get(name) == name for name in weights):
        return weights
    return {name: start[name] for name in sorted(added)} | {new: weights[old] for old, new in names.items()}
