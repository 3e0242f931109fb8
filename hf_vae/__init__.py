"""Small image generators with a latent space you can explore by hand: train, share and explore them."""

from typing import Any

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


def __getattr__(name: str) -> Any:
    """Imports `FAMILIES` when it is asked for: it needs what trains a model, and using a model does not."""
    if name == "FAMILIES":
        from .families import FAMILIES

        return FAMILIES
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
