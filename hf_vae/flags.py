"""Flags from signatures and dataclasses, and recipes: the `train_config.json` of a model, to a run and back to the
command that starts it."""

import dataclasses
import inspect
import shlex
from dataclasses import field
from typing import Annotated, Any

import docstring_parser
import tyro

from .config import ONE_LAUNCH, DataConfig, RunConfig, TrainConfig
from .families import FAMILIES
from .ranges import limited, refuse_out_of_range


FLAG_STYLE = {"config": (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes), "use_underscores": True}
SECTIONS = ("model", "objective", "data", "train")
NOT_SECTIONS = {"family", "published", "notes"}  # the last two are for people
# of the sizes that models have; they are code that travels with the weights, so their signatures hold types alone
MODEL_RANGES: dict[str, dict[str, int]] = {
    "image_size": {"least": 1},
    "image_channels": {"least": 1},
    "latent_dim": {"least": 1},
    "latent_size": {"least": 1},
    "width": {"least": 1},
    "max_width": {"least": 1},
    "detail_dim": {"least": 0},
    "num_directions": {"least": 1},
    "num_gaussians": {"least": 1},
    "flow_width": {"least": 16},
    "flow_mlp_width": {"least": 16},
    "flow_depth": {"least": 1, "most": 64},
    "flow_directions": {"least": 1},
    "output_size": {"least": 1},
}


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


def run_flags_type(family: str, model_class: type, objective_class: type) -> type:
    """The dataclass that a family's flags are read into: one field a section, the model's from its `__init__`
    signature."""
    model_section = _signature_as_dataclass(model_class)
    train_defaults = TrainConfig(**objective_class.train_defaults)
    return dataclasses.make_dataclass(
        f"{family}Flags",
        [
            ("model", model_section, field(default_factory=model_section)),
            ("objective", objective_class, field(default_factory=objective_class)),
            ("data", DataConfig, field(default_factory=DataConfig)),
            ("train", TrainConfig, field(default_factory=lambda: train_defaults)),
        ],
        frozen=True,
    )


def flags_to_run(family: str, flags: Any) -> RunConfig:
    """The `RunConfig` of parsed flags."""
    return RunConfig(family, dataclasses.asdict(flags.model), flags.objective, flags.data, flags.train)


def flags_from_dict(flags_type: type, sections: dict[str, Any]) -> Any:
    """The flags that a recipe's sections stand for; what a section leaves out keeps its default.

    Raises:
        ValueError: If a section or a field is unknown, or its value is not of its kind; the message names it and what
            exists.
    """
    defaults = flags_type()
    fields = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(flags_type)}
    _refuse_unknown("section", set(sections) - NOT_SECTIONS, set(fields))
    for name, values in sections.items():
        if name not in NOT_SECTIONS:
            _refuse_unknown(
                f"field of section {name!r}", set(values), {f.name for f in dataclasses.fields(fields[name])}
            )
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            refuse_out_of_range(type(fields[name]), values)
            fields[name] = dataclasses.replace(fields[name], **values)
    return flags_type(**fields)


def _refuse_unknown(what: str, given: set[str], known: set[str]) -> None:
    if unknown := given - known:
        raise ValueError(f"Unknown {what}: {', '.join(sorted(unknown))}. There are: {', '.join(sorted(known))}.")


def _signature_as_dataclass(model_class: type) -> type:
    documented = [docstring_parser.parse(ancestor.__doc__ or "").params for ancestor in reversed(model_class.__mro__)]
    helps = {argument.arg_name: argument.description for arguments in documented for argument in arguments}
    fields = []
    for name, parameter in list(inspect.signature(model_class.__init__).parameters.items())[1:]:
        # diffusers' scripts call the size --resolution
        settings = {"help": helps[name], "aliases": ["--resolution"] if name == "image_size" else None}
        flag = limited(**MODEL_RANGES[name], **settings) if name in MODEL_RANGES else tyro.conf.arg(**settings)
        fields.append((name, Annotated[parameter.annotation, flag], field(default=parameter.default)))
    return dataclasses.make_dataclass(f"{model_class.__name__}Arguments", fields, frozen=True)
