"""Images in, images out: what the Space, the command line and users call."""

import operator
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.utils import CONFIG_NAME
from PIL import Image
from tqdm import tqdm

from .latents.directions import read_labelled_codes
from .latents.encoding import encode_all
from .latents.inversion import invert
from .latents.labelled_codes import LABEL_GUIDANCE, Label, LabelledCodes
from .latents.sliders import NamedSlider, read_sliders, slider_size
from .models import ImageGenerator
from .models.auto import AutoGenerator
from .models.loading import find_folder
from .models.priors import CODE, DEFAULT_STEPS
from .pictures import ImageLike, picture_to_uint8, square_picture, to_float, to_pictures, to_pil_image, to_pil_images
from .run_folder import DIRECTIONS_FILE, SLIDERS_FILE


DECODE_BATCH = 64
MAX_SEED = 2**64 - 1  # of a torch.Generator


def seeded(seed: int) -> torch.Generator:
    """A generator of the CPU with this seed.

    Raises:
        ValueError: If it is not a whole number from 0 to 2**64 - 1.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number <= MAX_SEED:
        raise ValueError(f"seed={seed!r} is not possible; it must be a whole number from 0 to {MAX_SEED}.")
    return torch.Generator().manual_seed(number)


@dataclass(frozen=True)
class PicturesOutput:
    """What every call of the pipeline returns.

    Args:
        images: The PIL images, square, of the model's `output_size`.
        latents: The latents that each was decoded from, `(B, Z)`, or `(B, Z + D)` with residual latents.
        tensors: The same images at the network's own size, `(B, C, H, W)` in [-1, 1]: what `metrics` measure.
    """

    images: list[Image.Image]
    latents: torch.Tensor
    tensors: torch.Tensor


class ImagePipeline:
    """Wraps a model so that it takes and returns PIL images. Any image may go in: rotated by EXIF, transparent, grey,
    of any size. Its largest centred square is used. It may be a PIL image, the path of a file, or a uint8 array or
    tensor, see `hf_vae.pictures.to_pil_images`. Most methods take one image or several.

    Latents that encode an image are `(B, Z)`, or `(B, Z + D)` in a model with residual latents. Latents of samples are
    `(B, Z)`. Every method that takes latents takes both.

    Args:
        model: A model of any family.
        codes: Its code given the labels of the training images, if it has one and they were fitted.
        sliders: Its sliders with a name, if they were fitted.
    """

    def __init__(
        self,
        model: ImageGenerator,
        codes: LabelledCodes | None = None,
        sliders: Iterable[NamedSlider] = (),
    ):
        self.model, self.codes = model.eval(), codes
        self.sliders = tuple(sliders)
        self._hides_progress: bool | None = True

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> "ImagePipeline":
        """Loads any family's model from a folder or a Hub id, with its named sliders and the labels that samples can
        be asked for by, if it has some.

        Raises:
            ValueError: If it is not a model of this package, or its `directions.safetensors` or
                `sliders.safetensors` is damaged.
        """
        model = AutoGenerator.from_pretrained(path, **kwargs)
        folder = find_folder(path, [CONFIG_NAME, DIRECTIONS_FILE, SLIDERS_FILE], **kwargs)
        return cls(model, read_labelled_codes(folder, model.config), read_sliders(folder, slider_size(model.config)))

    def to(self, device: str | torch.device) -> "ImagePipeline":
        """Moves the model to `device`."""
        self.model.to(device)
        return self

    def show_progress(self) -> "ImagePipeline":
        """Shows a bar on stderr, if that is a terminal, while many images are decoded."""
        self._hides_progress = None  # to tqdm: unless it is a terminal
        return self

    @property
    def num_components(self) -> int:
        """Number of principal components to move along."""
        return len(self.model.latent_prior.sliders.stds)

    @property
    def has_code(self) -> bool:
        """Whether sliders move the code of an image."""
        return CODE in self.model.latent_prior.kinds

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels that samples can be asked for by."""
        return self.codes.labels if self.codes else ()

    def prepare(self, picture: ImageLike) -> Image.Image:
        """The image as the model sees it: a square of its `image_size`, in colour or grey."""
        return square_picture(to_pil_image(picture), self.model.config.image_size, self.model.config.image_channels)

    def to_images(self, pictures: ImageLike | Iterable[ImageLike]) -> torch.Tensor:
        """One image or several, prepared, as a tensor `(B, C, H, W)` in [-1, 1]: what `metrics` measure and
        `model.encode` takes."""
        return to_float(torch.stack([picture_to_uint8(self.prepare(picture)) for picture in to_pil_images(pictures)]))

    def encode(self, pictures: ImageLike | Iterable[ImageLike]) -> torch.Tensor:
        """The latents of one image or several, without noise: `(B, Z)`, or `(B, Z + D)` with residual latents.

        Raises:
            TypeError: If it is not an image.
            ValueError: If the family has no encoder, or an image cannot be read.
        """
        return encode_all(self.model, self.to_images(pictures))

    def invert(
        self,
        pictures: ImageLike | Iterable[ImageLike],
        seed: int = 0,
        report: Callable[[float], None] | None = None,
    ) -> torch.Tensor:
        """The latents `(B, Z)` whose images come nearest to one image or several. This is a search that takes seconds,
        for a family without an encoder. `report` is called with the share that is done, from 0 to 1."""
        return invert(self.model, self.to_images(pictures), seed, report)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> PicturesOutput:
        """Decodes latents to images.

        Raises:
            ValueError: If `latents` have another shape than latents have.
        """
        self._refuse_other_latents(latents)
        batches = tqdm(latents.split(DECODE_BATCH), desc="Decoding", disable=self._hides_progress, delay=1)
        tensors = torch.cat([self.model.decode(batch.to(self.model.device)).sample for batch in batches])
        tensors = tensors.float().clamp(-1, 1).cpu()
        return PicturesOutput(to_pictures(tensors, self.model.output_size), latents, tensors)

    def sample(
        self,
        num_images: int,
        seed: int | None = None,
        temperature: float = 1.0,
        prior: str | None = None,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
        labels: Mapping[str, Any] | None = None,
        label_guidance: float = LABEL_GUIDANCE,
        skip: int = 0,
        rest_temperature: float | None = None,
    ) -> PicturesOutput:
        """Generates images: those that `model.sample` gives for a `torch.Generator` with this seed. They are the same
        on any device, and however many of them are generated. `skip` leaves out as many at the start, so that
        `sample(1, seed=3, skip=5)` gives the sixth image of seed 3 alone.

        `labels` asks for images with these values of labels of the training images, such as `{"age": 60, "gender":
        "female"}`: any of those that `hf-vae directions` fitted, see `labels`. The code is drawn given them.
        `label_guidance` is how clearly they show, see `LabelledCodes.given`: 1 is as clearly as in the training
        images. Other arguments are those of `ImageGenerator.sample`.

        Raises:
            ValueError: If the model has no such label, it cannot have the value, or `label_guidance` is below 0. If
                `labels` are given with a prior without a code. If `seed` is not a whole number from 0 to 2**64 - 1, or
                `skip` is below 0. As
                `ImageGenerator.sample` does.
        """
        generator = seeded(secrets.randbelow(2**32) if seed is None else seed)
        code = self._code_given(labels, label_guidance) if labels else None
        if skip < 0:
            raise ValueError(f"skip={skip} is not possible; it must be at least 0.")
        if skip:
            self.model.latent_prior.draw_noise(skip, prior or self.model.config.prior, generator)
        return self.decode(
            self.model.sample_latents(
                num_images, generator, temperature, prior, num_steps, guidance, code, rest_temperature
            )
        )

    def _code_given(self, labels: Mapping[str, Any], label_guidance: float) -> tuple[torch.Tensor, torch.Tensor]:
        if self.codes is None:
            reason = (
                "`ImagePipeline.from_pretrained` loads those that `hf-vae directions` fitted"
                if self.has_code
                else f"they need the prior {CODE!r}"
            )
            raise ValueError(
                f"Samples with the labels {', '.join(labels)} are not possible: this model has no labels; {reason}."
            )
        return self.codes.given(labels, label_guidance)

    def reconstruct(self, pictures: ImageLike | Iterable[ImageLike]) -> PicturesOutput:
        """Encodes and decodes one image or several.

        Raises:
            TypeError: If it is not an image.
            ValueError: If the family has no encoder, or an image cannot be read.
        """
        return self.decode(self.encode(pictures))

    def interpolate(
        self,
        start: ImageLike,
        end: ImageLike,
        frames: int = 48,
        kind: str | None = None,
        num_steps: int = DEFAULT_STEPS,
    ) -> PicturesOutput:
        """Morphs `start` into `end` in `frames` images along a path through latent space. The first and the last image
        are the reconstructions of both. `kind` is the path, and `num_steps` the number of steps of a flow; see
        `LatentPrior.path`.

        Raises:
            ValueError: If the family has no encoder, the model has no such path, or `frames` is below 2.
        """
        ends = self.encode([to_pil_image(start), to_pil_image(end)])
        return self.interpolate_latents(ends, frames, kind, num_steps)

    def interpolate_latents(
        self, ends: torch.Tensor, frames: int = 48, kind: str | None = None, num_steps: int = DEFAULT_STEPS
    ) -> PicturesOutput:
        """The same between two points in latent space, `(2, Z)` or `(2, Z + D)`.

        Raises:
            ValueError: If `ends` have another shape, or as in `interpolate`.
        """
        self._refuse_other_latents(ends, 2)
        start, end = ends
        return self.decode(self.model.path(start, end, frames, kind, num_steps))

    def vary(self, picture: ImageLike, component: int | str, values: list[float]) -> PicturesOutput:
        """Moves an image along a principal component, or along a named slider: one image for each of `values`, which
        are added to its position in standard deviations of the training set. Components are numbered from 0, by
        falling variance. A name is one of `sliders`, in upper or lower case.

        Raises:
            ValueError: If the family has no encoder, or the component does not exist.
        """
        return self.vary_latents(self.encode(to_pil_image(picture)), component, values)

    def vary_latents(self, latents: torch.Tensor, component: int | str, values: list[float]) -> PicturesOutput:
        """The same from a point in latent space, `(1, Z)` or `(1, Z + D)`, for any family.

        Raises:
            ValueError: If the component does not exist, or `latents` have another shape.
        """
        self._refuse_other_latents(latents, 1)
        return self.decode(self.move(latents, torch.tensor(values)[:, None] * self._slider_vector(component)))

    def _slider_vector(self, component: int | str) -> torch.Tensor:
        if isinstance(component, str):
            vectors = {each.name.casefold(): each.vector for each in self.sliders}
            if component.casefold() not in vectors:
                names = ", ".join(each.name for each in self.sliders) or "no named sliders"
                raise ValueError(
                    f"component={component!r} does not exist: this model has {names}, and components 0 to "
                    f"{self.num_components - 1}."
                )
            return vectors[component.casefold()]
        if not 0 <= component < self.num_components:
            raise ValueError(
                f"component={component} does not exist: this model has components 0 to {self.num_components - 1}."
            )
        return F.one_hot(torch.tensor(component), component + 1).float()

    def move(
        self, latents: torch.Tensor, shifts: torch.Tensor, noise: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Moves latents, B of them or one for all, along the first K principal components by `shifts` (B, K), in
        standard deviations of the training set; see `ImageGenerator.move`. For latents that move again and again,
        `noise` may be what `noise_of` gave for them: it saves about half of the time."""
        return self.model.move(latents, shifts.to(latents.device), noise=noise)

    def noise_of(self, latents: torch.Tensor) -> list[torch.Tensor] | None:
        """The noise that `move` starts from for latents; None in a model without a code."""
        return self.model.latent_prior.noise_of_code(latents[:, : self.model.config.latent_dim])

    def shift(self, latents: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Moves latents, B of them or one for all, by steps along labelled directions. In a model with a code, these
        are `steps` (B, code_dim) of the code, as in `move`. In others, `steps` (B, Z) are added to the latents.
        Residual latents stay as they are."""
        if self.has_code:
            return self.move(latents, steps)
        return latents + F.pad(steps, (0, latents.shape[1] - steps.shape[1]))

    def _refuse_other_latents(self, latents: Any, rows: int | None = None) -> None:
        """Raises a `ValueError` for all but latents of `rows` rows, or of any number of rows."""
        sizes = sorted({self.model.config.latent_dim, self.model.num_latents})
        shape = tuple(latents.shape) if isinstance(latents, torch.Tensor) else None
        if shape is None or len(shape) != 2 or shape[1] not in sizes or rows not in (None, shape[0]):
            shapes = " or ".join(f"({rows or 'B'}, {size})" for size in sizes)
            raise ValueError(
                f"Latents must be a tensor {shapes}, as `encode` and `sample` give them; got "
                f"{type(latents).__name__ if shape is None else shape}."
            )
