"""The standard normal distribution."""

from collections.abc import Sequence

import torch

from ..principal_components import PrincipalComponents
from .base import DEFAULT_STEPS, Prior, WhileLoop, run_while


class StandardPrior(Prior):
    """N(0, I): the distribution that a GAN is trained on, and the one that a VAE's posterior is pulled towards."""

    title = "N(0, I)"
    is_fitted = False
    needs_encoder = False
    preview_kind = "standard"

    def __init__(self, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim

    @property
    def noise_sizes(self) -> list[int]:
        return [self.latent_dim]

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        return noise[0]
