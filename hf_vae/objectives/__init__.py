"""What each family is trained on: one frozen dataclass per family, in a file named like the one of its model."""

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
