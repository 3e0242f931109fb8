"""Principal components: of any covariance, and those of a model's latents."""

import torch
from torch import nn


NUM_DIRECTIONS = 128  # more than users move along, and few enough for the file
MIN_LATENTS = 2  # a covariance needs as many


def principal_components(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The eigenvalues and eigenvectors of a covariance `(Z, Z)`, in double precision on the CPU: the variances `(Z,)`,
    falling and at least 0, and the orthonormal directions `(Z, Z)`, one in each row. The sign of an eigenvector is
    arbitrary. Its largest entry is made positive here, so that a refit does not flip a slider."""
    variances, vectors = torch.linalg.eigh(covariance.cpu().double())  # ascending, one vector in each column
    directions = vectors.flip(1).T
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))  # (Z, 1)
    return variances.flip(0).clamp(min=0), directions * largest.sign()


class PrincipalComponents(nn.Module):
    """The mean and the principal components of flat latents `(N, Z)`: what sliders move along, and what every fitted
    prior starts from.

    There are `mean` (Z,), and K orthonormal `directions` (K, Z), sorted by falling standard deviation `stds` (K,). The
    variance of each latent that these do not explain is independent, with the standard deviation `rest` (Z,). Before
    they are fitted, they describe N(0, I).

    Args:
        latent_dim: Number of latents Z.
        num_directions: The most directions to keep; K is the smaller of the two.

    Raises:
        ValueError: If `num_directions` is below 1.
    """

    mean: torch.Tensor
    directions: torch.Tensor
    stds: torch.Tensor
    rest: torch.Tensor

    def __init__(self, latent_dim: int, num_directions: int = NUM_DIRECTIONS):
        super().__init__()
        if num_directions < 1:
            raise ValueError(f"num_directions={num_directions} is not possible; it must be at least 1.")
        num_directions = min(latent_dim, num_directions)
        self.latent_dim = latent_dim
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("directions", torch.eye(num_directions, latent_dim))
        self.register_buffer("stds", torch.ones(num_directions))
        self.register_buffer("rest", (torch.arange(latent_dim) >= num_directions).float())

    @property
    def variances(self) -> torch.Tensor:
        """The variance of each latent, `(Z,)`."""
        return self.stds.square() @ self.directions.square() + self.rest.square()

    @property
    def explained_variance(self) -> torch.Tensor:
        """The share of the latents' variance along each direction, `(K,)`. The shares sum to at most 1; all are 0 if
        nothing varies."""
        return self.stds.square() / self.variances.sum().clamp(min=torch.finfo(self.stds.dtype).tiny)

    def coordinates(self, latents: torch.Tensor) -> torch.Tensor:
        """The positions of latents `(B, Z)` along the directions, in standard deviations from the mean: `(B, K)`.
        Along a direction in which nothing varies, the position is the plain distance."""
        stds = torch.where(self.stds > 1e-6 * self.stds.max(), self.stds, 1)
        return (latents - self.mean) @ self.directions.T / stds

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(..., Z)` minus their mean, divided by their standard deviations."""
        return (latents - self.mean) / self._scale

    def denormalised(self, normalised: torch.Tensor) -> torch.Tensor:
        """The latents `(..., Z)` of normalised ones: the inverse of `normalised`."""
        return self.mean + normalised * self._scale

    @property
    def _scale(self) -> torch.Tensor:
        return self.variances.sqrt().clamp(min=1e-6)

    @torch.no_grad()
    def fit(self, latents: torch.Tensor) -> None:
        """Fits mean and components to `latents` (N, Z), ideally samples of the posterior of a training set.

        Raises:
            ValueError: If there are fewer than two latents.
        """
        if len(latents) < MIN_LATENTS:
            raise ValueError(f"A prior needs at least {MIN_LATENTS} latents to be fitted on; got {len(latents)}.")
        latents = latents.cpu().double()  # not every accelerator has double precision
        covariance = latents.T.cov().reshape(self.latent_dim, self.latent_dim)
        variances, directions = principal_components(covariance)
        self.mean.copy_(latents.mean(0))
        self.set_directions(directions, variances.sqrt(), covariance.diagonal())

    @torch.no_grad()
    def set_directions(self, directions: torch.Tensor, stds: torch.Tensor, variances: torch.Tensor) -> None:
        """Stores the first K of orthonormal rows `directions` (..., Z), the standard deviations `stds` along them, and
        what they leave unexplained of the `variances` (Z,) of the latents."""
        count = len(self.stds)
        directions, stds = directions[:count], stds[:count]
        self.directions.copy_(directions)
        self.stds.copy_(stds)
        unexplained = variances - stds.square() @ directions.square()  # 0 up to rounding where K = Z
        self.rest.copy_(torch.where(unexplained > 1e-6 * variances, unexplained, 0).sqrt())
