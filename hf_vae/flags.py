"""Flags and recipes: the flags of a family, from its signatures and dataclasses; the run of a recipe (the
`train_config.json` of a model); and the command that starts a run."""

import dataclasses
import functools
import inspect
import shlex
from dataclasses import field
from typing import Annotated, Any

import docstring_parser
import tyro

from .config import ONE_LAUNCH, DataConfig, RunConfig, TrainConfig
from .families import FAMILIES
from .models import ImageGenerator
from .models.priors import PRIORS
from .objectives import Objective
from .ranges import limited, refuse_out_of_range


FLAG_STYLE: dict[str, Any] = {
    "config": (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    "use_underscores": True,
}
SECTIONS = ("model", "objective", "data", "train")
NOT_SECTIONS = {"family", "published", "notes"}  # the last two are for readers of a recipe
# ranges of model sizes; the models' own signatures have types only, as their code travels with the weights
MODEL_RANGES: dict[str, dict[str, Any]] = {
    "image_size": {"least": 1},
    "image_channels": {"least": 1},
    "latent_dim": {"least": 1},
    "latent_size": {"least": 1},
    "width": {"least": 1},
    "max_width": {"least": 1},
    "detail_dim": {"least": 0},
    "code_dim": {"least": 1},
    "code_nats": {"above": 0},
    "code_gaussians": {"least": 1},
    "code_width": {"least": 8},
    "rest_temperature": {"least": 0},
    "rest_limit": {"above": 0},
    "rest_margin": {"least": 0},
    "guidance": {"least": 0},
    "guidance_rescale": {"least": 0, "most": 1},
    "num_directions": {"least": 1},
    "num_gaussians": {"least": 1},
    "flow_width": {"least": 16},
    "flow_mlp_width": {"least": 16},
    "flow_depth": {"least": 1, "most": 64},
    "flow_directions": {"least": 1},
    "round_trips": {"least": 0},
    "output_size": {"least": 1},
}
MODEL_ALIASES = {"image_size": ["--resolution"]}  # as in diffusers' scripts


def flags_type(family: str | None) -> type:
    """The dataclass that the flags of a family are parsed into.

    Raises:
        ValueError: If there is no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"{family!r} is not a family; the families are {', '.join(FAMILIES)}.")
    return run_flags_type(family, FAMILIES[family].model, FAMILIES[family].objective)


def run_flags_type(family: str, model_class: type[ImageGenerator], objective_class: type[Objective]) -> type:
    """The dataclass that the flags of a family are parsed into, with a field for each section. The fields of a section
    are the arguments of its class."""
    classes = {"model": model_class, "objective": objective_class, "data": DataConfig, "train": TrainConfig}
    defaults = {"train": objective_class.train_defaults}
    sections = {name: _arguments_as_dataclass(of_class, defaults.get(name, {})) for name, of_class in classes.items()}
    sections["model"].__doc__ = ""  # the family's own --help begins with it
    fields = [(name, section, field(default_factory=section)) for name, section in sections.items()]
    return dataclasses.make_dataclass(f"{family}Flags", fields, frozen=True)


def flags_to_run(family: str, flags: Any) -> RunConfig:
    """The run of parsed flags.

    Raises:
        ValueError: If the objective refuses a value.
    """
    sections = dataclasses.asdict(flags)
    objective = FAMILIES[family].objective(**sections["objective"])
    return RunConfig(
        family, sections["model"], objective, DataConfig(**sections["data"]), TrainConfig(**sections["train"])
    )


def flags_from_recipe(sections: dict[str, Any]) -> Any:
    """The flags that a recipe stands for. What it leaves out has its default.

    Raises:
        ValueError: If it is not an object of sections, or its family, a section or a field does not exist.
    """
    if not isinstance(sections, dict) or not all(isinstance(sections.get(name, {}), dict) for name in SECTIONS):
        raise ValueError(f"A recipe is a JSON object with a family and the objects {', '.join(SECTIONS)}.")
    return flags_from_dict(flags_type(sections.get("family")), sections)


def flags_from_dict(flags_type: type, sections: dict[str, Any]) -> Any:
    """The flags that the sections of a recipe stand for. What a section leaves out has its default.

    Raises:
        ValueError: If a section or a field is unknown, or a value is of the wrong kind. The message names it and what
            exists.
    """
    defaults = flags_type()
    fields = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(flags_type)}
    _refuse_unknown("section", set(sections) - NOT_SECTIONS, set(fields))
    for name, values in sections.items():
        if name not in NOT_SECTIONS:
            known = {field.name for field in dataclasses.fields(fields[name])}
            _refuse_unknown(f"field of section {name!r}", set(values), known)
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            refuse_out_of_range(type(fields[name]), values)
            fields[name] = dataclasses.replace(fields[name], **values)
    return flags_type(**fields)


def run_from_recipe(sections: dict[str, Any]) -> RunConfig:
    """The run that a recipe stands for; see `flags_from_recipe`."""
    return flags_to_run(sections["family"], flags_from_recipe(sections))


def with_defaults(sections: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run as `to_dict` gives it, with the defaults of fields that it lacks: an earlier version
    did not have them. One of an unknown family stays as it is."""
    if sections["family"] not in FAMILIES:
        return sections
    return {
        name: _defaults(sections["family"])[name] | values if name in SECTIONS else values
        for name, values in sections.items()
    }


def _defaults(family: str) -> dict[str, Any]:
    return flags_to_run(family, flags_type(family)()).to_dict()


def training_command(run: RunConfig) -> str:
    """The command that trains such a model, with every flag that differs from its default and has an effect."""
    defaults = _defaults(run.family)
    left_out = ONE_LAUNCH | {"data_notes", "data_license"}
    prior = run.model.get("prior", defaults["model"].get("prior"))
    if not (run.train.keeps_prior or (prior in PRIORS and PRIORS[prior].is_learned)):
        left_out |= {name for name in run.to_dict()["train"] if name.startswith("prior_")}
    flags = [
        _flag(name, value)
        for section, values in run.to_dict().items()
        if section != "family"
        for name, value in values.items()
        if value != defaults[section][name] and name not in left_out
    ]
    return " \\\n    ".join([f"accelerate launch train_accelerate.py {run.family}", *flags])


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    values = value if isinstance(value, tuple | list) else [value]
    return " ".join([f"--{name}", *(shlex.quote(str(item)) for item in values)])


def _refuse_unknown(what: str, given: set[str], known: set[str]) -> None:
    if unknown := given - known:
        raise ValueError(f"Unknown {what}: {', '.join(sorted(unknown))}. There are: {', '.join(sorted(known))}.")


def _arguments_as_dataclass(of_class: type, defaults: dict[str, Any]) -> type:
    """A dataclass with the arguments of a class and their help, from the docstrings of the class and its bases, where
    `defaults` replace some defaults. Unlike the class itself it takes every value: tyro would print what the class
    refuses as an error of its own."""
    helps, fields = _helps(of_class), []
    for argument in inspect.signature(of_class).parameters.values():
        name, annotation = argument.name, argument.annotation
        settings: dict[str, Any] = {"help": helps[name], "aliases": MODEL_ALIASES.get(name)}
        flag = limited(**MODEL_RANGES[name], **settings) if name in MODEL_RANGES else tyro.conf.arg(**settings)
        default = defaults.get(name, argument.default)
        fields.append((name, Annotated[annotation, flag], field(default=default)))
    section = dataclasses.make_dataclass(f"{of_class.__name__}Arguments", fields, frozen=True)
    section.__doc__ = " ".join(inspect.cleandoc(of_class.__doc__ or "").split("\n\n")[0].split())
    return section


@functools.cache
def _helps(of_class: Any) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each argument, in one line."""
    documented = [docstring_parser.parse(ancestor.__doc__ or "") for ancestor in reversed(of_class.__mro__)]
    described = [argument for docstring in documented for argument in docstring.params]
    if not {argument.arg_name for argument in described} >= inspect.signature(of_class).parameters.keys():
        described += docstring_parser.parse_from_object(of_class).params  # each has a string below its field
    return {argument.arg_name: " ".join((argument.description or "").split()) for argument in described}
