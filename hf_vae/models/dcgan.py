"""The generator of a deep convolutional generative adversarial network."""

from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config

from .base import DecoderOutput, ImageGenerator
from .listed_layers import make_decoder
from .priors import DecoderPriorKind


class DCGAN(ImageGenerator):
    """The generator of a deep convolutional GAN (Radford et al. 2016). It turns noise into an image, and learns only
    from a discriminator that tries to tell its images from real ones. Its images have crisp detail. It has no encoder,
    so it cannot reconstruct an image. Its latents are N(0, I) by construction.

    Args: those of `ImageGenerator`, except:
        block: "residual" (GroupNorm, nearest-neighbour upsampling) or "plain" (transposed convolutions and BatchNorm).
        prior: The distribution that samples are drawn from. "standard", N(0, I), is what the network is trained on.
        decoder_layers: The decoder layer by layer, see `hf_vae.models.listed_layers`. It replaces width, max_width and
            block.
    """

    has_encoder = False
    main_input_name = "latents"

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
        prior: DecoderPriorKind = "standard",
        num_directions: int = 128,
        decoder_layers: tuple[str, ...] | None = None,
    ):
        super().__init__(latent_dim, prior=prior)
        self.decoder = make_decoder(decoder_layers, image_size, image_channels, latent_dim, 1, width, max_width, block)

    def forward(self, latents: torch.Tensor, return_dict: bool = True) -> DecoderOutput:
        """Generates the images `(B, C, H, W)` of `latents` (B, Z) of N(0, I): a `DecoderOutput`, or a tuple without
        `return_dict`."""
        return self.decode(latents, return_dict)
