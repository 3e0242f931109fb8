"""The contract that every family keeps: images to flat latents and back, and samples from the prior inside the
model."""

import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils import CONFIG_NAME, BaseOutput

from .detail import Detail
from .loading import HUB_OPTIONS, checked_folder, device_of_map
from .prior import DEFAULT_PATH, LatentPrior
from .standalone import standalone_source


@dataclass
class EncoderOutput(BaseOutput):
    """What `encode` returns.

    Args:
        latents: The point that stands for each image, `(B, Z)`: without noise, the posterior mean where there is one.
        logvar: Log-variance of the posterior around `latents`, `(B, Z)`, or None in a family without a posterior.
            Details that follow the Z latents are certain.
    """

    latents: torch.Tensor
    logvar: torch.Tensor | None = None


class ImageGenerator(ModelMixin, ConfigMixin):
    """A small image generator with a latent space you can explore by hand.

    Images are `(B, C, H, W)` floats in [-1, 1]; latents are flat, `(B, Z)`. A family's `__init__` signature is its
    configuration, and holds `image_size`, `image_channels`, `latent_dim`, `output_size` and `prior`; it builds
    `self.decoder` and, where there is one, `self.encoder`. The `LatentPrior` is part of the model, so that one
    `config.json` and one safetensors file are all there is, and so is `self.detail` where a family has one, which
    follows latents `(B, Z)` by further ones. `forward` is the training path and returns every tensor that the family's
    objective needs.
    """

    has_encoder: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        # only of our own modules is it known that they can travel; a class of a notebook stays where it is
        cls._auto_class = "AutoModel" if cls.__module__.rpartition(".")[0] == __package__ else None

    def __init__(self, latent_dim: int, latent_size: int = 1, prior: str = "standard", detail_dim: int = 0):
        super().__init__()
        self.latent_prior = LatentPrior(latent_dim, latent_size, with_flow=prior == "flow", detail_dim=detail_dim)
        self.detail: Detail | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a model from a folder or a Hub id, in evaluation mode, as diffusers' models do, but only from
        safetensors, and only if all of it is as this class would have written it. No code of the folder is run.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            kwargs: Those of diffusers' `from_pretrained`. The whole model goes to the one device of `device_map`;
                "auto" is the accelerator, if there is one.

        Raises:
            ValueError: If there is no such model, it is of another class, or its configuration or weights are not
                whole, too large or not finite; see `hf_vae.models.loading`. If `device_map` names no single device of
                this machine.
        """
        if not kwargs.pop("use_safetensors", True):
            raise ValueError("use_safetensors=False is not possible: a pickle can hold any program.")
        device_map = kwargs.pop("device_map", None)
        device = None if device_map is None else device_of_map(device_map)
        folder = checked_folder(cls, pretrained_model_name_or_path, **kwargs)
        options = {name: value for name, value in kwargs.items() if name not in (*HUB_OPTIONS, "subfolder")}
        options.setdefault("low_cpu_mem_usage", False)  # it would need accelerate, and spares small networks nothing
        model = super().from_pretrained(folder, use_safetensors=True, **options)
        is_here = Path(os.path.expanduser(pretrained_model_name_or_path)).is_dir()
        # what the next config.json says: a Hub id, or the name of a folder without its path on this machine
        model.register_to_config(
            _name_or_path=folder.resolve().name if is_here else str(pretrained_model_name_or_path)
        )
        return model if device is None else model.to(device)

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs: Any) -> None:
        """Saves the model to a folder as diffusers' models do, and beside the weights the code that they need: where
        this package is not installed, diffusers' `AutoModel` loads the folder with `trust_remote_code=True`."""
        save_directory = os.path.expanduser(save_directory)
        if is_main_process and self._auto_class:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            self.save_source(Path(save_directory))
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            for weights in Path(save_directory).glob("diffusion_pytorch_model*.safetensors"):
                shutil.copymode(Path(save_directory, CONFIG_NAME), weights)  # made for its owner alone by safetensors

    @classmethod
    def save_source(cls, folder: Path) -> None:
        """Writes that code alone, under the name that diffusers writes into `config.json`."""
        (folder / f"{cls.__module__.rpartition('.')[2]}.py").write_text(standalone_source(cls.__module__))

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As diffusers', which makes the Hub client warn of an argument that nobody gave."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument")
            return super().load_config(*args, **kwargs)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple[dict[str, Any], ...]:
        """As diffusers', which would warn of `auto_map`, the line of `config.json` that is for `AutoModel` alone."""
        return super().extract_init_dict({k: v for k, v in config_dict.items() if k != "auto_map"}, **kwargs)

    @property
    def num_latents(self) -> int:
        """How many latents `encode` gives and `decode` takes: `latent_dim`, and what a family has behind these."""
        return self.config.latent_dim + self.latent_prior.detail_dim

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

    @torch.no_grad()
    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Encodes images `(B, C, H, W)` in [-1, 1] without noise, and decodes them again.

        Raises:
            ValueError: If the family has no encoder, or `images` are something else.
        """
        return self.decode(self._latents_of(images)).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def interpolate(
        self, start: torch.Tensor, end: torch.Tensor, num_images: int = 8, kind: str = DEFAULT_PATH
    ) -> torch.Tensor:
        """Images `(num_images, C, H, W)` in [-1, 1], evenly spaced on a path of `kind` through latent space, see
        `LatentPrior.path`, from `start` to `end`, which are images `(C, H, W)` in [-1, 1]; the reconstructions of both
        are included.

        Raises:
            ValueError: If the family has no encoder, `kind` is not a path that the model has, fewer than two images
                are asked for, or `start` and `end` are something else.
        """
        if num_images < 2:
            raise ValueError(f"A path needs at least 2 images; got {num_images}.")
        latents = torch.cat([self._latents_of(image, 3) for image in (start, end)])  # (2, Z)
        path = self.latent_prior.path(latents[0], latents[1], num_images, kind)  # (num_images, Z)
        return self.decode(path).sample.float().clamp(-1, 1)

    def _latents_of(self, images: torch.Tensor, ndim: int = 4) -> torch.Tensor:
        """Images `(B, C, H, W)` in [-1, 1], or with `ndim` 3 one `(C, H, W)`, to latents `(B, Z)`. A network would
        take bytes, too, and make noise of them."""
        size = (self.config.image_channels, self.config.image_size, self.config.image_size)
        is_float = isinstance(images, torch.Tensor) and images.is_floating_point()
        if self.has_encoder and not (is_float and images.ndim == ndim and images.shape[-3:] == size):
            of_shape = f"{images.dtype} of {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images)
            raise ValueError(
                f"A float tensor ({'B, ' if ndim == 4 else ''}{', '.join(map(str, size))}) in [-1, 1] is needed; got "
                f"{of_shape}. hf_vae.ImagePipeline takes PIL images, paths and arrays of any size."
            )
        return self.encode(images if ndim == 4 else images[None]).latents
