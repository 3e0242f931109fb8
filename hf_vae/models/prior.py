"""The distribution that latents are drawn from, and the principal components that they are moved along."""

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import nn


PRIORS = ("gaussian", "standard")


class LatentPrior(nn.Module):
    """A Gaussian over flat latents `(B, Z)`, kept as its mean, principal directions and standard deviations.

    One table serves twice: `directions` (Z, Z) holds orthonormal rows, by falling standard deviation `stds` (Z,),
    which are the principal components that a person moves along and, together with `mean` (Z,), a full-covariance
    Gaussian. Unfitted it is N(0, I), so `"gaussian"` and `"standard"` then agree.
    """

    def __init__(self, latent_dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("directions", torch.eye(latent_dim))
        self.register_buffer("stds", torch.ones(latent_dim))

    @property
    def explained_variance(self) -> torch.Tensor:
        """The share of the latents' variance along each direction, `(Z,)`, summing to 1; all 0 if nothing varies."""
        variances = self.stds.square()
        return variances / variances.sum().clamp(min=torch.finfo(variances.dtype).tiny)

    @torch.no_grad()
    def fit(self, latents: torch.Tensor) -> None:
        """Fits mean and covariance to `latents` (N, Z), at best samples of the posterior of a training set.

        Raises:
            ValueError: If there are fewer than two latents.
        """
        if len(latents) < 2:
            raise ValueError(f"A prior needs at least 2 latents to be fitted on; got {len(latents)}.")
        latents = latents.cpu().double()  # not every accelerator has double precision
        variances, vectors = torch.linalg.eigh(latents.T.cov())  # ascending, vectors in columns
        self.mean.copy_(latents.mean(0))
        self.set_directions(vectors.flip(1).T, variances.flip(0).clamp(min=0).sqrt())

    @torch.no_grad()
    def set_directions(self, directions: torch.Tensor, stds: torch.Tensor) -> None:
        """Stores orthonormal rows `directions` (Z, Z) and the standard deviation `stds` (Z,) along each. A direction's
        sign is arbitrary; its largest entry is made positive, so that a refit does not flip a slider."""
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))  # (Z, 1)
        self.directions.copy_(directions * largest.sign())
        self.stds.copy_(stds)

    def sample(
        self,
        num_samples: int,
        kind: str = "gaussian",
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Draws latents `(num_samples, Z)`; `temperature` scales the noise, so 0 gives the mean.

        Raises:
            ValueError: If `kind` is none of `PRIORS` or `num_samples` is below 1.
        """
        if num_samples < 1:
            raise ValueError(f"{num_samples} samples cannot be drawn; ask for at least 1.")
        if kind not in PRIORS:
            raise ValueError(f"prior={kind!r} is unknown; choose one of {', '.join(PRIORS)}.")
        noise = randn_tensor((num_samples, len(self.mean)), generator, self.mean.device, self.mean.dtype)
        noise = temperature * noise
        return self.mean + (noise * self.stds) @ self.directions if kind == "gaussian" else noise
