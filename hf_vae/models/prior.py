"""The distributions that latents are drawn from, and the principal components that they are moved along."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from .flow import LatentFlow
from .interpolation import slerp


PRIORS = ("flow", "mixture", "gaussian", "standard")
PATHS = ("lerp", "slerp", "flow")
DEFAULT_PATH = "slerp"  # halfway most shipped models draw sharper on it than on a line; docs/latents.md
NUM_DIRECTIONS = 128  # more than users move along, and few enough for the file
NUM_COMPONENTS = 16  # at most, of the mixture


class LatentPrior(nn.Module):
    """Four distributions over flat latents `(B, Z)`, from the crude to the one that was learned:

    - "standard": N(0, I).
    - "gaussian": `mean` (Z,), and K = min(Z, 128) orthonormal `directions` (K, Z) by falling standard deviation `stds`
      (K,): the principal components, which are also what sliders move along. What they leave of each latent's
      variance is independent, with standard deviation `rest` (Z,).
    - "mixture": the same, but the position along the directions, in standard deviations, is drawn from a mixture of up
      to 16 Gaussians with `mixture_weights` (M,), `mixture_means` and `mixture_stds` (M, K).
    - "flow": a network that turns noise into latents, `LatentFlow`; a model has it if `with_flow`. It works on latents
      less `mean`, over their standard deviation.

    Unfitted, the first three are N(0, I), up to rounding.

    A model may have `detail_dim` latents behind these Z, for what its networks leave of a picture. No distribution
    here knows them: what is drawn has 0 there, the mean of what is left.
    """

    def __init__(self, latent_dim: int, latent_size: int = 1, with_flow: bool = False, detail_dim: int = 0):
        super().__init__()
        num_directions = min(latent_dim, NUM_DIRECTIONS)
        self.latent_dim, self.latent_size, self.detail_dim = latent_dim, latent_size, detail_dim
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("directions", torch.eye(num_directions, latent_dim))
        self.register_buffer("stds", torch.ones(num_directions))
        self.register_buffer("rest", (torch.arange(latent_dim) >= num_directions).float())
        self.register_buffer("mixture_weights", torch.eye(1, NUM_COMPONENTS)[0])
        self.register_buffer("mixture_means", torch.zeros(NUM_COMPONENTS, num_directions))
        self.register_buffer("mixture_stds", torch.ones(NUM_COMPONENTS, num_directions))
        self.flow = LatentFlow(latent_dim, latent_size) if with_flow else None

    @property
    def variances(self) -> torch.Tensor:
        """The variance of each latent, `(Z,)`."""
        return self.stds.square() @ self.directions.square() + self.rest.square()

    @property
    def explained_variance(self) -> torch.Tensor:
        """The share of the latents' variance along each direction, `(K,)`; all of them together at most 1, and all 0
        if nothing varies."""
        return self.stds.square() / self.variances.sum().clamp(min=torch.finfo(self.stds.dtype).tiny)

    def coordinates(self, latents: torch.Tensor) -> torch.Tensor:
        """Where latents `(B, Z)`, with details behind them or not, lie along the directions, in standard deviations
        from the mean: `(B, K)`. Along one in which nothing varies that is a distance."""
        stds = torch.where(self.stds > 1e-6 * self.stds.max(), self.stds, 1)
        return (latents[:, : self.latent_dim] - self.mean) @ self.directions.T / stds

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(B, Z)` less their mean, over their standard deviation: what the flow works on."""
        return (latents - self.mean) / self._scale

    def denormalised(self, normalised: torch.Tensor) -> torch.Tensor:
        """Such latents `(B, Z)` as the model decodes them, `(B, Z + detail_dim)`."""
        return self.with_details(self.mean + normalised * self._scale)

    def with_details(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(B, Z)`, or steps between such, with details of 0 behind them: `(B, Z + detail_dim)`."""
        return F.pad(latents, (0, self.detail_dim))

    @property
    def _scale(self) -> torch.Tensor:
        return self.variances.sqrt().clamp(min=1e-6)

    @torch.no_grad()
    def fit(self, latents: torch.Tensor) -> None:
        """Fits the Gaussian to `latents` (N, Z), at best samples of the posterior of a training set. The mixture is
        then the same Gaussian, until it is fitted to what that one misses.

        Raises:
            ValueError: If there are fewer than two latents.
        """
        if len(latents) < 2:
            raise ValueError(f"A prior needs at least 2 latents to be fitted on; got {len(latents)}.")
        latents = latents.cpu().double()  # not every accelerator has double precision
        covariance = latents.T.cov().reshape(self.latent_dim, self.latent_dim)
        variances, vectors = torch.linalg.eigh(covariance)  # ascending, vectors in columns
        self.mean.copy_(latents.mean(0))
        stds = variances.flip(0).clamp(min=0).sqrt()
        self.set_directions(vectors.flip(1).T, stds, covariance.diagonal())
        self.set_mixture(torch.ones(1), torch.zeros(1, len(self.stds)), torch.ones(1, len(self.stds)))

    @torch.no_grad()
    def set_directions(self, directions: torch.Tensor, stds: torch.Tensor, variances: torch.Tensor) -> None:
        """Stores the first K of orthonormal rows `directions` (..., Z) and of the standard deviations `stds` along
        them, and what they leave of the `variances` (Z,) of the latents. A direction's sign is arbitrary; its largest
        entry is made positive, so that a refit does not flip a slider."""
        count = len(self.stds)
        directions, stds = directions[:count], stds[:count]
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))  # (K, 1)
        self.directions.copy_(directions * largest.sign())
        self.stds.copy_(stds)
        left_over = variances - stds.square() @ directions.square()  # 0 up to rounding where K = Z
        self.rest.copy_(torch.where(left_over > 1e-6 * variances, left_over, 0).sqrt())

    @torch.no_grad()
    def set_mixture(self, weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor) -> None:
        """Stores a mixture of M <= 16 Gaussians over `coordinates`: `weights` (M,) that sum to 1, `means` and `stds`
        (M, K)."""
        count = len(weights)
        for buffer, values, empty in (
            (self.mixture_weights, weights, 0.0),
            (self.mixture_means, means, 0.0),
            (self.mixture_stds, stds, 1.0),
        ):
            buffer.fill_(empty)
            buffer[:count] = values

    def sample(
        self,
        num_samples: int,
        kind: str = "gaussian",
        generator: torch.Generator | list[torch.Generator] | None = None,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Draws latents `(num_samples, Z + detail_dim)`, from one generator or from one for each sample. `temperature`
        scales the noise: 0 gives the mean, in a mixture that of one of its Gaussians, and in a flow what it makes of
        the middle of its noise.

        Raises:
            ValueError: If `kind` is none of `PRIORS`, or a flow that this model has not, or `num_samples` is below 1.
        """
        if num_samples < 1:
            raise ValueError(f"{num_samples} samples cannot be drawn; ask for at least 1.")
        if kind not in PRIORS:
            raise ValueError(f"prior={kind!r} is unknown; choose one of {', '.join(PRIORS)}.")
        if kind == "flow" and self.flow is None:
            raise ValueError("prior='flow' was not trained for this model; choose mixture, gaussian or standard.")
        noise = [self._noise(num_samples, size, generator) for size in self.noise_sizes(kind)]
        return self.from_noise([temperature * part for part in noise[:2]] + noise[2:], kind)

    def noise_sizes(self, kind: str) -> list[int]:
        """How many numbers of N(0, 1) each part of the noise has that a latent of this kind is drawn from."""
        position, rest = len(self.stds), self.latent_dim
        return {"standard": [rest], "flow": [rest], "gaussian": [position, rest], "mixture": [position, rest, 1]}[kind]

    def from_noise(self, noise: Sequence[torch.Tensor], kind: str) -> torch.Tensor:
        """Latents `(B, Z + detail_dim)` of noise whose parts are `(B, size)` for each size of `noise_sizes`: the
        position along the directions, what is beside them, and what chooses the Gaussian of a mixture."""
        if kind == "standard":
            return self.with_details(noise[0])
        if kind == "flow":
            return self.denormalised(self.flow.sample(noise[0]))
        position, rest = noise[:2]
        if kind == "mixture":
            chance = torch.special.ndtr(noise[2])  # uniform on (0, 1)
            chosen = (chance > self.mixture_weights.cumsum(0)[:-1]).sum(1)
            position = self.mixture_means[chosen] + position * self.mixture_stds[chosen]
        return self.with_details(self.mean + (position * self.stds) @ self.directions + rest * self.rest)

    @torch.no_grad()
    def path(
        self, starts: torch.Tensor, ends: torch.Tensor, num_points: int, kind: str = DEFAULT_PATH
    ) -> torch.Tensor:
        """Points from `starts` (..., Z + detail_dim) to `ends`, as many, both included: `(..., num_points,
        Z + detail_dim)`. Details go along the straight line on all of them.

        "lerp" goes along the straight line, "slerp" along the great circle around `mean`, with each latent in standard
        deviations; both evenly. "flow" goes along the great circle between the noises that the flow would make the two
        from: every point on the way is then as likely a latent as the two are, and no double exposure of both.

        Raises:
            ValueError: If `kind` is none of `PATHS`, or a flow that this model has not, or fewer than two points are
                asked for.
        """
        if num_points < 2:
            raise ValueError(f"A path needs at least 2 points; got {num_points}.")
        if kind not in PATHS:
            raise ValueError(f"Interpolation {kind!r} is unknown; choose one of {', '.join(PATHS)}.")
        if kind == "flow" and self.flow is None:
            raise ValueError("Interpolation 'flow' needs a flow, and this model has none; choose lerp or slerp.")
        weights = torch.linspace(0, 1, num_points, device=starts.device)[:, None]  # (num_points, 1)
        starts, ends = starts[..., None, :], ends[..., None, :]
        if kind == "lerp":
            return torch.lerp(starts, ends, weights)
        sizes = [self.latent_dim, self.detail_dim]
        (starts, start_details), (ends, end_details) = starts.split(sizes, -1), ends.split(sizes, -1)
        details = torch.lerp(start_details, end_details, weights)
        starts, ends = self.normalised(starts), self.normalised(ends)
        if kind == "slerp":
            return torch.cat([self.mean + slerp(starts, ends, weights) * self._scale, details], -1)
        noise = slerp(self.flow.noise_of(starts), self.flow.noise_of(ends), weights)
        points = self.flow.sample(noise)
        # there and back in steps is not quite the identity: what is missing at either end is added
        missing = torch.lerp(starts - points[..., :1, :], ends - points[..., -1:, :], weights)
        return torch.cat([self.mean + (points + missing) * self._scale, details], -1)

    def _noise(
        self, rows: int, columns: int, generator: torch.Generator | list[torch.Generator] | None
    ) -> torch.Tensor:
        return randn_tensor((rows, columns), generator, self.mean.device, self.mean.dtype)
