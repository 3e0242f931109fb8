"""Pictures in, pictures out: what the Space, the command line and users call."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from .families import AutoGenerator
from .latents import encode_all, path
from .models import ImageGenerator
from .transforms import picture_to_uint8, square_picture, to_float, to_pictures


DECODE_BATCH = 64


@dataclass(frozen=True)
class PicturesOutput:
    """What every call of the pipeline returns.

    Args:
        images: The pictures, square, of the model's `output_size`.
        latents: The point in latent space that each was decoded from, `(B, Z)`.
        tensors: The same pictures at the network's own size, `(B, C, H, W)` in [-1, 1]: what `metrics` measure.
    """

    images: list[Image.Image]
    latents: torch.Tensor
    tensors: torch.Tensor


class ImagePipeline:
    """A model with pictures at both ends. Any picture may go in: rotated by EXIF, transparent, grey, of any size; its
    largest centred square is used."""

    def __init__(self, model: ImageGenerator):
        self.model = model.eval()
        self._hides_progress: bool | None = True

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> "ImagePipeline":
        """Loads any family's model from a folder or a Hub id.

        Raises:
            ValueError: If it is no model of ours.
        """
        return cls(AutoGenerator.from_pretrained(path, **kwargs))

    def to(self, device: str | torch.device) -> "ImagePipeline":
        """Moves the model to `device`."""
        self.model.to(device)
        return self

    def show_progress(self) -> "ImagePipeline":
        """Shows a bar on stderr, if that is a terminal, while many pictures are decoded."""
        self._hides_progress = None  # what tqdm takes for: unless it is a terminal
        return self

    @property
    def num_components(self) -> int:
        """How many principal components there are to move along."""
        return len(self.model.latent_prior.stds)

    def prepare(self, picture: Image.Image) -> Image.Image:
        """The picture as the model gets to see it: a square of its `image_size`, in colour or grey."""
        return square_picture(picture, self.model.config.image_size, self.model.config.image_channels)

    def to_images(self, pictures: list[Image.Image]) -> torch.Tensor:
        """Pictures, prepared, as images `(B, C, H, W)` in [-1, 1]: what `metrics` measure and `model.encode` takes."""
        return to_float(torch.stack([picture_to_uint8(self.prepare(picture)) for picture in pictures]))

    def encode(self, pictures: list[Image.Image]) -> torch.Tensor:
        """The latents `(B, Z)` of pictures, without noise.

        Raises:
            ValueError: If the family has no encoder.
        """
        return encode_all(self.model, self.to_images(pictures))

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> PicturesOutput:
        """The pictures of latents `(B, Z)`."""
        batches = tqdm(latents.split(DECODE_BATCH), desc="Decoding", disable=self._hides_progress, delay=1)
        tensors = torch.cat([self.model.decode(batch.to(self.model.device)).sample for batch in batches])
        tensors = tensors.float().clamp(-1, 1).cpu()
        return PicturesOutput(to_pictures(tensors, self.model.output_size), latents, tensors)

    def sample(
        self, num_images: int, seed: int | None = None, temperature: float = 1.0, prior: str | None = None
    ) -> PicturesOutput:
        """Draws pictures; the same `seed` gives the same ones, whatever the device. The arguments are those of
        `ImageGenerator.sample`."""
        generator = torch.Generator() if seed is None else torch.Generator().manual_seed(seed)
        if seed is None:
            generator.seed()
        prior = prior or self.model.config.prior
        return self.decode(self.model.latent_prior.sample(num_images, prior, generator, temperature))

    def reconstruct(self, pictures: Image.Image | list[Image.Image]) -> PicturesOutput:
        """Encodes and decodes one picture or several.

        Raises:
            ValueError: If the family has no encoder.
        """
        return self.decode(self.encode([pictures] if isinstance(pictures, Image.Image) else pictures))

    def interpolate(
        self, start: Image.Image, end: Image.Image, frames: int = 48, kind: str = "lerp"
    ) -> PicturesOutput:
        """A morph from `start` to `end`, the reconstruction of either included, in `frames` even steps of latent
        space.

        Raises:
            ValueError: If the family has no encoder, `kind` is neither "lerp" nor "slerp", or `frames` is below 2.
        """
        return self.decode(path(*self.encode([start, end]), frames, kind))

    def vary(self, picture: Image.Image, component: int, values: list[float]) -> PicturesOutput:
        """The picture moved along a principal component: one picture for each of `values`, in standard deviations of
        the training set, added to where the picture lies. Components are numbered from 0, by falling variance.

        Raises:
            ValueError: If the family has no encoder or the component does not exist.
        """
        return self.move(self.encode([picture]), component, values)

    def move(self, latents: torch.Tensor, component: int, values: list[float]) -> PicturesOutput:
        """As `vary`, from a point in latent space, `(1, Z)`, which any family has.

        Raises:
            ValueError: If the component does not exist.
        """
        prior = self.model.latent_prior
        if not 0 <= component < self.num_components:
            raise ValueError(
                f"component={component} does not exist: this model has components 0 to {self.num_components - 1}."
            )
        step = prior.stds[component] * prior.directions[component]  # (Z,)
        return self.decode(latents + torch.tensor(values, device=step.device)[:, None] * step)
