"""One frozen dataclass per family: its loss weights, and the training steps that use them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from . import losses
from .batches import Batch
from .models import ImageGenerator
from .models.blocks import Discriminator
from .transforms import DIFF_AUGMENT_CHANCES, diff_augment


Networks = Mapping[str, nn.Module]
Logs = dict[str, torch.Tensor]
Step = Callable[[Networks, Batch], tuple[torch.Tensor, Logs]]


@dataclass(frozen=True)
class Objective:
    """What a family is trained on. The fields are loss weights; `steps` says which network each step trains.

    A step gets all networks and a batch, and returns a scalar loss and detached scalars to log. All chance comes from
    the batch. The network that the step trains may be wrapped for distributed training, so it is called through
    `network(...)` only; the others are bare and frozen.

    Args:
        train_defaults: What the family's defaults change in `TrainConfig`.
        differentiated_twice: Names of the networks whose gradient is part of a loss. torch.compile cannot do that.
    """

    train_defaults: ClassVar[dict[str, Any]] = {}
    differentiated_twice: ClassVar[frozenset[str]] = frozenset()

    def networks(self, model: ImageGenerator) -> dict[str, nn.Module]:
        """What is trained, by name: the model, and whatever a family needs beside it."""
        return {"model": model}

    @property
    def steps(self) -> dict[str, Step]:
        """The steps that one batch goes through, in order; the key names the network that the step trains."""
        return {"model": self.model_step}

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        """The step that trains the model itself."""
        raise NotImplementedError(f"{type(self).__name__} defines no model_step.")


def draw_latents(networks: Networks, batch: Batch) -> torch.Tensor:
    """Noise of N(0, I) in the model's latent space, one row for each image of the batch: `(B, Z)`."""
    model = networks["model"]
    return batch.normal(getattr(model, "module", model).config.latent_dim)  # below the wrapper of distributed training


@dataclass(frozen=True)
class AutoencoderObjective(Objective):
    """Reconstruction error, averaged over the values of an image and over the batch.

    Args:
        reconstruction_loss: "mse" (squared), "l1" (absolute) or "bce" (binary cross-entropy of values in [0, 1]).
    """

    reconstruction_loss: Literal["mse", "l1", "bce"] = "mse"

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        reconstructions = networks["model"](batch.images)
        num_values = batch.images[0].numel()
        error = losses.RECONSTRUCTION_LOSSES[self.reconstruction_loss](reconstructions, batch.images)
        loss = error.mean() / num_values
        mse = losses.squared_error(reconstructions.detach(), batch.images).mean() / num_values
        return loss, {"loss": loss.detach(), "mse": mse}


@dataclass(frozen=True)
class VAEObjective(Objective):
    """Negative evidence lower bound with a calibrated Gaussian decoder, per value of an image:
    `(calibrated_nll + kl_weight * KL) / (C H W)`, both in nats and summed within an image, averaged over the batch.
    With another reconstruction loss, as many published systems have it: `error / (C H W) + kl_weight * KL / Z`, the
    mean over the values of an image plus the weighted mean over its Z latents.

    Args:
        reconstruction_loss: "calibrated", or "mse", "l1" or "bce" with a weight that has to be tuned.
        kl_weight: Weight of the KL divergence to N(0, I). With the calibrated loss, 1 is the bound itself, and there
            is nothing to tune for the scale of the images: the decoder's variance is learned.
    """

    reconstruction_loss: Literal["calibrated", "mse", "l1", "bce"] = "calibrated"
    kl_weight: float = 1.0

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        output = networks["model"](batch.images, draw_latents(networks, batch))
        num_values = batch.images[0].numel()
        mse = losses.squared_error(output.reconstructions.detach(), batch.images).mean() / num_values
        kl = losses.gaussian_kl(output.mean, output.logvar)
        if self.reconstruction_loss == "calibrated":
            nll = losses.calibrated_nll(output.reconstructions, batch.images, variance=batch.mean_over_ranks(mse))
            loss = (nll + self.kl_weight * kl).mean() / num_values
        else:
            error = losses.RECONSTRUCTION_LOSSES[self.reconstruction_loss](output.reconstructions, batch.images)
            loss = error.mean() / num_values + self.kl_weight * kl.mean() / output.mean.shape[1]
        logs = {"loss": loss.detach(), "mse": mse, "kl": kl.detach().mean()}
        logs["kl_per_latent"] = logs["kl"] / output.mean.shape[1]
        logs["active_units"] = losses.active_units(output.mean.detach())
        return loss, logs


@dataclass(frozen=True)
class DCGANObjective(Objective):
    """Relativistic adversarial loss with zero-centred gradient penalties on real and fake images (R3GAN, Huang and
    others 2024).

    Args:
        r1_gamma: Weight of half the squared gradient norm of the discriminator at real images.
        r2_gamma: The same at fake images.
        penalty_interval: Batches from one gradient penalty to the next, each of which then counts that many times
            (lazy regularisation, Karras and others 2020).
        diff_augment: Whether the discriminator sees shifted and recoloured images, real and fake alike (DiffAugment,
            Zhao and others 2020). It helps where pictures are few and passes many, and costs variety elsewhere.
        discriminator_width: Channels of the discriminator at its finest scale; doubled at each coarser one.
        discriminator_max_width: Its channels are never more than this.
    """

    train_defaults: ClassVar[dict[str, Any]] = {"learning_rate": 2e-4, "adam_beta1": 0.0, "adam_weight_decay": 0.0}
    differentiated_twice: ClassVar[frozenset[str]] = frozenset({"discriminator"})

    r1_gamma: float = 0.2
    r2_gamma: float = 0.2
    penalty_interval: int = 1
    diff_augment: bool = False
    discriminator_width: int = 32
    discriminator_max_width: int = 256

    def __post_init__(self) -> None:
        if self.penalty_interval < 1:
            raise ValueError(f"penalty_interval={self.penalty_interval} is not possible; it must be at least 1.")

    def networks(self, model: ImageGenerator) -> dict[str, nn.Module]:
        discriminator = Discriminator(
            model.config.image_size,
            model.config.image_channels,
            self.discriminator_width,
            self.discriminator_max_width,
        )
        return {"discriminator": discriminator, "model": model}

    @property
    def steps(self) -> dict[str, Step]:
        return {"discriminator": self.discriminator_step, "model": self.model_step}

    def discriminator_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        with torch.no_grad():
            fakes = networks["model"](draw_latents(networks, batch)).float()
        is_penalised = batch.number % self.penalty_interval == 0
        reals, fakes = (
            self._augment(group, batch).detach().requires_grad_(is_penalised) for group in (batch.images, fakes)
        )
        real_logits, fake_logits = networks["discriminator"](reals), networks["discriminator"](fakes)  # (B,) each
        adversarial = losses.relativistic(real_logits, fake_logits).mean()
        logs = {"d_loss": adversarial.detach(), "d_margin": (real_logits - fake_logits).detach().float().mean()}
        if not is_penalised:
            return adversarial, logs
        r1 = losses.gradient_penalty(real_logits, reals).mean()
        r2 = losses.gradient_penalty(fake_logits, fakes).mean()
        loss = adversarial + self.penalty_interval * 0.5 * (self.r1_gamma * r1 + self.r2_gamma * r2)
        return loss, logs | {"r1": r1.detach(), "r2": r2.detach()}

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        fakes = networks["model"](draw_latents(networks, batch))
        fake_logits = networks["discriminator"](self._augment(fakes, batch))
        with torch.no_grad():
            real_logits = networks["discriminator"](self._augment(batch.images, batch))
        loss = losses.relativistic(fake_logits, real_logits).mean()
        return loss, {"g_loss": loss.detach()}

    def _augment(self, images: torch.Tensor, batch: Batch) -> torch.Tensor:
        return diff_augment(images, batch.uniform(DIFF_AUGMENT_CHANCES)) if self.diff_augment else images
