"""The running average of weights, of a training and of a prior that is learned."""

from collections.abc import Mapping

import torch


@torch.no_grad()
def move_average(
    averaged: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor], num_updates: int, decay: float
) -> None:
    """Moves the tensors of `averaged` towards those of `values`, by name and in place: `decay` of each stays. In the
    first updates less stays, `(1 + n) / (10 + n)` after n updates, so that the average soon forgets the random weights
    that it starts from. Integers, such as BatchNorm's counter of batches, are copied.

    Args:
        averaged: The running average, a state dict.
        values: The current weights and buffers, with the same names.
        num_updates: How many updates came before this one.
        decay: The share of the average that stays, from 0 to 1.
    """
    moving = [name for name, value in averaged.items() if value.is_floating_point()]
    speed = 1 - min(decay, (1 + num_updates) / (10 + num_updates))
    torch._foreach_lerp_([averaged[name] for name in moving], [values[name] for name in moving], speed)
    for name in averaged.keys() - moving:
        averaged[name].copy_(values[name])
