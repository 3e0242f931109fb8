"""The command line of `train_accelerate.py`: a family and its flags, or a recipe and flags that override it."""

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, Union

import tyro

from ..config import RunConfig, with_paths
from ..families import FAMILIES
from ..flags import FLAG_STYLE, flags_from_recipe, flags_to_run, flags_type
from .diffusers_flags import complaints, without_center_crop


DESCRIPTION = """Trains a model and publishes it to a folder.

accelerate launch train_accelerate.py vae --dataset_name cats --output_dir runs/cats-vae
accelerate launch train_accelerate.py --recipe model_cards/cats-vae/train_config.json --output_dir runs/again
"""


def parse_arguments(arguments: list[str]) -> RunConfig:
    """The run that a command line stands for. A usage error exits with code 2.

    Raises:
        ValueError: If a value is not possible, or the recipe does not exist or has an unknown family, section or
            field.
    """
    recipe_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    recipe_parser.add_argument("--recipe", type=lambda path: Path(path).expanduser())
    known, flags = recipe_parser.parse_known_args(arguments)
    family = flags[0] if flags and flags[0] in FAMILIES else None
    if known.recipe is None:
        return _parse_family(flags)
    if family:
        words = [argument for argument in arguments if argument != family]
        _exit(f"A recipe names its family. Leave out {family}: python train_accelerate.py {shlex.join(words)}")
    return _parse_recipe(known.recipe, flags)


def _parse_family(flags: list[str]) -> RunConfig:
    if not (flags and flags[0] in FAMILIES) and not {"-h", "--help"} & set(flags):
        _exit_without_family(flags)
    types = {name: flags_type(name) for name in FAMILIES}
    flags = _refuse_foreign_flags(flags, list(types.values()))
    commands = [
        Annotated[types[name], tyro.conf.subcommand(name, description=family.description)]
        for name, family in FAMILIES.items()
    ]
    any_family: Any = Union[tuple(commands)]  # noqa: UP007
    parsed = tyro.cli(any_family, description=DESCRIPTION, args=flags, **FLAG_STYLE)
    return flags_to_run(next(name for name in FAMILIES if type(parsed) is types[name]), parsed)


def _parse_recipe(file: Path, flags: list[str]) -> RunConfig:
    if not file.is_file():
        raise ValueError(
            f"--recipe {file} does not exist or is not a file; a recipe is the train_config.json of a published model."
        )
    try:
        recipe = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"--recipe {file} is not JSON: {error}") from error
    defaults = flags_from_recipe(with_paths(recipe, file.parent))
    flags = _refuse_foreign_flags(flags, [type(defaults)])
    return flags_to_run(recipe["family"], tyro.cli(type(defaults), default=defaults, args=flags, **FLAG_STYLE))


def _refuse_foreign_flags(flags: list[str], types: list[Any]) -> list[str]:
    """The flags, without a --center_crop that asks for the default. Exits with a line for each flag of diffusers'
    scripts that does not exist here, and for each switch with a value."""
    sections: list[Any] = [field.type for flags_of_family in types for field in dataclasses.fields(flags_of_family)]
    fields = [field for section in sections for field in dataclasses.fields(section)]
    flags = without_center_crop(flags)
    if found := complaints(flags, {field.name for field in fields if isinstance(field.default, bool)}):
        _exit("\n".join(found))
    return flags


def _exit_without_family(flags: list[str]) -> NoReturn:
    """Exits with one sentence: the families, and the command with one of them."""
    named = next((flag for flag in flags if flag in FAMILIES), None)
    first = flags[0] if flags and not flags[0].startswith("-") else None
    command = shlex.join([named or "vae", *(flag for flag in flags if flag not in (named, first))])
    *others, last = FAMILIES
    _exit(
        f"{f'{first} is not a family. ' if first else ''}Name a family first, one of {', '.join(others)} and {last}: "
        f"python train_accelerate.py {command}"
    )


def _exit(sentence: str) -> NoReturn:
    """Exits with the code of argparse for a usage error."""
    print(f"Error: {sentence}", file=sys.stderr)
    sys.exit(2)
