"""The variational autoencoder."""

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput

from .base import EncoderOutput, ImageGenerator
from .detail import Detail
from .listed_layers import make_decoder, make_encoder
from .priors import PriorKind


# Standard deviations from 0.0067 to 7.4: never so wide that an overflow in half precision hides it.
LOGVAR_RANGE = (-10.0, 4.0)


@dataclass
class VAEOutput(BaseOutput):
    """What `VAE.forward` returns.

    Args:
        sample: Reconstructions `(B, C, H, W)`, under the name that they have in diffusers.
        mean: Mean of the posterior, `(B, Z)`.
        logvar: Its log-variance, `(B, Z)`.
        latents: The draw from the posterior that the reconstructions were decoded from, `(B, Z)`.
        samples: The images `(N, C, H, W)` of other latents, if any were passed.
    """

    sample: torch.Tensor
    # accelerate makes one from a dictionary, as its first argument; the others need a default for that
    mean: torch.Tensor = None  # type: ignore[assignment]
    logvar: torch.Tensor = None  # type: ignore[assignment]
    latents: torch.Tensor = None  # type: ignore[assignment]
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
        self.encoder = make_encoder(encoder_layers, *sizes, outputs=2)
        self.decoder = make_decoder(decoder_layers, *sizes)
        if detail_dim:
            self.detail = Detail(image_size, image_channels, latent_size, detail_dim)

    def _encode(self, images: torch.Tensor) -> EncoderOutput:
        posterior = self.posterior(images)
        if self.detail is None:
            return posterior
        details = self.detail.encode(self.residuals(images, posterior.latents).to(self.dtype)).float()
        latents = torch.cat([posterior.latents, details], 1)
        return EncoderOutput(latents=latents, logvar=posterior.logvar, latent_shape=self.latent_shape)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        latents, details = latents.tensor_split([self.config.latent_dim], 1)
        images = self.decoder(latents)
        if self.detail is not None and details.shape[1]:
            images = images + self.detail.decode(details)
        return images

    def posterior(self, images: torch.Tensor) -> EncoderOutput:
        """Encodes images `(B, C, H, W)` to latents `(B, Z)`, without residual latents."""
        mean, logvar = self._mean_and_logvar(images)
        return EncoderOutput(latents=mean, logvar=logvar, latent_shape=self.latent_shape)

    def _mean_and_logvar(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, logvar = self.encoder(images.to(self.dtype)).float().chunk(2, dim=1)  # (B, Z) each
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def residuals(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The residuals `(B, C, H, W)`: images minus the decoder's output for `latents` (B, Z)."""
        return images - self.decoder(latents.to(self.dtype))

    def forward(self, images: torch.Tensor, noise: torch.Tensor | None = None, return_dict: bool = True) -> VAEOutput:
        """Reconstructs `images` (B, C, H, W), without residual latents, from a draw of their posterior: `noise` (B, Z)
        of N(0, I), in its standard deviations from its mean. Without `noise`, from the posterior's mean. Returns a
        tuple without `return_dict`."""
        output = self._forward(images, noise)
        return output if return_dict else output.to_tuple()  # type: ignore[return-value]

    def _forward(self, images: torch.Tensor, noise: torch.Tensor | None) -> VAEOutput:
        mean, logvar = self._mean_and_logvar(images)
        latents = mean if noise is None else mean + torch.exp(0.5 * logvar) * noise
        reconstructions = self.decoder(latents.to(self.dtype))
        return VAEOutput(sample=reconstructions, mean=mean, logvar=logvar, latents=latents)
