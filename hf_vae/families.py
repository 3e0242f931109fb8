"""The families: the one place that names them all. A family is tested, trained, published and shown by having a line
here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from .models import DCGAN, VAE, ImageGenerator
from .objectives import DCGANObjective, Objective, VAEObjective


@dataclass(frozen=True)
class Family:
    """A model class and what it is trained on."""

    model: type[ImageGenerator]
    objective: type[Objective]


FAMILIES: dict[str, Family] = {
    "vae": Family(VAE, VAEObjective),
    "dcgan": Family(DCGAN, DCGANObjective),
}


def family_of(model: ImageGenerator) -> str:
    """The name in `FAMILIES` of a model's class."""
    return next(name for name, family in FAMILIES.items() if type(model) is family.model)


class AutoGenerator:
    """Loads any family's model, by the class name in its `config.json`."""

    @classmethod
    def from_pretrained(cls, path: str | Path, revision: str | None = None, **kwargs: Any) -> ImageGenerator:
        """Loads the model at `path`, a folder or a Hub id, in evaluation mode. `kwargs` go to the class's own
        `from_pretrained`.

        Raises:
            ValueError: If there is no such model, or its `config.json` names a class that is no family of ours.
        """
        return cls.class_of(path, revision).from_pretrained(path, revision=revision, **kwargs)

    @classmethod
    def class_of(cls, path: str | Path, revision: str | None = None) -> type[ImageGenerator]:
        """The class of the model at `path`, without loading its weights.

        Raises:
            ValueError: As `from_pretrained` does.
        """
        class_name = json.loads(cls._config_file(path, revision).read_text()).get("_class_name")
        classes = {family.model.__name__: family.model for family in FAMILIES.values()}
        if class_name not in classes:
            raise ValueError(f"{path} is a model of class {class_name!r}; the families here are {', '.join(classes)}.")
        return classes[class_name]

    @staticmethod
    def _config_file(path: str | Path, revision: str | None) -> Path:
        if Path(path).is_dir():
            config_file = Path(path) / "config.json"
            if not config_file.is_file():
                raise ValueError(f"{path} holds no config.json: it is no model folder that save_pretrained wrote.")
            return config_file
        try:
            return Path(hf_hub_download(str(path), "config.json", revision=revision))
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise ValueError(f"{path} is neither a folder here nor a model that the Hub gives. {error}") from error
