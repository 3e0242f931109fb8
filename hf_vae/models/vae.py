"""The variational autoencoder."""

from typing import Literal, NamedTuple

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput

from .base import EncoderOutput, ImageGenerator
from .detail import Detail
from .listed_layers import make_decoder, make_encoder


# Standard deviations from 0.0067 to 7.4: never so wide that an overflow in half precision hides it.
LOGVAR_RANGE = (-10.0, 4.0)


class VAEOutput(NamedTuple):
    """What `VAE.forward` returns: `reconstructions` (B, C, H, W), the posterior N(`mean`, exp(`logvar`)) and the draw
    of it that they were decoded from, `latents`, all `(B, Z)`, and `samples` (N, C, H, W) of other latents where some
    were asked for."""

    reconstructions: torch.Tensor
    mean: torch.Tensor
    logvar: torch.Tensor
    latents: torch.Tensor
    samples: torch.Tensor | None = None


class VAE(ImageGenerator):
    """A variational autoencoder (Kingma and Welling 2014): an encoder gives each picture a Gaussian in latent space, a
    decoder draws the picture again from a sample of it. It reconstructs, interpolates and samples; what it draws is
    smoother than a photograph, because it paints the average of all pictures that fit.

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
        detail_dim: Number of further latents, behind the Z that the networks know, for what these leave of each cell
            of a picture (`Detail`): fitted once they are trained, and 0 in samples. With them `encode` gives, and
            `decode` takes, `(B, Z + detail_dim)`.
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
        detail_dim: int = 0,
        output_size: int | None = None,
        prior: Literal["flow", "mixture", "gaussian", "standard"] = "flow",
        encoder_layers: tuple[str, ...] | None = None,
        decoder_layers: tuple[str, ...] | None = None,
    ):
        super().__init__(latent_dim, latent_size, prior, detail_dim)
        sizes = (image_size, image_channels, latent_dim, latent_size, width, max_width, block, shortcut)
        self.encoder = make_encoder(encoder_layers, *sizes, outputs=2)
        self.decoder = make_decoder(decoder_layers, *sizes)
        if detail_dim:
            self.detail = Detail(image_size, image_channels, latent_size, detail_dim)

    def encode(self, images: torch.Tensor) -> EncoderOutput:
        posterior = self.posterior(images)
        if self.detail is None:
            return posterior
        details = self.detail.encode(self.left_of(images, posterior.latents).to(self.dtype)).float()
        return EncoderOutput(latents=torch.cat([posterior.latents, details], 1), logvar=posterior.logvar)

    def decode(self, latents: torch.Tensor) -> DecoderOutput:
        sizes = [self.config.latent_dim, self.config.detail_dim]
        drawn, details = latents.to(self.dtype).split(sizes, 1)
        images = self.decoder(drawn)
        return DecoderOutput(sample=images if self.detail is None else images + self.detail.decode(details))

    def posterior(self, images: torch.Tensor) -> EncoderOutput:
        """What the encoder alone makes of images `(B, C, H, W)`: latents `(B, Z)` without details."""
        mean, logvar = self.encoder(images.to(self.dtype)).float().chunk(2, dim=1)  # (B, Z) each
        return EncoderOutput(latents=mean, logvar=logvar.clamp(*LOGVAR_RANGE))

    def left_of(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """What images `(B, C, H, W)` are more than what the decoder alone draws from `latents` (B, Z)."""
        return images - self.decoder(latents.to(self.dtype))

    def forward(self, images: torch.Tensor, noise: torch.Tensor | None = None) -> VAEOutput:
        """Reconstructs `images` (B, C, H, W), without details, from the draw of their posterior that `noise` (B, Z) of
        N(0, I) stands for; from the posterior's mean without it."""
        posterior = self.posterior(images)
        latents = posterior.latents
        if noise is not None:
            latents = latents + torch.exp(0.5 * posterior.logvar) * noise
        reconstructions = self.decoder(latents.to(self.dtype))
        return VAEOutput(reconstructions, posterior.latents, posterior.logvar, latents)
