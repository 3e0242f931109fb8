"""The contract that every family keeps: images to flat latents and back, and samples from the prior inside the
model."""

import os
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils import BaseOutput

from .loading import HUB_OPTIONS, checked_folder
from .prior import LatentPrior


@dataclass
class EncoderOutput(BaseOutput):
    """What `encode` returns.

    Args:
        latents: The point that stands for each image, `(B, Z)`: without noise, the posterior mean where there is one.
        logvar: Log-variance of the posterior around `latents`, `(B, Z)`, or None in a family without a posterior.
    """

    latents: torch.Tensor
    logvar: torch.Tensor | None = None


class ImageGenerator(ModelMixin, ConfigMixin):
    """A small image generator with a latent space that a person can hold.

    Images are `(B, C, H, W)` floats in [-1, 1]; latents are flat, `(B, Z)`. A family's `__init__` signature is its
    configuration, and holds `image_size`, `image_channels`, `latent_dim`, `output_size` and `prior`; it builds
    `self.decoder` and, where there is one, `self.encoder`. The `LatentPrior` is part of the model, so that one
    `config.json` and one safetensors file are all there is. `forward` is the training path and returns every tensor
    that the family's objective needs.
    """

    has_encoder: ClassVar[bool] = True

    def __init__(self, latent_dim: int, latent_size: int = 1, prior: str = "standard"):
        super().__init__()
        self.latent_prior = LatentPrior(latent_dim, latent_size, with_flow=prior == "flow")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a model from a folder or a Hub id, in evaluation mode, as diffusers' models do, but only from
        safetensors, and only if all of it is as this class would have written it. No code of the folder is run.

        Raises:
            ValueError: If there is no such model, it is of another class, or its configuration or weights are not
                whole, too large or not finite; see `hf_vae.models.loading`.
        """
        if not kwargs.pop("use_safetensors", True):
            raise ValueError("use_safetensors=False is not possible: a pickle can hold any program.")
        folder = checked_folder(cls, pretrained_model_name_or_path, **kwargs)
        options = {name: value for name, value in kwargs.items() if name not in (*HUB_OPTIONS, "subfolder")}
        options.setdefault("low_cpu_mem_usage", False)  # it would need accelerate, and spares small networks nothing
        return super().from_pretrained(folder, use_safetensors=True, **options)

    @property
    def output_size(self) -> int:
        """Edge in pixels of the pictures that people get; the network's own `image_size` unless configured."""
        return self.config.output_size or self.config.image_size

    def encode(self, images: torch.Tensor) -> EncoderOutput:
        """Images `(B, C, H, W)` in [-1, 1] to `EncoderOutput`.

        Raises:
            ValueError: If the family has no encoder (`has_encoder`).
        """
        raise ValueError(f"{type(self).__name__} has no encoder: it can sample, but not reconstruct a picture.")

    def decode(self, latents: torch.Tensor) -> DecoderOutput:
        """Latents `(B, Z)` to `DecoderOutput`, whose `sample` is `(B, C, H, W)`, in [-1, 1] up to what the network
        overshoots."""
        return DecoderOutput(sample=self.decoder(latents.to(self.dtype)))

    @torch.no_grad()
    def sample(
        self,
        num_images: int,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        prior: str | None = None,
    ) -> torch.Tensor:
        """Draws images `(num_images, C, H, W)` in [-1, 1].

        Args:
            num_images: How many.
            generator: Source of the latents' noise; the global one if None.
            temperature: Scale of that noise. Below 1 samples are more typical and less varied.
            prior: `"flow"`, `"mixture"` or `"gaussian"` (fitted on the training set) or `"standard"` (N(0, I));
                `config.prior` if None.

        Raises:
            ValueError: If `prior` is unknown, or a flow that the model has not.
        """
        latents = self.latent_prior.sample(num_images, prior or self.config.prior, generator, temperature)
        return self.decode(latents).sample.float().clamp(-1, 1)
