"""The part that objectives with a discriminator share."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn

from ..models import ImageGenerator
from ..models.blocks import Discriminator
from ..models.listed_layers import ListedDiscriminator
from ..ranges import limited, refuse_out_of_range
from . import losses
from .augmentation import DIFF_AUGMENT_CHANCES, diff_augment
from .base import Logs, Networks, Objective, Step
from .batch import Batch


ADVERSARIAL_LEGEND = "g_loss and d_loss are the losses of generator and discriminator; they need not fall"


@dataclass(frozen=True)
class AdversarialObjective(Objective):
    """The discriminator, the loss against it, and the step that trains it.

    Args:
        adversarial_loss: Adversarial loss: "relativistic" (R3GAN, Huang et al. 2024), "non-saturating" or "hinge".
        r1_gamma: Weight of half the squared gradient norm of the discriminator at real images.
        r2_gamma: Weight of half the squared gradient norm of the discriminator at fake images.
        penalty_interval: Number of batches from one gradient penalty to the next. Each penalty is multiplied by this
            number (lazy regularization, Karras et al. 2020).
        diff_augment: Shift and recolour the images that the discriminator sees, real and fake alike (DiffAugment, Zhao
            et al. 2020). This helps with few images and many epochs; elsewhere it costs variety.
        discriminator_width: Channels of the discriminator at its finest scale. They double at each coarser scale.
        discriminator_max_width: Upper limit of the discriminator's channels.
        discriminator_layers: The layers of the discriminator, as a recipe lists them (see
            `hf_vae.models.listed_layers`). They replace its widths.
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
        # a step divides by it; all other ranges are checked before a run
        refuse_out_of_range(AdversarialObjective, {"penalty_interval": self.penalty_interval})

    def networks(self, model: ImageGenerator) -> dict[str, nn.Module]:
        sizes = (model.config.image_size, model.config.image_channels)
        discriminator: nn.Module
        if self.discriminator_layers:
            discriminator = ListedDiscriminator(self.discriminator_layers, *sizes)
        else:
            discriminator = Discriminator(*sizes, self.discriminator_width, self.discriminator_max_width)
        return {"discriminator": discriminator, "model": model}

    @property
    def steps(self) -> dict[str, Step]:
        return {"discriminator": self.discriminator_step, "model": self.model_step}

    def fakes(self, networks: Networks, batch: Batch) -> torch.Tensor:
        """Generated images, as many as the batch has or a multiple of that: `(N, C, H, W)`."""
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
        """The adversarial loss of `fakes` (N, C, H, W), where N is a multiple of the batch's size: a scalar."""
        fake_logits = networks["discriminator"](self._augment(fakes, batch))
        with torch.no_grad():
            real_logits = networks["discriminator"](self._augment(batch.images, batch))
        partners = real_logits.repeat(len(fake_logits) // len(real_logits))
        return losses.ADVERSARIAL_LOSSES[self.adversarial_loss].generator(partners, fake_logits).mean()

    def _augment(self, images: torch.Tensor, batch: Batch) -> torch.Tensor:
        if not self.diff_augment:
            return images
        groups = images.split(len(batch))  # each group gets its own random numbers
        return torch.cat([diff_augment(group, batch.uniform(DIFF_AUGMENT_CHANCES)) for group in groups])
