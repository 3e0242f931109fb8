"""What a picture is of, as numbers: the network behind the Frechet and kernel distances, precision and recall."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from .models.blocks import Encoder


FEATURE_BATCH = 256
SHIPPED = Path(__file__).parent / "feature_network"


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

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = self.config.image_size
        if images.shape[-1] != size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        directions = F.normalize(
            self.encoder(images.expand(-1, 3, -1, -1))
        )  # lengths were not trained to mean anything
        return math.sqrt(self.config.num_features) * directions


@cache
def shipped_network() -> FeatureNetwork:
    """The network that comes with the package, in evaluation mode."""
    return FeatureNetwork.from_pretrained(SHIPPED, low_cpu_mem_usage=False).requires_grad_(False)


@torch.no_grad()
def extract(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
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
