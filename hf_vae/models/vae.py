"""The variational autoencoder."""

from typing import Literal, NamedTuple

import torch
from diffusers.configuration_utils import register_to_config

from .base import DecoderOutput, EncoderOutput, ImageGenerator
from .detail import Detail
from .listed_layers import make_decoder, make_encoder
from .priors import PriorKind


# Standard deviations from 0.0067 to 7.4: never so wide that an overflow in half precision hides it.
LOGVAR_RANGE = (-10.0, 4.0)


class VAEOutput(NamedTuple):
    """What `VAE.forward` returns: `reconstructions` (B, C, H, W) and the posterior N(`mean`, exp(`logvar`)), both
    `(B, Z)`. The reconstructions were decoded from `latents` (B, Z), a draw from the posterior. `samples` (N, C, H, W)
    are the images of other latents, if any were passed."""

    reconstructions: torch.Tensor
    mean: torch.Tensor
    logvar: torch.Tensor
    latents: torch.Tensor
    samples: torch.Tensor | None = None


class VAE(ImageGenerator):
    """A variational autoencoder (Kingma and Welling 2014): an encoder maps each image to a Gaussian in latent space,
    and a decoder reconstructs the image from a sample of that Gaussian. It reconstructs, interpolates and generates.
    Its images are smoother than photographs, because it decodes to the average of all images that fit the latents.

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
        detail_dim: int = 0,
        output_size: int | None = None,
        prior: PriorKind = "code",
        code_dim: int = 128,
        code_nats: float = 60.0,
        code_width: int = 64,
        rest_temperature: float = 0.85,
        guidance: float | None = None,
        num_directions: int = 128,
        num_gaussians: int = 16,
        flow_width: int = 48,
        flow_mlp_width: int = 512,
        flow_depth: int = 2,
        flow_directions: int = 512,
        encoder_layers: tuple[str, ...] | None = None,
        decoder_layers: tuple[str, ...] | None = None,
    ):
        super().__init__(latent_dim, latent_size, prior)
        sizes = (image_size, image_channels, latent_dim, latent_size, width, max_width, block, shortcut)
        self.encoder = make_encoder(encoder_layers, *sizes, outputs=2)
        self.decoder = make_decoder(decoder_layers, *sizes)
        if detail_dim:
            self.detail = Detail(image_size, image_channels, latent_size, detail_dim)

    def encode(self, images: torch.Tensor) -> EncoderOutput:
        posterior = self.posterior(images)
        if self.detail is None:
            return posterior
        details = self.detail.encode(self.residuals(images, posterior.latents).to(self.dtype)).float()
        return EncoderOutput(latents=torch.cat([posterior.latents, details], 1), logvar=posterior.logvar)

    def decode(self, latents: torch.Tensor) -> DecoderOutput:
        size, count = self.config.latent_dim, latents.shape[1]
        if count not in (size, self.num_latents):
            raise ValueError(
                f"Latents (B, {size}) are needed, or (B, {self.num_latents}) with residual latents; got (B, {count})."
            )
        latents = latents.to(self.dtype)
        images = self.decoder(latents[:, :size])
        if self.detail is not None and count > size:
            images = images + self.detail.decode(latents[:, size:])
        return DecoderOutput(sample=images)

    def posterior(self, images: torch.Tensor) -> EncoderOutput:
        """Encodes images `(B, C, H, W)` to latents `(B, Z)`, without residual latents."""
        mean, logvar = self._mean_and_logvar(images)
        return EncoderOutput(latents=mean, logvar=logvar)

    def _mean_and_logvar(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, logvar = self.encoder(images.to(self.dtype)).float().chunk(2, dim=1)  # (B, Z) each
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def residuals(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The residuals `(B, C, H, W)`: images minus the decoder's output for `latents` (B, Z)."""
        return images - self.decoder(latents.to(self.dtype))

    def forward(self, images: torch.Tensor, noise: torch.Tensor | None = None) -> VAEOutput:
        """Reconstructs `images` (B, C, H, W), without residual latents, from a draw of their posterior: `noise` (B, Z)
        of N(0, I), in its standard deviations from its mean. Without `noise`, from the posterior's mean."""
        mean, logvar = self._mean_and_logvar(images)
        latents = mean if noise is None else mean + torch.exp(0.5 * logvar) * noise
        reconstructions = self.decoder(latents.to(self.dtype))
        return VAEOutput(reconstructions, mean, logvar, latents)
