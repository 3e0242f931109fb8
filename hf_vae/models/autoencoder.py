"""The plain autoencoder."""

from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config

from .base import DecoderOutput, EncoderOutput, ImageGenerator
from .listed_layers import make_decoder, make_encoder
from .priors import PriorKind


class Autoencoder(ImageGenerator):
    """An autoencoder (Hinton and Salakhutdinov 2006): an encoder compresses each image to a few numbers, and a decoder
    reconstructs the image from them. It is trained only to reconstruct. Nothing else shapes its latent space, so
    samples, and images between two others, need not look real.

    Args: those of `ImageGenerator`.
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
        prior: PriorKind = "code",
        code_dim: int = 128,
        code_nats: float = 60.0,
        code_gaussians: int = 128,
        code_width: int = 64,
        rest_temperature: float = 0.85,
        rest_limit: float | None = None,
        rest_margin: int = 0,
        guidance: float | None = None,
        guidance_rescale: float = 0.0,
        num_directions: int = 128,
        num_gaussians: int = 16,
        flow_width: int = 48,
        flow_mlp_width: int = 512,
        flow_depth: int = 2,
        flow_directions: int = 512,
        round_trips: int = 0,
        encoder_layers: tuple[str, ...] | None = None,
        decoder_layers: tuple[str, ...] | None = None,
    ):
        super().__init__(latent_dim, latent_size, prior)
        sizes = (image_size, image_channels, latent_dim, latent_size, width, max_width, block, shortcut)
        self.encoder = make_encoder(encoder_layers, *sizes)
        self.decoder = make_decoder(decoder_layers, *sizes)

    def _encode(self, images: torch.Tensor) -> EncoderOutput:
        return EncoderOutput(latents=self.encoder(images.to(self.dtype)).float())

    def forward(self, images: torch.Tensor, return_dict: bool = True) -> DecoderOutput:
        """Reconstructs `images` (B, C, H, W): a `DecoderOutput`, or a tuple without `return_dict`."""
        return self.decode(self.encode(images).latents, return_dict)
