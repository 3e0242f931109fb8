"""The objectives: one frozen dataclass for each family, in a file with the name of its model's file."""

from .autoencoder import AutoencoderObjective
from .base import Logs, Networks, Objective, Step
from .dcgan import DCGANObjective
from .vae import VAEObjective
from .vaegan import VAEGANObjective


__all__ = [
    "AutoencoderObjective",
    "DCGANObjective",
    "Logs",
    "Networks",
    "Objective",
    "Step",
    "VAEGANObjective",
    "VAEObjective",
]
