"""Arguments that several commands take, and what they stand for."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from ..config import SEEDS, DataConfig, with_paths
from ..ranges import limited
from ..run_folder import CONFIG_FILE, read_json


Model = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
Models = tyro.conf.Positional[Annotated[list[str], tyro.conf.arg(metavar="MODEL [MODEL ...]")]]
RunFolder = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]]
PictureFile = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="PICTURE")]]
PictureFiles = tyro.conf.Positional[Annotated[list[Path], tyro.conf.arg(metavar="PICTURE [PICTURE ...]")]]
Seed = Annotated[int, limited(**SEEDS)]
AsJson = Annotated[bool, tyro.conf.arg(name="json")]  # `json` itself is the module


def with_home_folders(arguments: Sequence[str]) -> list[str]:
    """The words of a command line, with a home folder for `~`: a shell leaves it alone in quotes and behind `=`."""
    expanded = []
    for argument in arguments:
        flag, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        expanded.append(flag + equals + os.path.expanduser(value))
    return expanded


def recorded_data(folder: Path, train_data_dir: str | None, dataset_name: str | None) -> DataConfig:
    """Where the images lie that the model in `folder` was trained on: where the caller says, where the run on this
    machine had them (`paths.json`), or where its published configuration says."""
    data = DataConfig(**with_paths(read_json(folder, CONFIG_FILE), folder)["data"])
    if not (train_data_dir or dataset_name):
        return data
    return dataclasses.replace(data, train_data_dir=train_data_dir, dataset_name=dataset_name)
