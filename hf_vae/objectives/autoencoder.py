"""The objective of the autoencoder."""

from dataclasses import dataclass
from typing import Literal

import torch

from . import losses
from .base import ERRORS, Logs, Networks, Objective
from .batch import Batch


@dataclass(frozen=True)
class AutoencoderObjective(Objective):
    """Reconstruction error, averaged over the values of an image and over the batch.

    Args:
        reconstruction_loss: Reconstruction error: "mse" (squared), "l1" (absolute), "bce" (binary cross-entropy of
            values in [0, 1]) or "ms_ssim" (1 minus the multi-scale structural similarity).
    """

    reconstruction_loss: Literal["mse", "l1", "bce", "ms_ssim"] = "mse"

    @property
    def legend(self) -> str:
        return f"loss is the {ERRORS[self.reconstruction_loss]}"

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        reconstructions = networks["model"](batch.images).sample
        num_values = batch.images[0].numel()
        error = losses.RECONSTRUCTION_LOSSES[self.reconstruction_loss](reconstructions, batch.images)
        loss = error.mean() / num_values
        mse = losses.squared_error(reconstructions.detach(), batch.images).mean() / num_values
        return loss, {"loss": loss.detach(), "mse": mse}
