"""The variational autoencoder that is trained against a discriminator."""

import torch

from .interpolation import slerp
from .vae import VAE, VAEOutput


class VAEGAN(VAE):
    """A variational autoencoder that is also trained against a discriminator (Larsen et al. 2016). It encodes and
    decodes as a VAE does. A VAE decodes to the average of all images that fit the latents; the discriminator makes a
    VAE-GAN decode to one that looks real. It reconstructs, interpolates and generates, with the detail that a VAE
    blurs.

    Args: those of `ImageGenerator`.
    """

    def forward(
        self,
        images: torch.Tensor,
        noise: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
    ) -> VAEOutput:
        """As `VAE.forward`. `samples` (N, C, H, W) are the images of `latents` (N, Z), if these are passed. With
        `places` (B, 1) in [0, 1], they are the images at that share of the great circle from the draw of each image's
        posterior to that of the next image."""
        output = super().forward(images, noise)
        if places is not None:
            latents = slerp(output.latents, output.latents.roll(1, 0), places)
        return output if latents is None else output._replace(samples=self.decoder(latents.to(self.dtype)))
