"""Trains a model and publishes it to a folder.

accelerate launch train_accelerate.py vae --dataset_name cats --output_dir runs/cats-vae
accelerate launch train_accelerate.py --recipe model_cards/cats-vae/train_config.json --output_dir runs/again
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Annotated, Union

import tyro
from accelerate import PartialState

from hf_vae import cards, dry_run, evaluation, training
from hf_vae.config import FLAG_STYLE, RunConfig, flags_from_dict, flags_to_run, run_flags_type
from hf_vae.families import FAMILIES


FLAGS = {name: run_flags_type(name, family.model, family.objective) for name, family in FAMILIES.items()}


def parse_arguments(arguments: list[str]) -> RunConfig:
    """Reads a family and its flags, or `--recipe FILE` and flags that override it.

    Raises:
        ValueError: If the recipe is missing, names no family of ours, or holds a section or field that does not exist.
    """
    recipe_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    recipe_parser.add_argument("--recipe", type=Path)
    known, flags = recipe_parser.parse_known_args(arguments)
    if known.recipe is None:
        commands = [
            Annotated[
                flags_type, tyro.conf.subcommand(name, description=FAMILIES[name].model.__doc__.split("\n\n")[0])
            ]
            for name, flags_type in FLAGS.items()
        ]
        parsed = tyro.cli(Union[tuple(commands)], description=__doc__, args=flags, **FLAG_STYLE)  # noqa: UP007
        return flags_to_run(next(name for name, flags_type in FLAGS.items() if type(parsed) is flags_type), parsed)
    if not known.recipe.is_file():
        raise ValueError(
            f"--recipe {known.recipe} is no file; a recipe is the train_config.json of a published model."
        )
    sections = json.loads(known.recipe.read_text())
    family = sections.get("family")
    if family not in FLAGS:
        raise ValueError(f"{known.recipe} is a recipe for family {family!r}; the families are {', '.join(FLAGS)}.")
    return flags_to_run(
        family, tyro.cli(FLAGS[family], default=flags_from_dict(FLAGS[family], sections), args=flags, **FLAG_STYLE)
    )


def main() -> None:
    """Trains, measures on the held-out pictures, writes the card, and pushes if asked to."""
    try:
        run = parse_arguments(sys.argv[1:])
        if run.train.dry_run:
            print(dry_run.describe(run))
            return
        output_dir = training.train(run)
        if PartialState().is_main_process:
            evaluation.evaluate_folder(output_dir, run.data)
            cards.write_card(output_dir)
            print(f"Published to {output_dir}: look at samples.png and README.md there.")
            if run.train.push_to_hub:
                print(cards.push(output_dir, run.train.hub_model_id or output_dir.name, run.train.hub_private_repo))
    except ValueError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
