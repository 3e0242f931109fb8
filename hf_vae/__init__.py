"""Small image generators with a latent space that a person can hold: train, share and explore them on Hugging Face."""

from .families import FAMILIES, AutoGenerator
from .models import DCGAN, VAE, VAEGAN, Autoencoder, ImageGenerator, LatentPrior
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
