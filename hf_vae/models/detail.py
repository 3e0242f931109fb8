"""Residual latents: what the networks miss of an image, cell by cell."""

import torch
import torch.nn.functional as F
from torch import nn

from .principal_components import principal_components


class Detail(nn.Module):
    """The principal components of the residual, an image minus its reconstruction by a trained model, within each cell
    of the latents' grid. A linear map of a cell's pixels gives its `num_components` numbers, in standard deviations,
    and another leads back.

    Args:
        image_size: Edge of the images, in pixels.
        image_channels: Their channels.
        latent_size: Edge of the grid of cells.
        detail_dim: Number of residual latents D, of all cells together.

    Raises:
        ValueError: If there is no grid, D does not fill it evenly, or a cell has fewer values than numbers.
    """

    components: torch.Tensor
    stds: torch.Tensor

    def __init__(self, image_size: int, image_channels: int, latent_size: int, detail_dim: int):
        super().__init__()
        self.cell, self.latent_size, self.detail_dim = image_size // latent_size, latent_size, detail_dim
        num_components, left_over = divmod(detail_dim, latent_size**2)
        num_values = image_channels * self.cell**2
        if latent_size == 1 or left_over or not 0 < num_components <= num_values:
            raise ValueError(
                f"detail_dim={detail_dim} does not suit latent_size={latent_size} and image_size={image_size}; choose "
                f"0 for none, or, on a grid, a multiple of its {latent_size**2} cells up to "
                f"{num_values * latent_size**2}."
            )
        self.register_buffer("components", torch.zeros(num_components, num_values))
        self.register_buffer("stds", torch.ones(num_components))

    def encode(self, residuals: torch.Tensor) -> torch.Tensor:
        """The residuals of images, `(B, C, H, W)`, to residual latents `(B, D)`."""
        maps = self.components / self.stds[:, None]
        return F.conv2d(F.pixel_unshuffle(residuals, self.cell), maps[..., None, None]).flatten(1)

    def decode(self, details: torch.Tensor) -> torch.Tensor:
        """Residual latents `(B, D)` to what they add to images, `(B, C, H, W)`."""
        grids = details.unflatten(1, (-1, self.latent_size, self.latent_size))
        maps = (self.components * self.stds[:, None]).T
        return F.pixel_shuffle(F.conv2d(grids, maps[..., None, None]), self.cell)

    def faded(self, details: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
        """Residual latents `(B, D)` of images that have changed since by `changes` (B, C, H, W), so that no ghost of
        what was there before stays. In each cell they are multiplied by `exp(-(c / s)^2)`, where c is the root mean
        square of the cell's changes, and s that of the residuals which this was fitted to."""
        squares = F.avg_pool2d(changes.square().mean(1, keepdim=True), self.cell)  # (B, 1, S, S)
        residuals = self.stds.square().sum() / self.components.shape[1]
        grids = details.unflatten(1, (-1, self.latent_size, self.latent_size))
        return (grids * torch.exp(-squares / residuals)).flatten(1)

    @torch.no_grad()
    def fit(self, covariance: torch.Tensor) -> None:
        """Takes the components from the `covariance` (C * cell^2, C * cell^2) of a cell's residuals."""
        variances, directions = principal_components(covariance)
        count = len(self.stds)
        self.components.copy_(directions[:count])
        self.stds.copy_(variances[:count].clamp(min=1e-12).sqrt())
