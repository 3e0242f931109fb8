"""The objective of the VAE."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import nn

from ..models import ImageGenerator
from ..ranges import limited
from . import losses
from .base import ERRORS, Logs, Networks, Objective, draw_latents, weight_of_kl
from .batch import Batch
from .perceptual import perceptual_error


@dataclass(frozen=True)
class VAEObjective(Objective):
    """Negative evidence lower bound with a calibrated Gaussian decoder, per value of an image:
    `(calibrated_nll + kl_weight * KL) / (C H W)`. Both terms are in nats, summed over an image and averaged over the
    batch. With another reconstruction loss the objective is `error / (C H W) + kl_weight * KL / Z`, as in many
    published systems: the mean over the values of an image, plus the weighted mean over its Z latents. With a
    `perceptual_weight`, the error is that of the values plus the weighted perceptual error.

    Args:
        reconstruction_loss: Reconstruction error: "calibrated", whose KL weight needs no tuning, or "mse", "l1",
            "bce" or "ms_ssim".
        kl_weight: Weight of the KL divergence to N(0, I). With the calibrated loss, 1 gives the evidence lower bound.
        target_kl: Nats per image that training holds the KL divergence at, in place of a `kl_weight`: it has no weight
            below. So what a prior has to learn about an image is known beforehand. It needs the calibrated loss.
        perceptual_weight: Weight of the error between an image and its reconstruction in the features of
            EfficientNet-Lite0 (`PerceptualError`), which was trained on ImageNet. It is added to the mean error over
            the values of an image. Distances that are measured in the same features then flatter the model.
        train_encoder: Train the encoder too. Without it, the latent space of the starting model does not change, and
            its prior stays valid.

    Raises:
        ValueError: If there is a `target_kl` without the calibrated loss.
    """

    reconstruction_loss: Literal["calibrated", "mse", "l1", "bce", "ms_ssim"] = "calibrated"
    kl_weight: Annotated[float, limited(least=0)] = 1.0
    target_kl: Annotated[float | None, limited(above=0)] = None
    perceptual_weight: Annotated[float, limited(least=0)] = 0.0
    train_encoder: bool = True

    def __post_init__(self) -> None:
        if self.target_kl is not None and self.reconstruction_loss != "calibrated":
            raise ValueError(
                f"target_kl={self.target_kl} needs the calibrated loss, and the reconstruction_loss is "
                f"{self.reconstruction_loss}. Pass --reconstruction_loss calibrated, or --kl_weight alone."
            )

    @property
    def frozen(self) -> frozenset[str]:
        return super().frozen if self.train_encoder else super().frozen | {"encoder"}

    @property
    def legend(self) -> str:
        perceptual = [f"{self.perceptual_weight:g} times the perceptual error"] if self.perceptual_weight else []
        if self.reconstruction_loss != "calibrated":
            terms = [ERRORS[self.reconstruction_loss], *perceptual, f"{self.kl_weight:g} times the KL per latent"]
            return "loss is the " + ", plus ".join(terms)
        weighted = "" if self.kl_weight == 1 else f", with {self.kl_weight:g} times the KL"
        if self.target_kl is not None:
            weighted = f", with the KL held at {self.target_kl:g} nats"
        bound = ", its error plus ".join([f"negative evidence lower bound{weighted}", *perceptual])
        return f"loss is the {bound}, in nats per value of an image; it can be negative"

    def networks(self, model: ImageGenerator) -> dict[str, nn.Module]:
        if self.perceptual_weight:
            perceptual_error(model.device)  # a package that is missing is missed before the run starts
        return super().networks(model)

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        output = networks["model"](batch.images, draw_latents(networks, batch))
        num_values = batch.images[0].numel()
        mse = losses.squared_error(output.sample.detach(), batch.images).mean() / num_values
        kl = losses.gaussian_kl(output.mean, output.logvar)
        logs: Logs = {"mse": mse, "kl": kl.detach().mean()}
        added, total = None, mse
        if self.perceptual_weight:
            perceptual = perceptual_error(batch.images.device)(output.sample, batch.images)
            logs["perceptual_error"] = perceptual.detach().mean()
            added = self.perceptual_weight * perceptual
            total = mse + added.detach().mean()
        if self.reconstruction_loss == "calibrated":
            nll = losses.calibrated_nll(output.sample, batch.images, batch.mean_over_ranks(total), added)
            weight = weight_of_kl(kl, batch, self.kl_weight, self.target_kl)
            loss = (nll + weight * kl).mean() / num_values
        else:
            error = losses.RECONSTRUCTION_LOSSES[self.reconstruction_loss](output.sample, batch.images)
            loss = error.mean() / num_values + self.kl_weight * kl.mean() / output.mean.shape[1]
            if added is not None:
                loss = loss + added.mean()
        logs = {"loss": loss.detach(), **logs}
        logs["kl_per_latent"] = logs["kl"] / output.mean.shape[1]
        logs["active_units"] = losses.active_units(output.mean.detach())
        return loss, logs
