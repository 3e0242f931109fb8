"""Arguments that several commands take, and what they stand for."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ..config import CONFIG_FILE, PATHS_FILE, DataConfig


Model = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
Models = tyro.conf.Positional[Annotated[list[str], tyro.conf.arg(metavar="MODEL [MODEL ...]")]]
RunFolder = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]]
PictureFile = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="PICTURE")]]
PictureFiles = tyro.conf.Positional[Annotated[list[Path], tyro.conf.arg(metavar="PICTURE [PICTURE ...]")]]
AsJson = Annotated[bool, tyro.conf.arg(name="json")]  # `json` itself is the module


def recorded_data(folder: Path, train_data_dir: str | None, dataset_name: str | None) -> DataConfig:
    """Where the images lie that the model in `folder` was trained on: where the caller says, where the run on this
    machine had them (`paths.json`), or where its published configuration says."""
    from ..cards import read_json

    settings = read_json(folder, CONFIG_FILE)["data"]
    if (folder / PATHS_FILE).is_file():
        settings |= read_json(folder, PATHS_FILE)["data"]
    data = DataConfig(**settings)
    if not (train_data_dir or dataset_name):
        return data
    return dataclasses.replace(data, train_data_dir=train_data_dir, dataset_name=dataset_name)
