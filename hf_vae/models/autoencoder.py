"""The plain autoencoder."""

from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config

from .base import EncoderOutput, ImageGenerator
from .blocks import Decoder, Encoder


class Autoencoder(ImageGenerator):
    """An autoencoder (Hinton and Salakhutdinov 2006): an encoder squeezes each picture into a few numbers, a decoder
    draws it again from them. It is trained to reconstruct and nothing else, so nothing shapes its latent space:
    what it draws between two pictures, or from noise, need not look like one.

    Args:
        image_size: Edge of the square images that the network works at, in pixels.
        image_channels: 3 for colour, 1 for greyscale.
        latent_dim: Number of latents Z.
        width: Channels at the finest scale; doubled at each coarser one.
        max_width: Channels are never more than this.
        block: "residual" (GroupNorm, nearest-neighbour upsampling) or "plain" (4x4 strided convolutions and
            BatchNorm).
        output_size: Edge of the pictures that people get, in pixels; None for image_size.
        prior: What samples are drawn from: "gaussian" (fitted after training) or "standard" (N(0, I)).
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 128,
        width: int = 32,
        max_width: int = 192,
        block: Literal["residual", "plain"] = "residual",
        output_size: int | None = None,
        prior: Literal["gaussian", "standard"] = "gaussian",
    ):
        super().__init__(latent_dim)
        self.encoder = Encoder(image_size, image_channels, latent_dim, width, max_width, block)
        self.decoder = Decoder(image_size, image_channels, latent_dim, width, max_width, block)

    def encode(self, images: torch.Tensor) -> EncoderOutput:
        return EncoderOutput(latents=self.encoder(images.to(self.dtype)).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Reconstructs `images` (B, C, H, W)."""
        return self.decode(self.encode(images).latents).sample
