"""A mixture of Gaussians along the principal components."""

import math
from collections.abc import Sequence

import torch

from ..principal_components import NUM_DIRECTIONS, PrincipalComponents
from .base import DEFAULT_STEPS, Learning, Prior, WhileLoop, run_while
from .gaussian import GaussianPrior


NUM_GAUSSIANS = 16
HELDOUT = 0.1  # the share of the latents that the number of Gaussians is chosen on
MAX_ROUNDS = 100  # of expectation and maximisation, and of k-means before these
TOLERANCE = 1e-3  # rounds end when the mean log-likelihood rises by less
MIN_MIXTURE_VARIANCE = 1e-6  # added to every variance, so that no Gaussian collapses onto one latent


class MixturePrior(Prior):
    """A mixture of up to `num_gaussians` Gaussians with diagonal covariances, over the coordinates along the
    directions: `weights` (M,), `means` and `stds` (M, K). What the directions do not explain is drawn as in
    `GaussianPrior`. Before it is fitted it is one Gaussian, the same as there."""

    title = "mixture of Gaussians"
    num_choices = 1
    weights: torch.Tensor
    means: torch.Tensor
    stds: torch.Tensor

    def __init__(self, latent_dim: int, num_directions: int = NUM_DIRECTIONS, num_gaussians: int = NUM_GAUSSIANS):
        super().__init__()
        if num_gaussians < 1:
            raise ValueError(f"num_gaussians={num_gaussians} is not possible; it must be at least 1.")
        self.gaussian = GaussianPrior(latent_dim, num_directions)
        num_directions = min(latent_dim, num_directions)
        self.register_buffer("weights", torch.eye(1, num_gaussians)[0])
        self.register_buffer("means", torch.zeros(num_gaussians, num_directions))
        self.register_buffer("stds", torch.ones(num_gaussians, num_directions))

    @property
    def noise_sizes(self) -> list[int]:
        """Of the position within a Gaussian, of what the directions do not explain, and of what chooses the
        Gaussian."""
        return [*self.gaussian.noise_sizes, 1]

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        position, rest, choice = noise
        chosen = choose(self.weights, choice)
        position = self.means[chosen] + position * self.stds[chosen]
        return self.gaussian.from_noise([position, rest], components)

    @torch.no_grad()
    def fit(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        seed: int = 0,
        learning: Learning = Learning(),  # noqa: B008 (it is frozen)
    ) -> None:
        """Fits mixtures of 1, 2, 4 and more Gaussians, up to `num_gaussians`, and keeps the one that gives the highest
        likelihood to a tenth of the latents that none of them was fitted to."""
        coordinates = components.coordinates(latents).cpu().double()
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(coordinates), generator=generator)
        num_heldout = max(1, round(HELDOUT * len(order)))
        heldout, fitted = coordinates[order[:num_heldout]], coordinates[order[num_heldout:]]
        most = len(self.weights)
        sizes = [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
        mixtures = [fit_mixture(fitted, size, generator) for size in sizes if size <= len(fitted)]
        self.set(*max(mixtures, key=lambda mixture: log_likelihoods(heldout, *mixture).mean()))

    @torch.no_grad()
    def set(self, weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor) -> None:
        """Stores a mixture of M <= `num_gaussians` Gaussians over coordinates: `weights` (M,) that sum to 1, `means`
        and `stds` (M, K)."""
        count = len(weights)
        for buffer, values, unused in ((self.weights, weights, 0.0), (self.means, means, 0.0), (self.stds, stds, 1.0)):
            buffer.fill_(unused)
            buffer[:count] = values


Gaussians = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def choose(weights: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    """The number of a Gaussian, from 0, for each `choice` (B, 1) of N(0, 1): `(B,)`. Each of the M is chosen as often
    as its share of `weights` (M,) says."""
    chance = torch.special.ndtr(choice.float())  # uniform on (0, 1); half precision is too coarse for many Gaussians
    return (chance > weights.float().cumsum(0)[:-1]).sum(1)


def fit_mixture(points: torch.Tensor, num_gaussians: int, generator: torch.Generator) -> Gaussians:
    """Fits a mixture of M Gaussians with diagonal covariances to `points` (N, K), by expectation and maximisation
    (Dempster et al. 1977) from the clusters of k-means. Returns weights (M,), means and standard deviations (M, K)."""
    shares = torch.nn.functional.one_hot(clusters(points, num_gaussians, generator), num_gaussians).to(points.dtype)
    mixture, before = _maximise(points, shares), -math.inf
    for _ in range(MAX_ROUNDS):
        joint = _joint_log_likelihoods(points, *mixture)
        found = joint.logsumexp(1).mean().item()
        if found - before < TOLERANCE:
            break
        mixture, before = _maximise(points, joint.softmax(1)), found
    return mixture


def log_likelihoods(
    points: torch.Tensor, weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor
) -> torch.Tensor:
    """The natural logarithm of a mixture's density at `points` (N, K): `(N,)`."""
    return _joint_log_likelihoods(points, weights, means, stds).logsumexp(1)


def _joint_log_likelihoods(
    points: torch.Tensor, weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor
) -> torch.Tensor:
    """The logarithm of each Gaussian's weight times its density at `points` (N, K): `(N, M)`."""
    precisions = stds.reciprocal()
    distances = torch.stack(
        [((points - mean) * precision).square().sum(1) for mean, precision in zip(means, precisions, strict=True)], 1
    )
    return weights.log() + precisions.log().sum(1) - 0.5 * (points.shape[1] * math.log(2 * math.pi) + distances)


def _maximise(points: torch.Tensor, shares: torch.Tensor) -> Gaussians:
    """The mixture of highest likelihood for `points` (N, K) of which each Gaussian takes `shares` (N, M)."""
    counts = shares.sum(0) + 10 * torch.finfo(points.dtype).eps  # (M,)
    means = shares.T @ points / counts[:, None]
    variances = (
        torch.stack([share @ (points - mean).square() for share, mean in zip(shares.T, means, strict=True)])
        / counts[:, None]
    )
    return counts / counts.sum(), means, (variances + MIN_MIXTURE_VARIANCE).sqrt()


def clusters(
    points: torch.Tensor, num_clusters: int, generator: torch.Generator, max_rounds: int = MAX_ROUNDS
) -> torch.Tensor:
    """The cluster of each of `points` (N, K), from 0, by k-means: Lloyd's rounds from the centres of k-means++
    (Arthur and Vassilvitskii 2007), which draws each next centre in proportion to the squared distance from those
    before."""
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    distances = torch.full_like(points[:, 0], math.inf)  # (N,), squared, to the nearest centre
    while len(centres) < num_clusters:
        distances = torch.minimum(distances, torch.cdist(points, centres[-1:])[:, 0].square())
        chances = distances if distances.sum() > 0 else torch.ones_like(distances)  # all points are centres already
        centres = torch.cat([centres, points[torch.multinomial(chances, 1, generator=generator)]])
    clusters = torch.cdist(points, centres).argmin(1)
    for _ in range(max_rounds):
        for number in clusters.unique().tolist():  # a cluster that lost all its points keeps its centre
            centres[number] = points[clusters == number].mean(0)
        before, clusters = clusters, torch.cdist(points, centres).argmin(1)
        if torch.equal(before, clusters):
            break
    return clusters
