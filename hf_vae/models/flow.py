"""The learned prior: a network that carries noise to latents."""

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.models.embeddings import Timesteps
from torch import nn


UNET_WIDTH, UNET_GROUPS = 48, 16
MLP_WIDTH, MLP_BLOCKS, TIME_CHANNELS = 512, 4, 64
SAMPLING_STEPS = 10
NUM_GAUSSIAN_DIRECTIONS = 512  # of the Gaussian that it starts from
MIN_VARIANCE = 1e-6  # along them, so that the velocity is finite at the latents themselves


class LatentFlow(nn.Module):
    """Flow matching (Lipman et al. 2023; the straight paths of Liu et al. 2023) on latents that are normalised and
    flat, `(B, Z)`: a UNet of diffusers for latents on a grid, a residual MLP for those without a place.

    It predicts the velocity `noise - latents` at the point `(1 - t) latents + t noise`; going against it from noise,
    at `t = 1`, to `t = 0` gives latents. It starts from the velocity that a Gaussian would have, whose covariance
    `start_from` takes from latents: the variances along their first principal components, `variances` (K,) along
    `directions` (K, Z), and their mean along all others, `rest` (1,). The network adds what is not Gaussian. A learned
    velocity takes latents too close to their mean; so they are normalised once more, with the `mean` and `std` (Z,)
    that `calibrate` finds.
    """

    def __init__(self, latent_dim: int, latent_size: int):
        super().__init__()
        if latent_size > 1:
            self.latent_shape = (latent_dim // latent_size**2, latent_size, latent_size)
            self.network = _unet(*self.latent_shape[:2])
        else:
            self.latent_shape = (latent_dim,)
            self.network = FlowMLP(latent_dim)
        num_directions = min(latent_dim, NUM_GAUSSIAN_DIRECTIONS)
        self.register_buffer("directions", torch.eye(num_directions, latent_dim))
        self.register_buffer("variances", torch.ones(num_directions))
        self.register_buffer("rest", torch.ones(1))
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))

    def forward(self, points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The velocity `(B, Z)` at `points` (B, Z) and `times` (B,) in [0, 1]."""
        return self.gaussian_velocity(points, times) + self.added_velocity(points, times)

    def gaussian_velocity(self, points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """What `noise - latents` is expected to be if latents are the Gaussian, `(B, Z)`: along a direction of the
        variance v, `(t - (1 - t) v) / ((1 - t)^2 v + t^2)` times the point itself."""
        kept, noise = 1 - times[:, None], times[:, None]
        slopes, rest = (
            ((noise - kept * variance) / (kept.square() * variance + noise.square())).to(points.dtype)
            for variance in (self.variances, self.rest)
        )  # (B, K) and (B, 1)
        return rest * points + (slopes - rest) * F.linear(points, self.directions) @ self.directions

    def added_velocity(self, points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """What the network adds to that, `(B, Z)`. What it sees has the variance 1 at any time (after Karras et al.
        2022, section 5)."""
        scale = ((1 - times).square() + times.square()).sqrt()[:, None]
        seen = (points / scale).to(points.dtype).unflatten(1, self.latent_shape)
        added = self.network(seen, 1000 * times, return_dict=False)[0].flatten(1)
        return (added / scale).to(points.dtype)

    @torch.no_grad()
    def start_from(self, latents: torch.Tensor) -> None:
        """Takes the Gaussian from normalised `latents` (N, Z)."""
        variances, vectors = torch.linalg.eigh(latents.cpu().double().T.cov())  # ascending, vectors in columns
        count = len(self.variances)
        self.directions.copy_(vectors.flip(1).T[:count])
        self.variances.copy_(variances.flip(0)[:count].clamp(min=MIN_VARIANCE))
        if count < len(variances):
            self.rest.copy_(variances[:-count].mean().clamp(min=MIN_VARIANCE))

    def shifted(self, times: torch.Tensor) -> torch.Tensor:
        """Times in [0, 1] of any shape, moved to where latents take shape (Esser et al. 2024, section 5.3.2).

        A direction of the standard deviation s emerges from the noise where `t / (1 - t)` is s. So that ratio is
        multiplied by the geometric mean of s over the directions of the Gaussian, weighted by their variance: times
        move towards the noise where few directions hold most of the variance, and stay for N(0, I).
        """
        variances = torch.cat([self.variances, self.rest.expand(self.directions.shape[1] - len(self.variances))])
        ratio = ((variances * variances.log()).sum() / variances.sum() / 2).exp()
        return (times * ratio / (1 - times + times * ratio)).to(times.dtype)

    def sampling_times(self) -> torch.Tensor:
        """The times `(N,)` from noise, 1, to latents, 0, between which `sample` takes its steps."""
        return self.shifted(torch.linspace(1, 0, SAMPLING_STEPS + 1, device=self.rest.device))

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Carries `noise` (..., Z) of N(0, I) to normalised latents `(..., Z)`."""
        return (self._carry(noise, self.sampling_times()) - self.mean) / self.std

    def noise_of(self, latents: torch.Tensor) -> torch.Tensor:
        """Carries normalised `latents` (..., Z) back to the noise `(..., Z)` that `sample` makes them from, but for
        what the steps leave inexact."""
        return self._carry(latents * self.std + self.mean, self.sampling_times().flip(0))

    def calibrate(self, noise: torch.Tensor) -> None:
        """Takes mean and standard deviation of what becomes of `noise` (N, Z), which is normalised with them from then
        on, as the latents are that the flow learned from."""
        carried = self._carry(noise, self.sampling_times())
        self.mean.copy_(carried.mean(0))
        self.std.copy_(carried.std(0))

    @torch.no_grad()
    def _carry(self, points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Follows the velocity from the first of `times` (N,) to the last one, by the two-step Adams-Bashforth method:
        as cheap a step as Euler's, with an error of second order."""
        shape, points = points.shape, points.flatten(0, -2)
        velocity = step = None
        for time, next_time in times.unfold(0, 2, 1):
            before, velocity = velocity, self(points, time.expand(len(points)))
            last_step, step = step, next_time - time
            slope = 0 if before is None else (velocity - before) / last_step
            points = points + step * (velocity + step / 2 * slope)
        return points.view(shape)


class FlowMLP(nn.Module):
    """Residual blocks over `(B, Z)`, each told the time."""

    def __init__(self, latent_dim: int):
        super().__init__()
        self.embed_time = nn.Sequential(
            Timesteps(TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0),
            nn.Linear(TIME_CHANNELS, MLP_WIDTH),
            nn.SiLU(),
        )
        self.first = nn.Linear(latent_dim, MLP_WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(MLP_WIDTH), nn.Linear(MLP_WIDTH, MLP_WIDTH), nn.SiLU(), nn.Linear(MLP_WIDTH, MLP_WIDTH)
            )
            for _ in range(MLP_BLOCKS)
        )
        self.last = nn.Sequential(nn.LayerNorm(MLP_WIDTH), nn.Linear(MLP_WIDTH, latent_dim))

    def forward(self, points: torch.Tensor, times: torch.Tensor, return_dict: bool = False) -> tuple[torch.Tensor]:
        """As diffusers' UNets: points and times in [0, 1000] to a tuple of the velocity."""
        time = self.embed_time[1:](self.embed_time[0](times).to(points.dtype))
        hidden = self.first(points)
        for block in self.blocks:
            hidden = hidden + block(hidden + time)
        return (self.last(F.silu(hidden)),)


def _unet(channels: int, latent_size: int) -> UNet2DModel:
    """A UNet that halves the grid while it is even, down to 4 cells. It has no attention: at its coarsest, each cell
    sees nearly all others anyway, and on a CPU attention would take as long as all the rest."""
    levels = 1
    while latent_size % 2**levels == 0 and latent_size >> levels >= 4 and levels < 3:
        levels += 1
    return UNet2DModel(
        sample_size=latent_size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(UNET_WIDTH * min(2**level, 2) for level in range(levels)),
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        layers_per_block=2,
        norm_num_groups=UNET_GROUPS,
        add_attention=False,
    )
