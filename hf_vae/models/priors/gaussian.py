"""A Gaussian along the principal components."""

from collections.abc import Sequence

import torch

from ..principal_components import NUM_DIRECTIONS, PrincipalComponents
from .base import DEFAULT_STEPS, Prior, WhileLoop, run_while


class GaussianPrior(Prior):
    """The Gaussian that the principal components describe. All of it is in these, so there is nothing more to fit."""

    title = "Gaussian"
    needs_encoder = False  # before it is fitted it is N(0, I)

    def __init__(self, latent_dim: int, num_directions: int = NUM_DIRECTIONS):
        super().__init__()
        self.latent_dim, self.num_directions = latent_dim, min(latent_dim, num_directions)

    @property
    def noise_sizes(self) -> list[int]:
        """Of the position along the directions, and of what the directions do not explain."""
        return [self.num_directions, self.latent_dim]

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        position, rest = noise
        return components.mean + (position * components.stds) @ components.directions + rest * components.rest
