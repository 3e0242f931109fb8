"""Inference only: these modules import torch, diffusers and what it needs, and each other, so that they can travel
with the weights."""

from .autoencoder import Autoencoder
from .base import FITTED_PARTS, EncoderOutput, ImageGenerator
from .dcgan import DCGAN
from .priors import LatentPrior
from .vae import VAE
from .vaegan import VAEGAN


__all__ = ["DCGAN", "FITTED_PARTS", "VAE", "VAEGAN", "Autoencoder", "EncoderOutput", "ImageGenerator", "LatentPrior"]
