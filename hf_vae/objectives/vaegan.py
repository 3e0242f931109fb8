"""The objective of the VAE-GAN."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn

from ..models import ImageGenerator
from ..models.vae import VAEOutput
from ..ranges import limited
from . import losses
from .adversarial import ADVERSARIAL_LEGEND, AdversarialObjective
from .base import ERRORS, Logs, Networks, draw_latents, weight_of_kl
from .batch import Batch
from .perceptual import perceptual_error


@dataclass(frozen=True)
class VAEGANObjective(AdversarialObjective):
    """A VAE trained against a discriminator that learns to tell reconstructions from images (Larsen et al. 2016):
    `error / (C H W) + adversarial_weight * adversarial + feature_weight * feature distance + perceptual_weight *
    perceptual error + kl_weight * calibration * KL / (C H W)`. The calibration is twice the mean squared error, or the
    mean absolute error. With it, a KL weight of 1 gives the evidence lower bound of a decoder whose scale fits the
    batch best. Without it, the last term is `kl_weight * KL / Z`.

    Args:
        reconstruction_loss: Reconstruction error: "mse" (squared) or "l1" (absolute).
        kl_weight: Weight of the KL divergence to N(0, I).
        calibrated_kl: Scale the KL weight with the reconstruction error.
        target_kl: Nats per image that training holds the KL divergence at, in place of a `kl_weight`: it has no weight
            below. So what a prior has to learn about an image is known beforehand. It needs `calibrated_kl`.
        adversarial_weight: Weight of the adversarial loss after the ramp.
        feature_weight: Weight, after the ramp, of the distance between the discriminator's features of an image and
            those of its reconstruction.
        perceptual_weight: Weight of the error between an image and its reconstruction in the features of
            EfficientNet-Lite0 (`PerceptualError`), which was trained on ImageNet. Unlike the other two it counts from
            the first batch. Distances that are measured in the same features then flatter the model.
        adversarial_start: Number of batches that train the discriminator alone before its losses reach the model.
        adversarial_ramp: Number of batches after that over which the weight of these losses rises from 0.
        other_fakes: What the discriminator learns to tell from images besides reconstructions: "none", or images
            decoded from N(0, I) "noise", as in the publication.
        train_encoder: Train the encoder too. Without it, the latent space of the starting model does not change, and
            its prior stays valid.

    Raises:
        ValueError: If there is a `target_kl` without `calibrated_kl`.
    """

    # a slower running average lags behind: sharpness comes last, see model_cards/EXPERIMENTS.md
    train_defaults: ClassVar[dict[str, Any]] = AdversarialObjective.train_defaults | {"ema_decay": 0.98}

    reconstruction_loss: Literal["mse", "l1"] = "l1"
    kl_weight: Annotated[float, limited(least=0)] = 1.0
    calibrated_kl: bool = True
    target_kl: Annotated[float | None, limited(above=0)] = None
    adversarial_weight: Annotated[float, limited(least=0)] = 0.1
    feature_weight: Annotated[float, limited(least=0)] = 1.0
    perceptual_weight: Annotated[float, limited(least=0)] = 0.0
    adversarial_start: Annotated[int, limited(least=0)] = 500
    adversarial_ramp: Annotated[int, limited(least=0)] = 1000
    other_fakes: Literal["none", "noise"] = "none"
    train_encoder: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_kl is not None and not self.calibrated_kl:
            raise ValueError(
                f"target_kl={self.target_kl} needs calibrated_kl. Leave out --no_calibrated_kl, or pass --kl_weight "
                "alone."
            )

    @property
    def legend(self) -> str:
        error = ERRORS[self.reconstruction_loss]
        return f"loss is the {error}, plus weighted KL, adversarial loss and feature distance; {ADVERSARIAL_LEGEND}"

    @property
    def settled_after(self) -> int:
        return self.adversarial_start + 1

    @property
    def frozen(self) -> frozenset[str]:
        return super().frozen if self.train_encoder else super().frozen | {"encoder"}

    def networks(self, model: ImageGenerator) -> dict[str, nn.Module]:
        if self.perceptual_weight:
            perceptual_error(model.device)  # a package that is missing is missed before the run starts
        return super().networks(model)

    def fakes(self, networks: Networks, batch: Batch) -> torch.Tensor:
        return _fakes(self._draw(networks, batch))

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        output = self._draw(networks, batch)
        num_values = batch.images[0].numel()
        error = losses.RECONSTRUCTION_LOSSES[self.reconstruction_loss](output.sample, batch.images)
        error = error.mean() / num_values
        scale: float | torch.Tensor = 1 / output.mean.shape[1]
        if self.calibrated_kl:
            scale = (
                batch.mean_over_ranks(error.detach()) * (2 if self.reconstruction_loss == "mse" else 1) / num_values
            )
        kl = losses.gaussian_kl(output.mean, output.logvar).mean()
        loss = error + weight_of_kl(kl, batch, self.kl_weight, self.target_kl) * scale * kl
        mse = losses.squared_error(output.sample.detach(), batch.images).mean() / num_values
        logs = {"mse": mse, "kl": kl.detach()}
        if self.perceptual_weight:
            perceptual = perceptual_error(batch.images.device)(output.sample, batch.images).mean()
            loss = loss + self.perceptual_weight * perceptual
            logs["perceptual_error"] = perceptual.detach()
        if ramp := self._ramp(batch):
            adversarial = self.generator_loss(networks, batch, _fakes(output))
            features = self._feature_distance(networks, batch, output.sample)
            loss = loss + ramp * (self.adversarial_weight * adversarial + self.feature_weight * features)
            logs |= {"g_loss": adversarial.detach(), "feature_distance": features.detach()}
        return loss, {"loss": loss.detach(), **logs}

    def _draw(self, networks: Networks, batch: Batch) -> VAEOutput:
        latents = draw_latents(networks, batch) if self.other_fakes == "noise" else None
        return networks["model"](batch.images, draw_latents(networks, batch), latents=latents)

    def _ramp(self, batch: Batch) -> float:
        """The share of the final weight that the discriminator's losses have at this batch, from 0 to 1."""
        return min(1.0, max(0.0, (batch.number - self.adversarial_start) / max(1, self.adversarial_ramp)))

    def _feature_distance(self, networks: Networks, batch: Batch, reconstructions: torch.Tensor) -> torch.Tensor:
        discriminator: Any = networks["discriminator"]  # bare, and so with its features
        with torch.no_grad():
            references = discriminator.features(batch.images)
        return losses.feature_distance(discriminator.features(reconstructions), references).mean()


def _fakes(output: VAEOutput) -> torch.Tensor:
    """All generated images: reconstructions, then samples if there are any."""
    return output.sample if output.samples is None else torch.cat([output.sample, output.samples])
