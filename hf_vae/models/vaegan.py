"""The variational autoencoder that a discriminator taught detail."""

import torch

from .interpolation import slerp
from .vae import VAE, VAEOutput


class VAEGAN(VAE):
    """A variational autoencoder that was also trained against a discriminator (Larsen et al. 2016): it encodes and
    decodes as a VAE does, and where a VAE paints the average of all pictures that fit, a VAE-GAN has to decide for one
    that looks real. It reconstructs, interpolates and samples, with the detail that a VAE leaves out.

    Args: those of `VAE`.
    """

    def forward(
        self,
        images: torch.Tensor,
        noise: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
    ) -> VAEOutput:
        """As `VAE.forward`. `samples` (N, C, H, W) are the pictures of `latents` (N, Z) if they are given; with
        `places` (B, 1) in [0, 1], those at that part of the way, on the great circle, from the draw of each image's
        posterior to that of the next one."""
        output = super().forward(images, noise)
        if places is not None:
            latents = slerp(output.latents, output.latents.roll(1, 0), places)
        return output if latents is None else output._replace(samples=self.decoder(latents.to(self.dtype)))
