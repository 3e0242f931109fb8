"""Small image generators with a latent space you can explore by hand: train, share and explore them."""

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
