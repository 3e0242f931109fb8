"""Arguments that several commands share."""

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
OptionalFolders = tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="[FOLDER ...]")]]
PictureFile = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="IMAGE")]]
PictureFiles = tyro.conf.Positional[Annotated[list[Path], tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]]
Seed = Annotated[int, limited(**SEEDS)]
AsJson = Annotated[bool, tyro.conf.arg(name="json")]  # `json` itself is the module


def with_home_folders(arguments: Sequence[str]) -> list[str]:
    """The words of a command line with `~` expanded. A shell does not expand it in quotes or behind `=`."""
    expanded = []
    for argument in arguments:
        flag, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        expanded.append(flag + equals + os.path.expanduser(value))
    return expanded


def recorded_data(folder: Path, train_data_dir: str | None, dataset_name: str | None) -> DataConfig:
    """The location of the images that the model in `folder` was trained on: the arguments if given, else the paths of
    the run on this machine (`paths.json`), else its published configuration."""
    data = DataConfig(**with_paths(read_json(folder, CONFIG_FILE), folder)["data"])
    if not (train_data_dir or dataset_name):
        return data
    return dataclasses.replace(data, train_data_dir=train_data_dir, dataset_name=dataset_name)
