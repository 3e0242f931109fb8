"""The contract of an objective: loss weights, and the steps that use them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ..models import FITTED_PARTS, ImageGenerator
from .batch import Batch


Networks = Mapping[str, nn.Module]
Logs = dict[str, torch.Tensor]
Step = Callable[[Networks, Batch], tuple[torch.Tensor, Logs]]

ERRORS = {
    "mse": "mean squared error of values in [-1, 1]",
    "l1": "mean absolute error of values in [-1, 1]",
    "bce": "binary cross-entropy of values in [0, 1], in nats per value",
    "ms_ssim": "multi-scale structural similarity, taken from 1",
}


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
        return frozenset(FITTED_PARTS)

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
