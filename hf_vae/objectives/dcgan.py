"""The objective of the DC-GAN."""

from dataclasses import dataclass

import torch

from .adversarial import ADVERSARIAL_LEGEND, AdversarialObjective
from .base import Logs, Networks, draw_latents
from .batch import Batch


@dataclass(frozen=True)
class DCGANObjective(AdversarialObjective):
    """Adversarial loss with zero-centred gradient penalties on real and fake images (Mescheder et al. 2018)."""

    @property
    def legend(self) -> str:
        return ADVERSARIAL_LEGEND

    def fakes(self, networks: Networks, batch: Batch) -> torch.Tensor:
        return networks["model"](draw_latents(networks, batch)).sample

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        loss = self.generator_loss(networks, batch, self.fakes(networks, batch))
        return loss, {"g_loss": loss.detach()}
