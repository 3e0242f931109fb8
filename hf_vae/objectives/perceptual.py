"""The error between images as a network sees it, which the code of a model is learned with."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from ..models import ImageGenerator
from ..models.priors.base import ImageError
from .efficientnet import EfficientNetLite


IMAGE_SIZE = 64
LAYERS = (4, 6, 12, 17)  # of the trunk of EfficientNet-Lite0: the last of strides 4, 8, 16 and 32
FEATURE_WEIGHT = 0.03


class PerceptualError:
    """The squared distance between the features of images in EfficientNet-Lite0: at each of four scales, features are
    normalised over channels, and the squared differences are summed over channels, averaged over places, and summed
    over scales (as LPIPS, Zhang et al. 2018, equation 1, with all weights 1). Images are resized to 64x64.

    Raises:
        ValueError: If the package with the network's weights is not installed, or has other weights.
    """

    def __init__(self):
        self.layers = nn.ModuleList(list(EfficientNetLite.load_packaged().trunk.children())[: LAYERS[-1] + 1])

    def to(self, device: torch.device) -> "PerceptualError":
        """Moves the network to `device`."""
        self.layers.to(device)
        return self

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The normalised features of images `(B, C, H, W)` in [-1, 1], each `(B, F, h, w)`."""
        hidden = images.float().expand(-1, 3, -1, -1)  # bf16 cannot be resized
        if images.shape[-1] != IMAGE_SIZE:
            hidden = F.interpolate(hidden, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True)
        hidden, found = hidden.contiguous(memory_format=torch.channels_last), []
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if number in LAYERS:
                values = hidden.float()
                found.append(values * (values.square().sum(1, keepdim=True) + 1e-6).rsqrt())
        return found

    def __call__(self, images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """The error of `images` against `references`, both `(B, C, H, W)`: `(B,)`. Only `images` get gradients."""
        with torch.no_grad():
            wanted = self.maps(references)
        scales = zip(self.maps(images), wanted, strict=True)
        return torch.stack([(first - second).square().sum(1).mean((1, 2)) for first, second in scales]).sum(0)


@cache
def perceptual_error(device: torch.device) -> PerceptualError:
    """The `PerceptualError` on `device`, which is opened once.

    Raises:
        ValueError: As `PerceptualError`.
    """
    return PerceptualError().to(device)


def image_error(model: ImageGenerator) -> ImageError:
    """The error that the code of `model` is learned with, between the images decoded from two sets of latents: the
    mean squared error over their values, plus 0.03 times the `PerceptualError`. The networks of the model get no
    gradients from then on.

    Raises:
        ValueError: As `PerceptualError`.
    """
    perceptual = perceptual_error(model.device)
    model.requires_grad_(False)

    def error(latents: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            references = model.decode(wanted).sample.clamp(-1, 1)
        images = model.decode(latents).sample
        squared = (images.float() - references.float()).square().mean((1, 2, 3))
        return squared + FEATURE_WEIGHT * perceptual(images, references)

    return error
