"""Recipes: the `train_config.json` of a published model, to a run and back to the command that starts it."""

import shlex
from typing import Any

from .config import ONE_LAUNCH, RunConfig, flags_from_dict, flags_to_run, run_flags_type
from .families import FAMILIES


SECTIONS = ("model", "objective", "data", "train")


def flags_type(family: str) -> type:
    """The dataclass that a family's flags are read into.

    Raises:
        ValueError: If there is no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"There is no family {family!r}; the families are {', '.join(FAMILIES)}.")
    return run_flags_type(family, FAMILIES[family].model, FAMILIES[family].objective)


def flags_from_recipe(sections: dict[str, Any]) -> Any:
    """The flags that a recipe stands for; what it leaves out keeps its default.

    Raises:
        ValueError: If it is no object of sections, or its family, a section or a field does not exist.
    """
    if not isinstance(sections, dict) or not all(isinstance(sections.get(name, {}), dict) for name in SECTIONS):
        raise ValueError(f"A recipe is an object: a family and the sections {', '.join(SECTIONS)}, objects as well.")
    return flags_from_dict(flags_type(sections.get("family")), sections)


def run_from_recipe(sections: dict[str, Any]) -> RunConfig:
    """The run that a recipe stands for, as `flags_from_recipe`."""
    return flags_to_run(sections["family"], flags_from_recipe(sections))


def training_command(run: RunConfig) -> str:
    """The command that trains such a model: every flag that differs from its default."""
    defaults = flags_to_run(run.family, flags_type(run.family)()).to_dict()
    flags = [
        _flag(name, value)
        for section, values in run.to_dict().items()
        if section != "family"
        for name, value in values.items()
        if value != defaults[section][name] and name not in ONE_LAUNCH | {"data_notes", "data_license"}
    ]
    return " \\\n    ".join([f"accelerate launch train_accelerate.py {run.family}", *flags])


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    values = value if isinstance(value, tuple | list) else [value]
    return " ".join([f"--{name}", *(shlex.quote(str(item)) for item in values)])
