"""The models that the Space shows: folders as they are published, each loaded when somebody first asks for it."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from hf_vae.directions import Direction, read_directions
from hf_vae.families import FAMILIES, AutoGenerator
from hf_vae.models.loading import find_folder
from hf_vae.pipeline import ImagePipeline


PUBLISHED_FILES = ["README.md", "config.json", "metrics.json", "*.safetensors"]
FOLDER_NAME = re.compile(rf"(?P<data_set>.+?)-(?P<family>{'|'.join(FAMILIES)})(?P<variant>-.+)?")


@dataclass(frozen=True)
class PublishedModel:
    """One model folder, named `<data>-<family>`, or `<data>-<family>-<variant>` where there are two of a family.

    Args:
        name: What the visitor chooses it by.
        folder: Holds `config.json`, `metrics.json` and the weights.
    """

    name: str
    folder: Path

    @property
    def data_set(self) -> str:
        """The name of the pictures that it was trained on."""
        return place_among_models(self.name)[0]

    @cached_property
    def has_encoder(self) -> bool:
        """Whether it can reconstruct a picture, found out without loading the weights."""
        return AutoGenerator.class_of(self.folder).has_encoder

    @cached_property
    def priors(self) -> list[str]:
        """What its samples can be drawn from, its own first; found out likewise."""
        own = json.loads((self.folder / "config.json").read_text())["prior"]
        others = ("mixture", "gaussian", "standard") if self.has_encoder else ()  # fitted to what was encoded
        return [own, *(prior for prior in others if prior != own)]

    @cached_property
    def directions(self) -> list[Direction]:
        """The directions that labels of its training pictures lie along, where some were learned."""
        latent_dim = json.loads((self.folder / "config.json").read_text())["latent_dim"]
        return read_directions(self.folder, latent_dim)

    @cached_property
    def card(self) -> str:
        """Its model card as Markdown, without metadata, pictures and title; empty where there is none."""
        path = self.folder / "README.md"
        text = path.read_text() if path.is_file() else ""
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        return re.sub(r"^(# .*|!\[.*)$", "", text, flags=re.MULTILINE).strip()

    @cached_property
    def metrics(self) -> dict[str, float | int | str]:
        """What was measured when the model was published."""
        return json.loads((self.folder / "metrics.json").read_text())

    @cached_property
    def pipeline(self) -> ImagePipeline:
        """The model with pictures at both ends; loaded on first use and kept."""
        return ImagePipeline.from_pretrained(self.folder).to("cuda" if torch.cuda.is_available() else "cpu")


def place_among_models(name: str) -> tuple[str, str]:
    """What models are ordered by: the name of the pictures, and what sets one apart from the first of its family. A
    name that holds no family is split at its last hyphen."""
    parts = FOLDER_NAME.fullmatch(name)
    return (parts["data_set"], parts["variant"] or "") if parts else (name.rsplit("-", 1)[0], "")


def open_models(models: dict[str, Path | str]) -> dict[str, PublishedModel]:
    """Turns names and folders or Hub ids into models; those on the Hub are downloaded.

    Raises:
        ValueError: If there are none, or a folder lacks `config.json` or `metrics.json`.
    """
    if not models:
        raise ValueError("There are no models to show; name at least one model folder or Hub id.")
    opened = {}
    for name, place in models.items():
        folder = find_folder(place, PUBLISHED_FILES)
        missing = [file for file in ("config.json", "metrics.json") if not (folder / file).is_file()]
        if missing:
            raise ValueError(f"{place} holds no {' and no '.join(missing)}: it is no published model folder.")
        opened[name] = PublishedModel(name, folder)
    return opened


def by_data_set(models: dict[str, PublishedModel]) -> dict[str, list[PublishedModel]]:
    """The models by what they were trained on."""
    groups: dict[str, list[PublishedModel]] = {}
    for model in models.values():
        groups.setdefault(model.data_set, []).append(model)
    return groups


def comparable_models(models: dict[str, PublishedModel]) -> dict[str, list[PublishedModel]]:
    """The data sets that at least two models were trained on, with these models; all models if there is none."""
    shared = {data_set: group for data_set, group in by_data_set(models).items() if len(group) > 1}
    return shared or {"all models": list(models.values())}
