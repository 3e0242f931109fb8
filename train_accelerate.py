"""Trains a model and publishes it to a folder.

accelerate launch train_accelerate.py vae --dataset_name cats --output_dir runs/cats-vae
accelerate launch train_accelerate.py --recipe model_cards/cats-vae/train_config.json --output_dir runs/again
"""

import argparse
import dataclasses
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, Union


try:
    import tyro
    from accelerate import PartialState

    from hf_vae.commands.diffusers_flags import complaints, without_center_crop
    from hf_vae.config import RunConfig, with_paths
    from hf_vae.evaluation import evaluate, features
    from hf_vae.families import FAMILIES
    from hf_vae.flags import FLAG_STYLE, flags_from_recipe, flags_to_run, flags_type
    from hf_vae.publishing import cards, hub
    from hf_vae.training import dry_run, loop
except ModuleNotFoundError as error:
    sys.exit(
        f"Error: {error}. Training needs the extra [train]: run `make install` and `source .venv/bin/activate`, or "
        "`pip install -e '.[train]'`."
    )


def parse_arguments(arguments: list[str]) -> RunConfig:
    """Reads a family and its flags, or `--recipe FILE` and flags that override it. What is no such command leaves with
    exit code 2.

    Raises:
        ValueError: If the recipe is missing, or its family, a section or a field does not exist.
    """
    recipe_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    recipe_parser.add_argument("--recipe", type=lambda path: Path(path).expanduser())
    known, flags = recipe_parser.parse_known_args(without_center_crop(arguments))
    family = flags[0] if flags and flags[0] in FAMILIES else None
    if known.recipe is None:
        if not family and not {"-h", "--help"} & set(flags):
            _leave_without_family(flags)
        _refuse_flags(flags, [flags_type(name) for name in FAMILIES])
        types = {name: flags_type(name) for name in FAMILIES}
        commands = [
            Annotated[types[name], tyro.conf.subcommand(name, description=family.description)]
            for name, family in FAMILIES.items()
        ]
        parsed = tyro.cli(Union[tuple(commands)], description=__doc__, args=flags, **FLAG_STYLE)  # noqa: UP007
        return flags_to_run(next(name for name in FAMILIES if type(parsed) is types[name]), parsed)
    if family:
        flags = [argument for argument in arguments if argument != family]
        _leave(f"A recipe brings its family. Leave out {family}: python train_accelerate.py {shlex.join(flags)}")
    if not known.recipe.is_file():
        raise ValueError(
            f"--recipe {known.recipe} is no file; a recipe is the train_config.json of a published model."
        )
    try:
        recipe = json.loads(known.recipe.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"--recipe {known.recipe} is no JSON: {error}") from error
    defaults = flags_from_recipe(with_paths(recipe, known.recipe.parent))
    _refuse_flags(flags, [type(defaults)])
    return flags_to_run(recipe["family"], tyro.cli(type(defaults), default=defaults, args=flags, **FLAG_STYLE))


def _refuse_flags(flags: list[str], types: list[Any]) -> None:
    """Leaves with a line for each flag of diffusers' scripts that is none here, and each switch that got a value."""
    sections = [field.type for flags_of_family in types for field in dataclasses.fields(flags_of_family)]
    fields = [field for section in sections for field in dataclasses.fields(section)]
    if found := complaints(flags, {field.name for field in fields if isinstance(field.default, bool)}):
        _leave("\n".join(found))


def _leave_without_family(flags: list[str]) -> NoReturn:
    """Leaves with one sentence: the families, and the command with one of them in its place."""
    named = next((flag for flag in flags if flag in FAMILIES), None)
    first = flags[0] if flags and not flags[0].startswith("-") else None
    command = shlex.join([named or "vae", *(flag for flag in flags if flag not in (named, first))])
    *others, last = FAMILIES
    _leave(
        f"{f'{first} is not a family. ' if first else ''}Name a family first, one of {', '.join(others)} and {last}: "
        f"python train_accelerate.py {command}"
    )


def _leave(sentence: str) -> NoReturn:
    """Ends a command line that is none, with the exit code of argparse."""
    print(f"Error: {sentence}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Trains, measures on the held-out pictures, writes the card, and pushes if asked to."""
    published = None
    try:
        run = parse_arguments(sys.argv[1:])
        features.open_networks()  # what measures the result is missed now, and not after hours of training
        if run.train.dry_run:
            print(dry_run.describe(run))
            return
        repo_id = run.train.hub_model_id or Path(run.train.output_dir).resolve().name
        if (
            run.train.push_to_hub and os.environ.get("RANK", "0") == "0"
        ):  # what the Hub refuses is known before training
            hub.create_repository(repo_id, run.train.hub_private_repo, run.train.hub_token)
        output_dir = published = loop.train(run)
        if PartialState().is_main_process:
            evaluate.evaluate_folder(output_dir, run.data)
            cards.write_card(output_dir)
            print(f"Published to {output_dir}: look at samples.png and README.md there.")
            if run.train.push_to_hub:
                print(hub.push(output_dir, repo_id, run.train.hub_private_repo, run.train.hub_token))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except loop.TrainingInterrupted as interruption:
        print(f"{interruption} The same command with --resume_from_checkpoint latest goes on.", file=sys.stderr)
        sys.exit(interruption.exit_code)
    except KeyboardInterrupt:
        lost = "What was trained since the last checkpoint is lost."
        if published:
            lost = (
                f"The model is in {published}. hf-vae evaluate {published} --save and hf-vae card {published} go on."
            )
        print(f"Stopped at once. {lost}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
