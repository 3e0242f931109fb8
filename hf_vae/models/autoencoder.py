"""The plain autoencoder."""

from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config

from .base import EncoderOutput, ImageGenerator
from .listed_layers import make_decoder, make_encoder


class Autoencoder(ImageGenerator):
    """An autoencoder (Hinton and Salakhutdinov 2006): an encoder squeezes each picture into a few numbers, a decoder
    draws it again from them. It is trained to reconstruct and nothing else, so nothing shapes its latent space:
    what it draws between two pictures, or from noise, need not look like one.

    Args:
        image_size: Edge of the square images that the network works at, in pixels.
        image_channels: 3 for colour, 1 for greyscale.
        latent_dim: Number of latents Z.
        latent_size: Edge of the grid of cells that the latents lie on, each seeing its own part of the picture;
            1 for latents without a place, each of which stands for all of it.
        width: Channels at the finest scale; doubled at each coarser one.
        max_width: Channels are never more than this.
        block: "residual" (GroupNorm, nearest-neighbour upsampling) or "plain" (4x4 strided convolutions and
            BatchNorm).
        shortcut: Whether a cell of the grid also gets its latents by a linear map of its own pixels, and these by one
            of its latents, beside what the networks add. Plain blocks, and latents without a place, have none.
        output_size: Edge of the pictures that people get, in pixels; None for image_size.
        prior: What samples are drawn from, fitted after training: "flow" (a network that learns the latents),
            "mixture" (of Gaussians) or "gaussian"; or "standard" (N(0, I)).
        encoder_layers: The encoder layer by layer, as a recipe lists it, see `hf_vae.models.listed_layers`; width,
            max_width, block, shortcut and latent_size then say nothing about it.
        decoder_layers: The same for the decoder.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 1024,
        latent_size: int = 8,
        width: int = 32,
        max_width: int = 192,
        block: Literal["residual", "plain"] = "residual",
        shortcut: bool = True,
        output_size: int | None = None,
        prior: Literal["flow", "mixture", "gaussian", "standard"] = "flow",
        encoder_layers: tuple[str, ...] | None = None,
        decoder_layers: tuple[str, ...] | None = None,
    ):
        super().__init__(latent_dim, latent_size, prior)
        sizes = (image_size, image_channels, latent_dim, latent_size, width, max_width, block, shortcut)
        self.encoder = make_encoder(encoder_layers, *sizes)
        self.decoder = make_decoder(decoder_layers, *sizes)

    def encode(self, images: torch.Tensor) -> EncoderOutput:
        return EncoderOutput(latents=self.encoder(images.to(self.dtype)).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Reconstructs `images` (B, C, H, W)."""
        return self.decode(self.encode(images).latents).sample
