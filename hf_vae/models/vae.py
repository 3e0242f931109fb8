"""The variational autoencoder."""

from typing import Literal, NamedTuple

import torch
from diffusers.configuration_utils import register_to_config

from .base import EncoderOutput, ImageGenerator
from .blocks import Decoder, Encoder


# Standard deviations from 0.0067 to 7.4: never so wide that an overflow in half precision hides it.
LOGVAR_RANGE = (-10.0, 4.0)


class VAEOutput(NamedTuple):
    """What `VAE.forward` returns: `reconstructions` (B, C, H, W), and the posterior N(`mean`, exp(`logvar`)), whose
    parameters are `(B, Z)`."""

    reconstructions: torch.Tensor
    mean: torch.Tensor
    logvar: torch.Tensor


class VAE(ImageGenerator):
    """A variational autoencoder (Kingma and Welling 2014): an encoder gives each picture a Gaussian in latent space, a
    decoder draws the picture again from a sample of it. It reconstructs, interpolates and samples; what it draws is
    smoother than a photograph, because it paints the average of all pictures that fit.

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
        self.encoder = Encoder(image_size, image_channels, 2 * latent_dim, width, max_width, block)
        self.decoder = Decoder(image_size, image_channels, latent_dim, width, max_width, block)

    def encode(self, images: torch.Tensor) -> EncoderOutput:
        mean, logvar = self.encoder(images.to(self.dtype)).float().chunk(2, dim=1)  # (B, Z) each
        return EncoderOutput(latents=mean, logvar=logvar.clamp(*LOGVAR_RANGE))

    def forward(self, images: torch.Tensor, noise: torch.Tensor | None = None) -> VAEOutput:
        """Reconstructs `images` (B, C, H, W) from the draw of their posterior that `noise` (B, Z), of N(0, I), stands
        for; from the posterior's mean without it."""
        posterior = self.encode(images)
        latents = posterior.latents
        if noise is not None:
            latents = latents + torch.exp(0.5 * posterior.logvar) * noise
        return VAEOutput(self.decode(latents).sample, mean=posterior.latents, logvar=posterior.logvar)
