"""The generator of a deep convolutional generative adversarial network."""

from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config

from .base import ImageGenerator
from .listed_layers import make_decoder


class DCGAN(ImageGenerator):
    """The generator of a deep convolutional GAN (Radford et al. 2016): noise goes in, a picture comes out, and all it
    ever learned came from a discriminator that tried to tell its pictures from real ones. It draws crisp detail; it
    has no encoder, so it cannot reconstruct a given picture. Its latents are N(0, I) by construction.

    Args:
        image_size: Edge of the square images that the network works at, in pixels.
        image_channels: 3 for colour, 1 for greyscale.
        latent_dim: Number of latents Z.
        width: Channels at the finest scale; doubled at each coarser one.
        max_width: Channels are never more than this.
        block: "residual" (GroupNorm, nearest-neighbour upsampling) or "plain" (transposed convolutions and BatchNorm).
        output_size: Edge of the pictures that people get, in pixels; None for image_size.
        prior: What samples are drawn from; "standard" (N(0, I)) is what the network is trained on.
        decoder_layers: The decoder layer by layer, as a recipe lists it; width, max_width, block and latent_size then
            say nothing. See `hf_vae.models.listed_layers`.
    """

    has_encoder = False

    @register_to_config
    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 128,
        width: int = 32,
        max_width: int = 256,
        block: Literal["residual", "plain"] = "residual",
        output_size: int | None = None,
        prior: Literal["gaussian", "standard"] = "standard",
        decoder_layers: tuple[str, ...] | None = None,
    ):
        super().__init__(latent_dim)
        self.decoder = make_decoder(decoder_layers, image_size, image_channels, latent_dim, 1, width, max_width, block)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Draws the images `(B, C, H, W)` of `latents` (B, Z), which are of N(0, I)."""
        return self.decode(latents).sample
