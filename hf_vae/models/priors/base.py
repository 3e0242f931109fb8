"""The contract of a prior: a distribution that latents are drawn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ..principal_components import PrincipalComponents


LEARNING_BATCH = 128  # latents
DEFAULT_STEPS = 10  # of a prior that follows a path from noise to latents

# Latents (B, Z) that are to come near to others (B, Z), to the error of their images (B,).
ImageError = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
State = tuple[torch.Tensor, ...]
WhileLoop = Callable[[Callable[..., torch.Tensor], Callable[..., State], State], State]


def run_while(condition: Callable[..., torch.Tensor], body: Callable[..., State], state: State) -> State:
    """`torch.while_loop` as a plain loop, which neither traces nor compiles anything."""
    while condition(*state):
        state = body(*state)
    return state


class PriorTraining:
    """A prior that is being learned, update by update."""

    losses: list[torch.Tensor]  # of each update so far, still on the device
    kept: int | None = None  # after how many updates the weights were taken; None if all updates count

    def update(self) -> None:
        """Makes one update."""
        raise NotImplementedError(f"{type(self).__name__} defines no update.")

    def state(self) -> dict[str, Any]:
        """All that the next updates follow from, except the latents: tensors and plain values."""
        raise NotImplementedError(f"{type(self).__name__} defines no state.")

    def restore(self, state: dict[str, Any]) -> None:
        """Returns to the update at which `state` was taken."""
        raise NotImplementedError(f"{type(self).__name__} defines no restore.")


@dataclass(frozen=True)
class Learning:
    """How a prior is learned that needs training updates. Other priors ignore it.

    Args:
        num_updates: Number of updates in all.
        in_bfloat16: Whether its network computes in bf16.
        state: What `PriorTraining.state` gave after an update of the same training, which resumes from there.
        after_update: Is called after each update.
        image_error: Maps latents `(B, Z)`, and those that they are to come near to, to the error of their images
            `(B,)`. A code is learned with it; without it, with the error of the latents alone.
        heldout: Latents `(M, Z)` that are not learned from. A flow keeps the weights whose velocity has the lowest
            error on them; without `heldout`, those after the last update.
        batch_size: Number of latents in an update of a flow. An update of a code takes a quarter of it.
        dropout: The share of features that each block of a flow's UNet sets to 0 during training, at random.
    """

    num_updates: int = 0
    in_bfloat16: bool = False
    state: dict[str, Any] | None = None
    after_update: Callable[[PriorTraining], None] | None = None
    image_error: ImageError | None = None
    heldout: torch.Tensor | None = None
    batch_size: int = LEARNING_BATCH
    dropout: float = 0.0


def learn(training: PriorTraining, learning: Learning) -> None:
    """Makes the updates of `training` that are left."""
    if learning.state is not None:
        training.restore(learning.state)
    for _ in range(len(training.losses), learning.num_updates):
        training.update()
        if learning.after_update is not None:
            learning.after_update(training)


class Prior(nn.Module):
    """A distribution over flat latents `(B, Z)`, as a function of noise of N(0, 1).

    A prior is one file that defines a subclass, and one line in `PRIORS`. Its `__init__` takes what it needs of
    `latent_dim`, `latent_size`, and of the sizes in a model's configuration, by name. Weights and buffers that it
    registers are stored with the model. What is shared is passed in: the principal components of the model's latents.

    Args:
        title: Its name in user interfaces.
        is_fitted: Whether it is fitted to latents; not for a distribution that is fixed.
        needs_encoder: Whether it is useful only when it is fitted to encoded images.
        is_learned: Whether fitting takes training updates (`Learning`). Only a model whose own prior this is has it.
        is_invertible: Whether `to_noise` exists. Images can then be interpolated through its noise.
        num_choices: How many of the last parts of the noise choose among cases. `temperature` does not scale these.
        preview_kind: The name of the prior that stands in for it in previews during training.
    """

    title: ClassVar[str]
    is_fitted: ClassVar[bool] = True
    needs_encoder: ClassVar[bool] = True
    is_learned: ClassVar[bool] = False
    is_invertible: ClassVar[bool] = False
    num_choices: int = 0
    preview_kind: ClassVar[str] = "gaussian"

    @property
    def noise_sizes(self) -> list[int]:
        """The size of each part of the noise that one latent is drawn from."""
        raise NotImplementedError(f"{type(self).__name__} defines no noise_sizes.")

    @property
    def noise_scales(self) -> list[float]:
        """What each part of the noise is multiplied by when samples are drawn, at a temperature of 1."""
        return [1.0] * len(self.noise_sizes)

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        """The latents `(B, Z)` of noise of N(0, 1).

        Args:
            noise: A part `(B, size)` for each of `noise_sizes`.
            components: The principal components of the model's latents.
            num_steps: Number of steps of a prior that follows a path from noise to latents. Others ignore it.
            while_loop: How such a prior runs its steps. `torch.while_loop` makes one loop of them in an exported
                graph.
            guidance: Strength of what the network of such a prior adds to its Gaussian; its own if None.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no from_noise.")

    def to_noise(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
    ) -> list[torch.Tensor]:
        """The noise that gives `latents` (..., Z) with the same `guidance`, up to the error of the steps, if
        `is_invertible`: a part `(..., size)` for each of `noise_sizes`."""
        raise NotImplementedError(f"{type(self).__name__} cannot be inverted.")

    def fit(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        seed: int = 0,
        learning: Learning = Learning(),  # noqa: B008 (it is frozen)
    ) -> None:
        """Fits the prior, in place. The same seed gives the same result, and no global random state is changed.

        Args:
            latents: What it is fitted to, `(N, Z)`, at least two.
            components: The principal components of the same latents.
            seed: Seed of all randomness.
            learning: How a prior is learned that needs training updates.
        """
