"""Fits the residual latents of a model to the residuals of a training set."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ..models import VAE
from .encoding import ENCODE_BATCH


@torch.no_grad()
def fit_detail(model: VAE, batches: Iterable[torch.Tensor]) -> None:
    """Fits the `detail` of a model that has one, in place, to the residuals of the images of `batches`, each
    `(B, C, H, W)` in [-1, 1]: the images minus their reconstructions from posterior means.

    Raises:
        ValueError: If the model has none.
    """
    if (detail := model.detail) is None:
        raise ValueError(f"This {type(model).__name__} has no residual latents to fit.")
    num_values, num_cells = detail.components.shape[1], 0
    covariance = torch.zeros(num_values, num_values, dtype=torch.float64)
    for images in (part.to(model.device) for batch in batches for part in batch.split(ENCODE_BATCH)):
        residuals = model.residuals(images, model.posterior(images).latents).float()
        cells = (
            F.pixel_unshuffle(residuals, detail.cell).movedim(1, -1).flatten(0, -2).cpu().double()
        )  # (cells, values)
        covariance, num_cells = covariance + cells.T @ cells, num_cells + len(cells)
    detail.fit(covariance / num_cells)
