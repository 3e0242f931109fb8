"""The families: the one place that names them all. A family is tested, trained, published and shown by having a line
here."""

import inspect
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .config import RunConfig
from .models import DCGAN, VAE, VAEGAN, Autoencoder, ImageGenerator
from .models.auto import AutoGenerator
from .models.loading import NOT_ARGUMENTS, refuse_output_size
from .models.priors import PRIORS
from .objectives import AutoencoderObjective, DCGANObjective, Objective, VAEGANObjective, VAEObjective


@dataclass(frozen=True)
class Family:
    """A model class and what it is trained on.

    Args:
        title: What people call it.
        model: Its class.
        objective: Its losses and training steps.
    """

    title: str
    model: type[ImageGenerator]
    objective: type[Objective]

    @property
    def description(self) -> str:
        """What the family is, in a paragraph: the first of its class docstring."""
        return inspect.cleandoc(self.model.__doc__ or "").split("\n\n")[0]

    @property
    def has_discriminator(self) -> bool:
        """Whether it is trained against a discriminator."""
        return "discriminator" in self.objective().steps


FAMILIES: dict[str, Family] = {
    "vae": Family("VAE", VAE, VAEObjective),
    "vaegan": Family("VAE-GAN", VAEGAN, VAEGANObjective),
    "dcgan": Family("DC-GAN", DCGAN, DCGANObjective),
    "autoencoder": Family("Autoencoder", Autoencoder, AutoencoderObjective),
}


def split_name(name: str) -> tuple[str, str | None]:
    """The dataset and the family in a name of the form `<dataset>-<family>` or `<dataset>-<family>-<variant>`. If the
    name contains no family, the dataset is the part before the last hyphen, and the family is None."""
    families = "|".join(
        sorted(map(re.escape, FAMILIES), key=len, reverse=True)
    )  # longest first: one may start like another
    parts = re.fullmatch(rf"(?P<data_set>.+?)-(?P<family>{families})(-.+)?", name)
    return (parts["data_set"], parts["family"]) if parts else (name.rsplit("-", 1)[0], None)


def title_of(names: Collection[str]) -> str:
    """The title of a page that shows models with these names."""
    *others, last = names
    if not others:
        return f"{last}, a small image generator"
    if len(others) <= 2:
        return f"{', '.join(others)} and {last}, side by side"
    return "Small image generators, side by side"


def new_model(run: RunConfig) -> ImageGenerator:
    """The model that a run trains. It has random weights, or those of the model that the run starts from. A prior that
    takes training updates is left out, since it is learned at the end, unless the prior of that model is kept.

    Raises:
        ValueError: If a size is not possible, or the model to start from does not exist or has other networks.
    """
    model, train = FAMILIES[run.family].model(**run.model), run.train
    refuse_output_size(model.config.output_size)
    if model.config.prior not in PRIORS:
        raise ValueError(f"prior={model.config.prior} is not possible; choose one of {', '.join(PRIORS)}.")
    if not train.keeps_prior:
        model.latent_prior.drop_learned()
    if train.pretrained_model_name_or_path:
        start = AutoGenerator.from_pretrained(train.pretrained_model_name_or_path)
        if not train.keeps_prior:
            start.latent_prior = model.latent_prior
        start.detail = model.detail  # is fitted to the residuals of the trained networks
        try:
            model.load_state_dict(start.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"{train.pretrained_model_name_or_path} has other networks than the model to train. Give both "
                f"the same sizes; these settings differ: {'; '.join(_differences(start, model))}."
            ) from error
    return model


def _differences(start: ImageGenerator, wanted: ImageGenerator) -> Iterator[str]:
    """What differs between the model to start from and the model to train, with both values. Residual latents are not
    among it: they are fitted again."""
    if not isinstance(start, type(wanted)) and not isinstance(wanted, type(start)):
        yield f"the class is {type(start).__name__} there and {type(wanted).__name__} here"
    for name, value in wanted.config.items():
        if name not in NOT_ARGUMENTS | {"detail_dim"} and start.config.get(name, value) != value:
            yield f"{name} is {start.config[name]!r} there and {value!r} here"
