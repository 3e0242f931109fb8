"""The families: the one place that names them all. A family is tested, trained, published and shown by having a line
here."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.utils import CONFIG_NAME

from .config import RunConfig
from .models import DCGAN, VAE, VAEGAN, Autoencoder, ImageGenerator
from .models.loading import find_folder, read_config, refuse_output_size
from .objectives import AutoencoderObjective, DCGANObjective, Objective, VAEGANObjective, VAEObjective


@dataclass(frozen=True)
class Family:
    """A model class and what it is trained on."""

    model: type[ImageGenerator]
    objective: type[Objective]

    @property
    def description(self) -> str:
        """What the family is, in a paragraph: the first of its class docstring."""
        return inspect.cleandoc(self.model.__doc__).split("\n\n")[0]


FAMILIES: dict[str, Family] = {
    "autoencoder": Family(Autoencoder, AutoencoderObjective),
    "vae": Family(VAE, VAEObjective),
    "dcgan": Family(DCGAN, DCGANObjective),
    "vaegan": Family(VAEGAN, VAEGANObjective),
}


def new_model(run: RunConfig) -> ImageGenerator:
    """The model that a run trains: with random weights, or those of the model that the run starts from, and without
    the flow of its prior, which is learned at the end, unless that model's prior is kept.

    Raises:
        ValueError: If a size cannot be made, or the model to start from does not exist or has other networks.
    """
    model, train = FAMILIES[run.family].model(**run.model), run.train
    refuse_output_size(model.config.output_size)
    if not train.keeps_prior:
        model.latent_prior.flow = None
    if train.pretrained_model_name_or_path:
        start = AutoGenerator.from_pretrained(train.pretrained_model_name_or_path)
        if not train.keeps_prior:
            start.latent_prior = model.latent_prior
        start.detail = model.detail  # is fitted to what the trained networks leave
        try:
            model.load_state_dict(start.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"{train.pretrained_model_name_or_path} has other networks than the model that is to start from it; "
                f"give both the same sizes. {error}"
            ) from error
    return model


class AutoGenerator:
    """Loads any family's model, by the class name in its `config.json`."""

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> ImageGenerator:
        """Loads the model at `path`, a folder or a Hub id, in evaluation mode. `kwargs` go to the class's own
        `from_pretrained`.

        Raises:
            ValueError: If there is no such model, or its `config.json` names a class that is no family of ours.
        """
        return cls.class_of(path, **kwargs).from_pretrained(path, **kwargs)

    @classmethod
    def class_of(cls, path: str | Path, **kwargs: Any) -> type[ImageGenerator]:
        """The class of the model at `path`, without loading its weights. The arguments are those of `from_pretrained`.

        Raises:
            ValueError: As `from_pretrained` does.
        """
        class_name = read_config(find_folder(path, [CONFIG_NAME], **kwargs))["_class_name"]
        classes = {family.model.__name__: family.model for family in FAMILIES.values()}
        if class_name not in classes:
            raise ValueError(f"{path} is a model of class {class_name!r}; the families here are {', '.join(classes)}.")
        return classes[class_name]
