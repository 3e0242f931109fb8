"""Fitting what a model adds to what its networks draw: to what these leave of a training set."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ..models import VAE
from .encoding import ENCODE_BATCH


@torch.no_grad()
def fit_detail(model: VAE, batches: Iterable[torch.Tensor]) -> None:
    """Fits the `detail` of a model that has one, in place, to what its networks leave of the images of `batches`, each
    `(B, C, H, W)` in [-1, 1], when they draw them from posterior means."""
    detail, covariance, num_cells = model.detail, 0, 0
    for images in (part.to(model.device) for batch in batches for part in batch.split(ENCODE_BATCH)):
        left = model.left_of(images, model.posterior(images).latents).float()
        cells = F.pixel_unshuffle(left, detail.cell).movedim(1, -1).flatten(0, -2).cpu().double()  # (cells, values)
        covariance, num_cells = covariance + cells.T @ cells, num_cells + len(cells)
    detail.fit(covariance / num_cells)
