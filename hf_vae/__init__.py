"""Small image generators with a latent space that a person can hold: train, share and explore them on Hugging Face."""

from .families import FAMILIES, AutoGenerator
from .models import DCGAN, VAE, Autoencoder, ImageGenerator, LatentPrior
from .pipeline import ImagePipeline


__all__ = [
    "DCGAN",
    "FAMILIES",
    "VAE",
    "AutoGenerator",
    "Autoencoder",
    "ImageGenerator",
    "ImagePipeline",
    "LatentPrior",
]
