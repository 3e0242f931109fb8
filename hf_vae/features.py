"""What a picture is of, as numbers: the networks behind the Frechet and kernel distances, precision and recall."""

import math
import pickle
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import CONFIG_NAME

from .models.blocks import Encoder


FEATURE_BATCH = 256
SHIPPED = Path(__file__).parent / "feature_network"


class Features(Protocol):
    """What turns pictures into features: images `(B, C, H, W)` in [-1, 1] to `(B, F)`. Metrics are called after its
    `name`."""

    name: str

    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...


class FeatureNetwork(ModelMixin, ConfigMixin):
    """Images `(B, C, H, W)` in [-1, 1] to features `(B, num_features)`, all of the same length, the root of their
    number: four strided convolutions and a dense layer, trained by `hf_vae.feature_training` to tell pictures apart
    whatever their crop and colours (SimCLR, Chen et al. 2020). Images of another size are resized to `image_size` with
    antialiasing; grey ones are repeated over the colours.

    Args:
        name: What metrics that use it are called after.
        image_size: Edge of the images that it sees, in pixels.
        num_features: How many numbers it gives.
        width: Channels of the first convolution; doubled by each of the others.
    """

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
        directions = F.normalize(
            self.encoder(images.expand(-1, 3, -1, -1))
        )  # lengths were not trained to mean anything
        return math.sqrt(self.config.num_features) * directions


class InceptionFeatures:
    """The 2,048 features of Inception-v3 that FID is defined by (Heusel et al. 2017), from torchmetrics with
    torch-fidelity: images `(B, C, H, W)` in [-1, 1], as 8-bit values and resized to 299x299, to `(B, 2048)`.

    Args:
        weights: torch-fidelity's file of weights; it is downloaded if None. It is a pickle: give none but that one.

    Raises:
        ValueError: If torch-fidelity is not installed, or the weights are not to be had.
    """

    name = "inception"

    def __init__(self, weights: Path | None = None):
        from torchmetrics.image.fid import NoTrainInceptionV3

        try:
            path = None if weights is None else str(weights)
            self.network = NoTrainInceptionV3("inception-v3-compat", ["2048"], path)
        except ModuleNotFoundError as error:
            raise ValueError("Inception features need torch-fidelity: pip install torch-fidelity.") from error
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"The weights of Inception-v3 ({weights or 'a download'}) cannot be read: {error}"
            ) from error

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return self.network(pixels.expand(-1, 3, -1, -1))


@cache
def shipped_network() -> FeatureNetwork:
    """The network that comes with the package, in evaluation mode."""
    return FeatureNetwork.from_pretrained(SHIPPED, low_cpu_mem_usage=False).requires_grad_(False)


def open_features(name: str, inception_weights: Path | None = None) -> Features:
    """The features called `name`: "simclr", which come with the package, "inception", or those of a `FeatureNetwork`
    in a folder of that name.

    Raises:
        ValueError: If there are none, or `InceptionFeatures` cannot be had.
    """
    if name == InceptionFeatures.name:
        return InceptionFeatures(inception_weights)
    if inception_weights:
        raise ValueError(f"--inception_weights are for --feature_network inception, which is {name}.")
    if name == shipped_network().name:
        return shipped_network()
    if not (Path(name) / CONFIG_NAME).is_file():
        raise ValueError(
            f"There are no features {name!r}: choose simclr, inception or the folder of a FeatureNetwork."
        )
    return FeatureNetwork.from_pretrained(name, low_cpu_mem_usage=False).requires_grad_(False)


@torch.no_grad()
def extract(network: Features, images: torch.Tensor) -> torch.Tensor:
    """The features `(N, F)` of images `(N, C, H, W)` in [-1, 1], in batches, as doubles."""
    return torch.cat([network(batch).double() for batch in images.split(FEATURE_BATCH)])


def frechet_distance(features: torch.Tensor, references: torch.Tensor) -> float:
    """Squared 2-Wasserstein distance between Gaussians fitted to two sets of features, `(N, F)` and `(M, F)`:
    `|mean - mean'|^2 + tr(C + C' - 2 (C C')^(1/2))` (Frechet distance, as in Heusel et al. 2017, equation 6). It
    falls as the sets grow, so only values of equally many images compare."""
    _refuse_few(features, references)
    first, second = features.T.cov(), references.T.cov()
    # C C' has the eigenvalues of the symmetric C^(1/2) C' C^(1/2)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    means = (features.mean(0) - references.mean(0)).square().sum()
    return max(0.0, (means + first.trace() + second.trace() - 2 * cross).item())


def kernel_distance(features: torch.Tensor, references: torch.Tensor) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel `(x y / F + 1)^3` (as KID, Binkowski et al. 2018,
    section 4). It does not depend on how many images there are, and may be slightly negative."""
    _refuse_few(features, references)
    width = features.shape[1]
    within, among, across = (
        (a @ b.T / width + 1) ** 3 for a, b in ((features, features), (references, references), (features, references))
    )
    count, total = len(features), len(references)
    own = (within.sum() - within.trace()) / (count * (count - 1))
    other = (among.sum() - among.trace()) / (total * (total - 1))
    return (own + other - 2 * across.mean()).item()


def precision_and_recall(features: torch.Tensor, references: torch.Tensor, neighbours: int = 3) -> tuple[float, float]:
    """The share of features that lie within reach of a reference, and of references within reach of a feature; a
    point's reach is the distance to its 3rd nearest neighbour in its own set (Kynkaanniemi et al. 2019). The first
    says how many samples look real, the second how much of what is real is sampled."""
    _refuse_few(features, references)
    across = torch.cdist(features, references)  # (N, M)
    reach, others_reach = (
        torch.cdist(points, points).kthvalue(min(neighbours + 1, len(points)), dim=1).values
        for points in (features, references)
    )
    precision = (across <= others_reach[None]).any(1).double().mean().item()
    recall = (across <= reach[:, None]).any(0).double().mean().item()
    return precision, recall


def _refuse_few(*groups: torch.Tensor) -> None:
    if any(len(group) < 2 for group in groups):
        raise ValueError(
            f"A distance needs at least 2 images in each set; got {' and '.join(str(len(g)) for g in groups)}."
        )
