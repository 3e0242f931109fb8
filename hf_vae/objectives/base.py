"""The contract of an objective: loss weights, and the training steps that use them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ..models import FITTED_PARTS, ImageGenerator
from . import losses
from .batch import Batch


Networks = Mapping[str, nn.Module]
Logs = dict[str, torch.Tensor]
Step = Callable[[Networks, Batch], tuple[torch.Tensor, Logs]]

ERRORS = {
    "mse": "mean squared error of values in [-1, 1]",
    "l1": "mean absolute error of values in [-1, 1]",
    "bce": "binary cross-entropy of values in [0, 1], in nats per value",
    "ms_ssim": "multi-scale structural similarity, subtracted from 1",
}


@dataclass(frozen=True)
class Objective:
    """The losses of a family. The fields are their weights; `steps` has the training steps, by the network that each
    one trains.

    A step takes all networks and a batch. It returns a scalar loss, and detached scalars to log. All its random
    numbers come from the batch. The network that the step trains may be wrapped for distributed training, so a step
    calls it as `network(...)` only; the other networks are bare and frozen.

    Args:
        train_defaults: Settings of `TrainConfig` whose defaults are different for the family.
        differentiated_twice: Names of the networks whose gradient is part of a loss. torch.compile does not support
            that.
    """

    train_defaults: ClassVar[dict[str, Any]] = {}
    differentiated_twice: ClassVar[frozenset[str]] = frozenset()

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the submodules of the model that are not trained. What is fitted after training is among them."""
        return frozenset(FITTED_PARTS)

    def networks(self, model: ImageGenerator) -> dict[str, nn.Module]:
        """The networks to train, by name: the model, and others that the family needs."""
        return {"model": model}

    @property
    def steps(self) -> dict[str, Step]:
        """The training steps of one batch, in order. The key is the name of the network that the step trains."""
        return {"model": self.model_step}

    @property
    def settled_after(self) -> int:
        """The number of the first batch from which on the work of the steps no longer changes."""
        return 0

    @property
    def legend(self) -> str:
        """One line that explains the losses in the log, printed when a run starts. It may be empty."""
        return ""

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        """The step that trains the model itself."""
        raise NotImplementedError(f"{type(self).__name__} defines no model_step.")


def draw_latents(networks: Networks, batch: Batch) -> torch.Tensor:
    """Latents drawn from N(0, I), one row for each image of the batch: `(B, Z)`."""
    model = networks["model"]
    unwrapped: Any = getattr(model, "module", model)
    return batch.normal(unwrapped.config.latent_dim)


def weight_of_kl(kl: torch.Tensor, batch: Batch, weight: float, target: float | None) -> float | torch.Tensor:
    """The weight of the divergences `kl` (B,) of a batch: `weight`, or what holds their mean near a `target`, see
    `losses.kl_weight_for`."""
    return weight if target is None else losses.kl_weight_for(batch.mean_over_ranks(kl.detach().mean()), target)
