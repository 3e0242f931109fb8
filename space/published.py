"""The models that the Space shows: folders as they are published, each checked when the Space starts and loaded when
somebody first asks for it."""

import inspect
import json
import logging
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import torch
from PIL import Image

from hf_vae.evaluation.metrics import NUM_BANDS
from hf_vae.families import FAMILIES
from hf_vae.latents.directions import Direction, read_directions
from hf_vae.models import ImageGenerator
from hf_vae.models.auto import AutoGenerator
from hf_vae.models.loading import checked_folder, find_folder, read_config
from hf_vae.models.priors import priors_of
from hf_vae.pipeline import ImagePipeline, PicturesOutput


PUBLISHED_FILES = ["README.md", "config.json", "metrics.json", "*.safetensors"]
NEEDED_MEASURES = ("image_size", "laplacian_variance_real", "high_frequency_energy_real") + tuple(
    f"spectrum_band_{band}_real" for band in range(1, NUM_BANDS + 1)
)
WITHOUT_DETAILS = "without residual latents"
ABSOLUTE_FOLDERS = re.compile(r"(?<![\w.:/~-])/(?:[^\s/:'\"]+/)*(?=[^\s/])")  # of a path, but not of an address
logger = logging.getLogger(__name__)
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
    def model_class(self) -> type[ImageGenerator]:
        """The class of its family."""
        return AutoGenerator.class_of(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The arguments that it is built with: those in `config.json`, and the defaults of the others."""
        parameters = inspect.signature(self.model_class.__init__).parameters.values()
        return {each.name: each.default for each in parameters} | read_config(self.folder)

    @property
    def has_encoder(self) -> bool:
        """Whether it can reconstruct a picture."""
        return self.model_class.has_encoder

    @property
    def detail_dim(self) -> int:
        """How many residual latents it has."""
        return self.config.get("detail_dim", 0)

    @property
    def latent_counts(self) -> list[int]:
        """How many latents an image is decoded from, for each of its `reconstructions`."""
        count = self.config["latent_dim"]
        return [count + self.detail_dim, count] if self.detail_dim else [count]

    @cached_property
    def priors(self) -> list[str]:
        """What its samples can be drawn from, its own first."""
        own = self.config["prior"]
        return [own, *(prior for prior in priors_of(own, self.has_encoder) if prior != own)]

    @cached_property
    def directions(self) -> list[Direction]:
        """The directions that labels of its training pictures lie along, where some were learned."""
        return read_directions(self.folder, self.config["latent_dim"])

    @cached_property
    def card(self) -> str:
        """Its model card as Markdown, without metadata, pictures and title; empty where there is none."""
        path = self.folder / "README.md"
        try:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error}.") from error
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        return re.sub(r"^(# .*|!\[.*)$", "", text, flags=re.MULTILINE).strip()

    @cached_property
    def metrics(self) -> dict[str, float | int | str]:
        """What was measured when the model was published.

        Raises:
            ValueError: If there is no such file, or it lacks what the Space shows.
        """
        path = self.folder / "metrics.json"
        if not path.is_file():
            raise ValueError(
                f"{self.folder} has no metrics.json. Either its training is not finished, or `hf-vae evaluate` has "
                "not measured it."
            )
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON: {error}. Run `hf-vae evaluate` again.") from error
        if not isinstance(found, dict) or not isinstance(found.get("sample_prior"), str):
            raise ValueError(f"{path} has no sample_prior. Run `hf-vae evaluate` again.")
        if missing := [name for name in NEEDED_MEASURES if not _is_finite(found.get(name))]:
            raise ValueError(f"{path} has no number for {', '.join(missing)}. Run `hf-vae evaluate` again.")
        return found

    @cached_property
    def pipeline(self) -> ImagePipeline:
        """The model with pictures at both ends; loaded on first use and kept.

        Raises:
            gradio.Error: If it cannot be loaded, as its files have changed since the Space started. The reason is in
                the log, since it may name a path of the server.
        """
        try:
            return ImagePipeline.from_pretrained(self.folder).to("cuda" if torch.cuda.is_available() else "cpu")
        except Exception as error:  # what a damaged file raises depends on the damage
            logger.error("%s cannot be loaded: %s", self.name, _reason(error))
            sentence = f"{self.name} cannot be loaded; choose another model."
            raise gr.Error(sentence, print_exception=False) from error

    def check(self) -> None:
        """Reads all that the Space needs of the folder, and compares the weights with the configuration without
        loading them.

        Raises:
            ValueError: If a file is missing, damaged or of another kind of model.
        """
        checked_folder(self.model_class, self.folder)
        for read in ("metrics", "priors", "directions", "card"):
            getattr(self, read)  # cached: a file that is damaged later does no harm

    def reconstructions(self, picture: Image.Image) -> dict[str, PicturesOutput]:
        """What the model makes of a picture, by what it is called: from all latents, and also without the residual
        latents where the model has such, since these carry most of any picture past the networks."""
        latents = self.pipeline.encode([picture])
        found = {self.name: self.pipeline.decode(latents)}
        if self.detail_dim:
            alone = latents[:, : self.config["latent_dim"]]
            found[f"{self.name}, {WITHOUT_DETAILS}"] = self.pipeline.decode(alone)
        return found


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _reason(error: Exception) -> str:
    """What an error says: the package's own errors are sentences, others may be a bare name."""
    return str(error) if isinstance(error, ValueError | OSError) else repr(error)


def place_among_models(name: str) -> tuple[str, str]:
    """What models are ordered by: the name of the pictures, and what sets one apart from the first of its family. A
    name that holds no family is split at its last hyphen."""
    parts = FOLDER_NAME.fullmatch(name)
    return (parts["data_set"], parts["variant"] or "") if parts else (name.rsplit("-", 1)[0], "")


class OpenedModels(NamedTuple):
    """The models that the Space shows, by name, and for each that cannot be loaded one sentence that says why,
    without a path of the server."""

    models: dict[str, PublishedModel]
    broken: dict[str, str]


def open_models(places: dict[str, Path | str]) -> OpenedModels:
    """Turns names and folders or Hub ids into models; those on the Hub are downloaded. A broken one is left out, and
    named in the log.

    Raises:
        ValueError: If there are none, or all are broken.
    """
    if not places:
        raise ValueError("There are no models to show; name at least one model folder or Hub id.")
    models, broken, reasons = {}, {}, []
    for name, place in places.items():
        try:
            model = PublishedModel(name, find_folder(place, PUBLISHED_FILES))
            model.check()
            models[name] = model
        except Exception as error:  # one broken model, however it is broken, must not take the others down
            reason = _reason(error)
            reasons.append(f"{name} cannot be loaded: {reason}")
            is_folder = Path(place).is_absolute() or Path(place).is_dir()
            shown = reason.replace(str(place), name) if is_folder else reason
            broken[name] = f"{name} cannot be loaded: {ABSOLUTE_FOLDERS.sub('', shown)}"
    if not models:
        raise ValueError("\n".join(["None of the models can be loaded.", *reasons]))
    for reason in reasons:
        logger.warning(reason)
    return OpenedModels(models, broken)


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
