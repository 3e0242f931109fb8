"""Inference only: what these modules import is torch, diffusers with what it needs, and each other, so that they can
travel with the weights."""

from .autoencoder import Autoencoder
from .base import EncoderOutput, ImageGenerator
from .dcgan import DCGAN
from .prior import LatentPrior
from .vae import VAE
from .vaegan import VAEGAN


__all__ = ["DCGAN", "VAE", "VAEGAN", "Autoencoder", "EncoderOutput", "ImageGenerator", "LatentPrior"]
