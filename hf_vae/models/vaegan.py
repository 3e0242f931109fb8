"""The variational autoencoder that is trained against a discriminator."""

import torch

from .vae import VAE, VAEOutput


class VAEGAN(VAE):
    """A variational autoencoder that is also trained against a discriminator (Larsen et al. 2016). It encodes and
    decodes like a VAE. A VAE decodes to the average of all images that fit the latents; the discriminator makes a
    VAE-GAN decode to one that looks real. It reconstructs, interpolates and generates, with the detail that a VAE
    blurs.

    Args: those of `ImageGenerator`.
    """

    def forward(
        self,
        images: torch.Tensor,
        noise: torch.Tensor | None = None,
        return_dict: bool = True,
        latents: torch.Tensor | None = None,
    ) -> VAEOutput:
        """As `VAE.forward`. If `latents` (N, Z) are given, `samples` (N, C, H, W) are the images decoded from them."""
        output = self._forward(images, noise)
        if latents is not None:
            output.samples = self.decoder(latents.to(self.dtype))
        return output if return_dict else output.to_tuple()  # type: ignore[return-value]
