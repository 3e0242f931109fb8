"""Small image generators with a latent space you can explore by hand: train, share and explore them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .families import FAMILIES
    from .models import DCGAN, VAE, VAEGAN, Autoencoder, ImageGenerator, LatentPrior
    from .models.auto import AutoGenerator
    from .pipeline import ImagePipeline


__all__ = [
    "DCGAN",
    "FAMILIES",
    "VAE",
    "VAEGAN",
    "AutoGenerator",
    "Autoencoder",
    "ImageGenerator",
    "ImagePipeline",
    "LatentPrior",
]

MODULES = {"FAMILIES": "families", "AutoGenerator": "models.auto", "ImagePipeline": "pipeline"}  # else models


def __getattr__(name: str) -> Any:
    """Imports what is asked for, when it is asked for: a command chooses how it imports PyTorch and diffusers
    (`startup`), and using a model does not need what trains one."""
    if name in __all__:
        return getattr(import_module(f".{MODULES.get(name, 'models')}", __name__), name)
    if name in ("models", "pipeline"):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
