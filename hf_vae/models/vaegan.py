"""The variational autoencoder that a discriminator taught detail."""

import torch

from .vae import VAE, VAEOutput


class VAEGAN(VAE):
    """A variational autoencoder that was also trained against a discriminator (Larsen et al. 2016): it encodes and
    decodes as a VAE does, and where a VAE paints the average of all pictures that fit, a VAE-GAN has to decide for one
    that looks real. It reconstructs, interpolates and samples, with the detail that a VAE leaves out.

    Args: those of `VAE`.
    """

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor | None = None, latents: torch.Tensor | None = None
    ) -> VAEOutput:
        """As `VAE.forward`. If `latents` (N, Z) are given, `samples` (N, C, H, W) are the images decoded from them."""
        output = super().forward(images, noise)
        return output if latents is None else output._replace(samples=self.decoder(latents.to(self.dtype)))
