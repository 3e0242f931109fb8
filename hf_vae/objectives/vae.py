"""The objective of the VAE."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from ..ranges import limited
from . import losses
from .base import ERRORS, Logs, Networks, Objective, draw_latents
from .batch import Batch


@dataclass(frozen=True)
class VAEObjective(Objective):
    """Negative evidence lower bound with a calibrated Gaussian decoder, per value of an image:
    `(calibrated_nll + kl_weight * KL) / (C H W)`. Both terms are in nats, summed over an image and averaged over the
    batch. With another reconstruction loss the objective is `error / (C H W) + kl_weight * KL / Z`, as in many
    published systems: the mean over the values of an image, plus the weighted mean over its Z latents.

    Args:
        reconstruction_loss: Reconstruction error: "calibrated", whose KL weight needs no tuning, or "mse", "l1",
            "bce" or "ms_ssim".
        kl_weight: Weight of the KL divergence to N(0, I). With the calibrated loss, 1 gives the evidence lower bound.
        train_encoder: Train the encoder too. Without it, the latent space of the starting model does not change, and
            its prior stays valid.
    """

    reconstruction_loss: Literal["calibrated", "mse", "l1", "bce", "ms_ssim"] = "calibrated"
    kl_weight: Annotated[float, limited(least=0)] = 1.0
    train_encoder: bool = True

    @property
    def frozen(self) -> frozenset[str]:
        return super().frozen if self.train_encoder else super().frozen | {"encoder"}

    @property
    def legend(self) -> str:
        if self.reconstruction_loss != "calibrated":
            return f"loss is the {ERRORS[self.reconstruction_loss]}, plus {self.kl_weight:g} times the KL per latent"
        weighted = "" if self.kl_weight == 1 else f", with {self.kl_weight:g} times the KL"
        return (
            f"loss is the negative evidence lower bound{weighted}, in nats per value of an image; it can be negative"
        )

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        output = networks["model"](batch.images, draw_latents(networks, batch))
        num_values = batch.images[0].numel()
        mse = losses.squared_error(output.sample.detach(), batch.images).mean() / num_values
        kl = losses.gaussian_kl(output.mean, output.logvar)
        if self.reconstruction_loss == "calibrated":
            nll = losses.calibrated_nll(output.sample, batch.images, variance=batch.mean_over_ranks(mse))
            loss = (nll + self.kl_weight * kl).mean() / num_values
        else:
            error = losses.RECONSTRUCTION_LOSSES[self.reconstruction_loss](output.sample, batch.images)
            loss = error.mean() / num_values + self.kl_weight * kl.mean() / output.mean.shape[1]
        logs = {"loss": loss.detach(), "mse": mse, "kl": kl.detach().mean()}
        logs["kl_per_latent"] = logs["kl"] / output.mean.shape[1]
        logs["active_units"] = losses.active_units(output.mean.detach())
        return loss, logs
