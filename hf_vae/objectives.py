"""One frozen dataclass per family: its loss weights, and the training steps that use them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn

from . import losses
from .batches import Batch
from .models import ImageGenerator
from .models.blocks import Discriminator
from .models.layers import ListedDiscriminator
from .models.vae import VAEOutput
from .ranges import limited, refuse_out_of_range
from .transforms import DIFF_AUGMENT_CHANCES, diff_augment


Networks = Mapping[str, nn.Module]
Logs = dict[str, torch.Tensor]
Step = Callable[[Networks, Batch], tuple[torch.Tensor, Logs]]

ERRORS = {
    "mse": "mean squared error of values in [-1, 1]",
    "l1": "mean absolute error of values in [-1, 1]",
    "bce": "binary cross-entropy of values in [0, 1], in nats per value",
    "ms_ssim": "multi-scale structural similarity, taken from 1",
}
ADVERSARIAL_LEGEND = "g_loss and d_loss are those of generator and discriminator, which need not fall"


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

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the model's parts that keep their weights."""
        return frozenset({"latent_prior"})  # is fitted once the model is trained

    def networks(self, model: ImageGenerator) -> dict[str, nn.Module]:
        """What is trained, by name: the model, and whatever a family needs beside it."""
        return {"model": model}

    @property
    def steps(self) -> dict[str, Step]:
        """The steps that one batch goes through, in order; the key names the network that the step trains."""
        return {"model": self.model_step}

    @property
    def legend(self) -> str:
        """What the losses in the log are, in one line that a run begins with; empty for none."""
        return ""

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
        reconstruction_loss: "mse" (squared), "l1" (absolute), "bce" (binary cross-entropy of values in [0, 1]) or
            "ms_ssim" (one less the multi-scale structural similarity).
    """

    reconstruction_loss: Literal["mse", "l1", "bce", "ms_ssim"] = "mse"

    @property
    def legend(self) -> str:
        return f"loss is the {ERRORS[self.reconstruction_loss]}"

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
        reconstruction_loss: "calibrated", or "mse", "l1", "bce" or "ms_ssim" with a weight that has to be tuned.
        kl_weight: Weight of the KL divergence to N(0, I). With the calibrated loss, 1 is the bound itself, and there
            is nothing to tune for the scale of the images: the decoder's variance is learned.
    """

    reconstruction_loss: Literal["calibrated", "mse", "l1", "bce", "ms_ssim"] = "calibrated"
    kl_weight: Annotated[float, limited(least=0)] = 1.0

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
class AdversarialObjective(Objective):
    """What objectives with a discriminator share: its network, and the step that trains it.

    Args:
        adversarial_loss: "relativistic" (R3GAN, Huang and others 2024), "non-saturating" or "hinge".
        r1_gamma: Weight of half the squared gradient norm of the discriminator at real images.
        r2_gamma: The same at fake images.
        penalty_interval: Batches from one gradient penalty to the next, each of which then counts that many times
            (lazy regularisation, Karras and others 2020).
        diff_augment: Whether the discriminator sees shifted and recoloured images, real and fake alike (DiffAugment,
            Zhao and others 2020). It helps where pictures are few and passes many, and costs variety elsewhere.
        discriminator_width: Channels of the discriminator at its finest scale; doubled at each coarser one.
        discriminator_max_width: Its channels are never more than this.
        discriminator_layers: The discriminator layer by layer, as a recipe lists it, see `hf_vae.models.layers`; its
            widths then say nothing.
    """

    train_defaults: ClassVar[dict[str, Any]] = {"learning_rate": 2e-4, "adam_beta1": 0.0, "adam_weight_decay": 0.0}
    differentiated_twice: ClassVar[frozenset[str]] = frozenset({"discriminator"})

    adversarial_loss: Literal["relativistic", "non-saturating", "hinge"] = "relativistic"
    r1_gamma: Annotated[float, limited(least=0)] = 0.2
    r2_gamma: Annotated[float, limited(least=0)] = 0.2
    penalty_interval: Annotated[int, limited(least=1)] = 1
    diff_augment: bool = False
    discriminator_width: Annotated[int, limited(least=1)] = 32
    discriminator_max_width: Annotated[int, limited(least=1)] = 256
    discriminator_layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        # A step divides by it. All other ranges are looked at before a run.
        refuse_out_of_range(AdversarialObjective, {"penalty_interval": self.penalty_interval})

    def networks(self, model: ImageGenerator) -> dict[str, nn.Module]:
        sizes = (model.config.image_size, model.config.image_channels)
        if self.discriminator_layers:
            discriminator = ListedDiscriminator(self.discriminator_layers, *sizes)
        else:
            discriminator = Discriminator(*sizes, self.discriminator_width, self.discriminator_max_width)
        return {"discriminator": discriminator, "model": model}

    @property
    def steps(self) -> dict[str, Step]:
        return {"discriminator": self.discriminator_step, "model": self.model_step}

    def fakes(self, networks: Networks, batch: Batch) -> torch.Tensor:
        """What the discriminator learns to tell from the images of the batch, as many or a multiple."""
        raise NotImplementedError(f"{type(self).__name__} defines no fakes.")

    def discriminator_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        """The step that trains the discriminator."""
        with torch.no_grad():
            fakes = self.fakes(networks, batch).float()
        is_penalised = self.r1_gamma + self.r2_gamma > 0 and batch.number % self.penalty_interval == 0
        reals, fakes = (
            self._augment(group, batch).detach().requires_grad_(is_penalised) for group in (batch.images, fakes)
        )
        real_logits, fake_logits = networks["discriminator"](reals), networks["discriminator"](fakes)
        partners = real_logits.repeat(len(fake_logits) // len(real_logits))  # as many as fakes
        adversarial = losses.ADVERSARIAL_LOSSES[self.adversarial_loss].discriminator(partners, fake_logits).mean()
        logs = {"d_loss": adversarial.detach(), "d_margin": (partners - fake_logits).detach().float().mean()}
        if not is_penalised:
            return adversarial, logs
        r1 = losses.gradient_penalty(real_logits, reals).mean()
        r2 = losses.gradient_penalty(fake_logits, fakes).mean()
        loss = adversarial + self.penalty_interval * 0.5 * (self.r1_gamma * r1 + self.r2_gamma * r2)
        return loss, logs | {"r1": r1.detach(), "r2": r2.detach()}

    def generator_loss(self, networks: Networks, batch: Batch, fakes: torch.Tensor) -> torch.Tensor:
        """The adversarial loss of `fakes`, as many as the images of the batch or a multiple: a scalar."""
        fake_logits = networks["discriminator"](self._augment(fakes, batch))
        with torch.no_grad():
            real_logits = networks["discriminator"](self._augment(batch.images, batch))
        partners = real_logits.repeat(len(fake_logits) // len(real_logits))
        return losses.ADVERSARIAL_LOSSES[self.adversarial_loss].generator(partners, fake_logits).mean()

    def _augment(self, images: torch.Tensor, batch: Batch) -> torch.Tensor:
        if not self.diff_augment:
            return images
        groups = images.split(len(batch))  # each draws its own chances
        return torch.cat([diff_augment(group, batch.uniform(DIFF_AUGMENT_CHANCES)) for group in groups])


@dataclass(frozen=True)
class DCGANObjective(AdversarialObjective):
    """Adversarial loss with zero-centred gradient penalties on real and fake images (Mescheder and others 2018)."""

    @property
    def legend(self) -> str:
        return ADVERSARIAL_LEGEND

    def fakes(self, networks: Networks, batch: Batch) -> torch.Tensor:
        return networks["model"](draw_latents(networks, batch))

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        loss = self.generator_loss(networks, batch, self.fakes(networks, batch))
        return loss, {"g_loss": loss.detach()}


@dataclass(frozen=True)
class VAEGANObjective(AdversarialObjective):
    """A variational autoencoder whose reconstructions a discriminator learns to tell from the pictures themselves
    (Larsen and others 2016): `error / (C H W) + adversarial_weight * adversarial + feature_weight * feature distance +
    kl_weight * calibration * KL / (C H W)`. The calibration is what makes a KL weight of 1 the evidence lower bound of
    the decoder whose scale is the best for the batch: twice the mean squared error, or the mean absolute one. Without,
    the last term is `kl_weight * KL / Z`.

    Args:
        reconstruction_loss: "mse" (squared) or "l1" (absolute).
        kl_weight: Weight of the KL divergence to N(0, I).
        calibrated_kl: Whether that weight follows the error.
        adversarial_weight: Weight of the adversarial loss, once it has its whole weight.
        feature_weight: Weight of the difference between what the discriminator's layers see in a picture and in its
            reconstruction, which rises as the adversarial one.
        adversarial_start: Batches during which the discriminator learns and the model does not listen to it.
        adversarial_ramp: Batches after that, over which its weight rises from 0.
        other_fakes: What has to look real beside reconstructions: "none", decoded "noise" of N(0, I), as in the
            original, or "paths", pictures between those of the batch.
        train_encoder: Whether the encoder learns as well. Without, the latent space stays that of the model that the
            run starts from, and its prior stays valid.
    """

    # a slower average would lag behind the sharpness that comes last, see model_cards/EXPERIMENTS.md
    train_defaults: ClassVar[dict[str, Any]] = AdversarialObjective.train_defaults | {"ema_decay": 0.98}

    reconstruction_loss: Literal["mse", "l1"] = "l1"
    kl_weight: Annotated[float, limited(least=0)] = 1.0
    calibrated_kl: bool = True
    adversarial_weight: Annotated[float, limited(least=0)] = 0.1
    feature_weight: Annotated[float, limited(least=0)] = 1.0
    adversarial_start: Annotated[int, limited(least=0)] = 500
    adversarial_ramp: Annotated[int, limited(least=0)] = 1000
    other_fakes: Literal["none", "noise", "paths"] = "none"
    train_encoder: bool = True

    @property
    def legend(self) -> str:
        error = ERRORS[self.reconstruction_loss]
        return f"loss is the {error}, plus weighted KL, adversarial loss and feature distance; {ADVERSARIAL_LEGEND}"

    @property
    def frozen(self) -> frozenset[str]:
        return super().frozen if self.train_encoder else super().frozen | {"encoder"}

    def fakes(self, networks: Networks, batch: Batch) -> torch.Tensor:
        return _fakes(self._draw(networks, batch))

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        output = self._draw(networks, batch)
        num_values = batch.images[0].numel()
        error = losses.RECONSTRUCTION_LOSSES[self.reconstruction_loss](output.reconstructions, batch.images)
        error = error.mean() / num_values
        scale = 1 / output.mean.shape[1]
        if self.calibrated_kl:
            scale = (
                batch.mean_over_ranks(error.detach()) * (2 if self.reconstruction_loss == "mse" else 1) / num_values
            )
        kl = losses.gaussian_kl(output.mean, output.logvar).mean()
        loss = error + self.kl_weight * scale * kl
        mse = losses.squared_error(output.reconstructions.detach(), batch.images).mean() / num_values
        logs = {"mse": mse, "kl": kl.detach()}
        if heard := self._heard(batch):
            adversarial = self.generator_loss(networks, batch, _fakes(output))
            features = self._feature_distance(networks, batch, output.reconstructions)
            loss = loss + heard * (self.adversarial_weight * adversarial + self.feature_weight * features)
            logs |= {"g_loss": adversarial.detach(), "feature_distance": features.detach()}
        return loss, {"loss": loss.detach(), **logs}

    def _draw(self, networks: Networks, batch: Batch) -> VAEOutput:
        latents = draw_latents(networks, batch) if self.other_fakes == "noise" else None
        places = batch.uniform(1) if self.other_fakes == "paths" else None
        return networks["model"](batch.images, draw_latents(networks, batch), latents, places)

    def _heard(self, batch: Batch) -> float:
        """How much of its weight the discriminator has by now, from 0 to 1."""
        return min(1.0, max(0.0, (batch.number - self.adversarial_start) / max(1, self.adversarial_ramp)))

    def _feature_distance(self, networks: Networks, batch: Batch, reconstructions: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            references = networks["discriminator"].features(batch.images)
        return losses.feature_distance(networks["discriminator"].features(reconstructions), references).mean()


def _fakes(output: VAEOutput) -> torch.Tensor:
    """Everything that was drawn: reconstructions, and samples if there are any."""
    return output.reconstructions if output.samples is None else torch.cat([output.reconstructions, output.samples])
