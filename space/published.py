"""The published models that the Space shows. Each is checked when the Space starts and loaded on first use."""

import inspect
import json
import logging
import math
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import torch
from PIL import Image

from hf_vae.evaluation.metrics import NUM_BANDS
from hf_vae.families import FAMILIES, Family, split_name
from hf_vae.hardware import device_to_use
from hf_vae.latents.directions import Direction, direction_size, read_directions, read_labelled_codes
from hf_vae.latents.labelled_codes import Label
from hf_vae.latents.sliders import NamedSlider, read_sliders, slider_size
from hf_vae.models import ImageGenerator
from hf_vae.models.auto import AutoGenerator
from hf_vae.models.loading import checked_folder, find_folder, read_config
from hf_vae.models.priors import LatentPrior, priors_of
from hf_vae.models.priors.base import Prior
from hf_vae.pipeline import ImagePipeline, PicturesOutput
from hf_vae.run_folder import (
    CARD_FILE,
    METRICS_FILE,
    MODEL_CONFIG_FILE,
    RECONSTRUCTIONS_FILE,
    SAMPLES_FILE,
    SWEEP_FILE,
)


PUBLISHED_FILES = [CARD_FILE, MODEL_CONFIG_FILE, METRICS_FILE, SAMPLES_FILE, SWEEP_FILE, RECONSTRUCTIONS_FILE]
PUBLISHED_FILES += ["*.safetensors"]
NEEDED_MEASURES = ("image_size", "laplacian_variance_real", "high_frequency_energy_real") + tuple(
    f"spectrum_band_{band}_real" for band in range(1, NUM_BANDS + 1)
)
BAND_MEASURES = tuple(f"laplacian_variance_real_percentile_{percentile}_ratio" for percentile in (10, 90))
DATA_SET_TITLES = {"lfw": "LFW faces", "utkface": "UTKFace faces"}  # others with a capital letter
WITHOUT_DETAILS = "without residual latents"
OWN_NAME = "my"  # in place of a dataset, in the names of models that visitors trained
OWN_NAMES = re.compile(rf"{OWN_NAME}-.+-[0-9a-f]{{16,}}")
OWN_SECONDS = 3600  # how long they are kept
MAX_OWN = 32  # of all visitors together; each takes a few MB of disk, and as much memory once it is used
ABSOLUTE_FOLDERS = re.compile(r"(?<![\w.:/~-])/(?:[^\s/:'\"]+/)*(?=[^\s/])")  # in paths, not in URLs
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedModel:
    """A model folder, named `<dataset>-<family>`, or `<dataset>-<family>-<variant>` if a family has several models.

    Args:
        name: The name that visitors see.
        folder: Contains `config.json`, `metrics.json` and the weights.
    """

    name: str
    folder: Path

    @property
    def data_set(self) -> str:
        """The name of the dataset that it was trained on."""
        return split_name(self.name)[0]

    @property
    def title(self) -> str:
        """What visitors read: the dataset, the family, the size and, if there is one, the variant."""
        data_set, family = split_name(self.name)
        if family is None:
            parts, variant = [self.name], ""
        else:
            parts, variant = [data_set_title(data_set), FAMILIES[family].title], self.name.partition(f"-{family}-")[2]
        return ", ".join([*parts, f"{self.config['image_size']} px", *([variant] if variant else [])])

    @cached_property
    def model_class(self) -> type[ImageGenerator]:
        """The class of the model."""
        return AutoGenerator.class_of(self.folder)

    @property
    def family(self) -> Family | None:
        """The family of its class; None if the class is of no family."""
        return next((family for family in FAMILIES.values() if family.model is self.model_class), None)

    @property
    def has_discriminator(self) -> bool:
        """Whether it was trained against a discriminator."""
        return self.family is not None and self.family.has_discriminator

    @cached_property
    def config(self) -> dict[str, Any]:
        """The constructor arguments: those in `config.json`, and the defaults of the rest."""
        parameters = inspect.signature(self.model_class).parameters.values()
        return {each.name: each.default for each in parameters} | read_config(self.folder)

    @property
    def has_encoder(self) -> bool:
        """Whether it can reconstruct an image."""
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
        """The priors that it can sample from, its default first."""
        own = self.config["prior"]
        return [own, *(prior for prior in priors_of(own, self.has_encoder) if prior != own)]

    @cached_property
    def _own_prior(self) -> Prior:
        kind, sizes = self.priors[0], (self.config["latent_dim"], self.config.get("latent_size", 1))
        with torch.device("meta"):  # without weights: the model is loaded on first use
            return LatentPrior(*sizes, kind, self.config).get(kind)

    @property
    def guidance(self) -> float | None:
        """The strength of what its flow's network adds to the flow's Gaussian; None if its own prior has no flow."""
        return getattr(self._own_prior, "guidance", None)

    @property
    def rest_temperature(self) -> float | None:
        """The scale of the noise of what its code does not say; None if its own prior has no code."""
        return getattr(self._own_prior, "rest_temperature", None)

    @cached_property
    def directions(self) -> list[Direction]:
        """Latent directions learned from the labels of its training images; empty if there are none."""
        return read_directions(self.folder, direction_size(self.config))

    @cached_property
    def sliders(self) -> tuple[NamedSlider, ...]:
        """Its sliders that change one thing; empty if there are none."""
        return read_sliders(self.folder, slider_size(self.config))

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The labels that samples can be asked for by; empty if there are none."""
        codes = read_labelled_codes(self.folder, self.config)
        return codes.labels if codes else ()

    @cached_property
    def card(self) -> str:
        """Its model card as Markdown, without metadata and title; empty if it has no card."""
        path = self.folder / CARD_FILE
        try:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error}.") from error
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        return re.sub(r"^# .*$", "", text, count=1, flags=re.MULTILINE).strip()

    @cached_property
    def metrics(self) -> dict[str, float | int | str]:
        """The published measurements.

        Raises:
            ValueError: If `metrics.json` does not exist, is damaged, or lacks a number that the Space shows.
        """
        path = self.folder / METRICS_FILE
        if not path.is_file():
            raise ValueError(
                f"{self.folder} has no {METRICS_FILE}. Finish the training, or run `hf-vae evaluate` on the folder."
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

    @property
    def real_band(self) -> list[float] | None:
        """The sharpness between which four of five real images lie, relative to their mean; None if it was measured
        before this was."""
        band = [self.metrics.get(name) for name in BAND_MEASURES]
        return band if all(map(_is_finite, band)) else None

    @cached_property
    def pipeline(self) -> ImagePipeline:
        """The model behind PIL images; loaded on first use and kept in memory.

        Raises:
            gradio.Error: If it cannot be loaded because its files have changed since the Space started. The reason is
                written to the log only, since it may name a path on the server.
        """
        try:
            return ImagePipeline.from_pretrained(self.folder).to(device_to_use())
        except Exception as error:  # which exception a damaged file raises depends on the damage
            logger.error("%s cannot be loaded: %s", self.name, _reason(error))
            sentence = f"{self.name} cannot be loaded; choose another model."
            raise gr.Error(sentence, print_exception=False) from error

    def check(self) -> None:
        """Reads the files that the Space needs, and checks the weights against the configuration without loading them.

        Raises:
            ValueError: If a file is missing or damaged, or is not a model of this package.
        """
        checked_folder(self.model_class, self.folder)
        for read in ("metrics", "priors", "directions", "sliders", "labels", "card"):
            getattr(self, read)  # cached, so that a file that is damaged later does no harm

    def reconstructions(self, picture: Image.Image) -> dict[str, PicturesOutput]:
        """Reconstructions of an image, by name. A model with residual latents gives a second one without them, since
        residual latents preserve most of any image whatever the networks learned."""
        latents = self.pipeline.encode([picture])
        found = {self.name: self.pipeline.decode(latents)}
        if self.detail_dim:
            alone = latents[:, : self.config["latent_dim"]]
            found[f"{self.name}, {WITHOUT_DETAILS}"] = self.pipeline.decode(alone)
        return found


@dataclass(frozen=True)
class TrainedHere(PublishedModel):
    """A model that a visitor trained in this Space. Its name cannot be guessed: see `own_name`.

    Args:
        home: The folder that is deleted together with it.
        until: When it is no longer kept, by `time.monotonic`.
    """

    home: Path
    until: float

    @property
    def title(self) -> str:
        _, family = split_name(self.name)
        return f"Your {FAMILIES[family].title}, {self.config['image_size']} px"  # type: ignore[index]


def own_name(family: str) -> str:
    """A new name for a model that a visitor trained. It cannot be guessed, as it is all that protects the model."""
    return f"{OWN_NAME}-{family}-{secrets.token_hex(12)}"


@dataclass(repr=False)  # Gradio sends the repr of a callback to browsers
class OwnModels:
    """The models that visitors trained, by name. They are deleted after an hour, and the oldest go when there are too
    many."""

    models: dict[str, TrainedHere] = field(default_factory=dict)

    def keep(self, name: str, folder: Path, home: Path) -> TrainedHere:
        """Keeps the model in `folder` for an hour, and then deletes `home`.

        Raises:
            ValueError: If the folder is not a model that the Space can show.
        """
        model = TrainedHere(name, folder, home, time.monotonic() + OWN_SECONDS)
        model.check()
        self._delete_old()
        self.models[name] = model
        while len(self.models) > MAX_OWN:
            self.delete(next(iter(self.models)))
        return model

    def delete(self, name: str) -> None:
        """Deletes a model and its files. It may be deleted already."""
        if model := self.models.pop(name, None):
            shutil.rmtree(model.home, ignore_errors=True)

    def find(self, name: str) -> TrainedHere | None:
        """The model of that name, if it is still kept."""
        self._delete_old()
        return self.models.get(name)

    def _delete_old(self) -> None:
        now = time.monotonic()
        for name in [name for name, model in list(self.models.items()) if model.until <= now]:
            self.delete(name)


class Models(dict[str, PublishedModel]):
    """The models of the Space, by name. Those that visitors trained are found by their names, as `models[name]`, `name
    in models` and `models.get(name)` do, but iteration, `len`, `keys`, `values` and `items` leave them out: a visitor
    must not learn another one's name.

    Args:
        published: The models that everybody sees.
        own: Those that visitors trained.
        condition: Which of these are found.
    """

    def __init__(
        self,
        published: Mapping[str, PublishedModel],
        own: OwnModels | None = None,
        condition: Callable[[PublishedModel], bool] = lambda _: True,
    ):
        super().__init__(published)
        self.own = own or OwnModels()
        self._condition = condition

    def _find(self, name: object) -> PublishedModel | None:
        if super().__contains__(name):
            return super().__getitem__(name)  # type: ignore[index]
        found = self.own.find(name) if isinstance(name, str) else None
        return found if found and self._condition(found) else None

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None

    def __missing__(self, name: str) -> PublishedModel:
        if model := self._find(name):
            return model
        raise KeyError(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The model of that name, or `default`."""
        return self._find(name) or default

    def only(self, condition: Callable[[PublishedModel], bool]) -> "Models":
        """Those for which `condition` is true, and of those that visitors will train too."""
        return Models({name: model for name, model in self.items() if condition(model)}, self.own, condition)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _reason(error: Exception) -> str:
    """The message of one of the package's own errors; the type and message of any other."""
    return str(error) if isinstance(error, ValueError | OSError) else repr(error)


def model_order(name: str) -> tuple[str, int, str]:
    """Sort key of models: dataset, then family in the order of `FAMILIES`, then name."""
    data_set, family = split_name(name)
    return data_set, list(FAMILIES).index(family) if family else len(FAMILIES), name


class OpenedModels(NamedTuple):
    """The models that the Space shows, by name, and for each model that cannot be loaded the reason in one sentence,
    without the server's paths."""

    models: Models
    broken: dict[str, str]


def open_models(places: dict[str, Path | str]) -> OpenedModels:
    """Opens models by name, each from a folder or a Hub id; models on the Hub are downloaded. A model that cannot be
    loaded is left out and reported in the log.

    Raises:
        ValueError: If there are no models, or none of them can be loaded.
    """
    if not places:
        raise ValueError("There are no models to show; name at least one model folder or Hub id.")
    models, broken, reasons = {}, {}, []
    for name, place in places.items():
        try:
            model = PublishedModel(name, find_folder(place, PUBLISHED_FILES))
            model.check()
            models[name] = model
        except Exception as error:  # one broken model must not take the others down, whatever it raises
            reason = _reason(error)
            reasons.append(f"{name} cannot be loaded: {reason}")
            is_folder = Path(place).is_absolute() or Path(place).is_dir()
            shown = reason.replace(str(place), name) if is_folder else reason
            broken[name] = f"{name} cannot be loaded: {ABSOLUTE_FOLDERS.sub('', shown)}"
    if not models:
        raise ValueError("\n".join(["None of the models can be loaded.", *reasons]))
    for reason in reasons:
        logger.warning(reason)
    return OpenedModels(Models(models), broken)


def data_set_title(data_set: str) -> str:
    """What visitors read for a dataset."""
    return DATA_SET_TITLES.get(data_set) or data_set[:1].upper() + data_set[1:]


def by_data_set(models: dict[str, PublishedModel]) -> dict[str, list[PublishedModel]]:
    """Groups the models by dataset."""
    groups: dict[str, list[PublishedModel]] = {}
    for model in models.values():
        groups.setdefault(model.data_set, []).append(model)
    return groups


def comparable_models(models: dict[str, PublishedModel]) -> dict[str, list[PublishedModel]]:
    """Groups of at least two models that share a dataset. If there are none, all models form one group."""
    shared = {data_set: group for data_set, group in by_data_set(models).items() if len(group) > 1}
    return shared or {"all models": list(models.values())}
