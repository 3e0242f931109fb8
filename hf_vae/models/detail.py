"""What the networks leave of a picture, cell by cell."""

import torch
import torch.nn.functional as F
from torch import nn


class Detail(nn.Module):
    """The principal components of what a trained decoder leaves of a picture, within each cell of the latents' grid:
    `num_components` numbers a cell, in standard deviations, by a linear map of the cell's pixels and back.

    Args:
        image_size: Edge of the images, in pixels.
        image_channels: Their channels.
        latent_size: Edge of the grid of cells.
        detail_dim: Numbers of all cells together, D.

    Raises:
        ValueError: If there is no grid, D does not fill it evenly, or a cell has fewer values than numbers.
    """

    def __init__(self, image_size: int, image_channels: int, latent_size: int, detail_dim: int):
        super().__init__()
        self.cell, self.latent_size = image_size // latent_size, latent_size
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

    def encode(self, left: torch.Tensor) -> torch.Tensor:
        """What is left of images, `(B, C, H, W)`, to numbers `(B, D)`."""
        maps = self.components / self.stds[:, None]
        return F.conv2d(F.pixel_unshuffle(left, self.cell), maps[..., None, None]).flatten(1)

    def decode(self, details: torch.Tensor) -> torch.Tensor:
        """Numbers `(B, D)` to what they add to images, `(B, C, H, W)`."""
        grids = details.unflatten(1, (-1, self.latent_size, self.latent_size))
        maps = (self.components * self.stds[:, None]).T
        return F.pixel_shuffle(F.conv2d(grids, maps[..., None, None]), self.cell)

    @torch.no_grad()
    def fit(self, covariance: torch.Tensor) -> None:
        """Takes the components from the `covariance` (C * cell^2, C * cell^2) of what is left of a cell."""
        variances, vectors = torch.linalg.eigh(covariance.cpu().double())  # ascending, vectors in columns
        count = len(self.stds)
        self.components.copy_(vectors.flip(1).T[:count])
        self.stds.copy_(variances.flip(0)[:count].clamp(min=1e-12).sqrt())
