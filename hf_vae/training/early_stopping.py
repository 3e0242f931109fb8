"""Early stopping: the objective's loss on held-out images, and how long ago it was lowest."""

import torch
from accelerate import Accelerator

from ..objectives import Networks, Objective
from ..objectives.batch import Batch
from ..pictures import to_float
from .state import Progress


VALIDATION_BATCH = 256


@torch.no_grad()
def validation_loss(
    accelerator: Accelerator, objective: Objective, networks: Networks, images: torch.Tensor, seed: int
) -> torch.Tensor:
    """The mean loss of the model's step over held-out `images` (N, C, H, W), uint8: a scalar. The noise is the same in
    every call, and the model's training mode is restored."""
    model, was_training, total = networks["model"], networks["model"].training, torch.tensor(0.0)
    model.eval()
    for number, some in enumerate(images.split(VALIDATION_BATCH)):
        batch = Batch(to_float(some.to(accelerator.device)), seed, number)
        with accelerator.autocast():
            loss, _ = objective.model_step(networks, batch)
        total = total.to(loss.device) + loss.float() * len(some) / len(images)
    model.train(was_training)
    return total


def note_validation(progress: Progress, loss: float) -> None:
    """Counts the epochs since the lowest validation loss."""
    if progress.lowest_validation_loss is None or loss < progress.lowest_validation_loss:
        progress.lowest_validation_loss, progress.epochs_since = loss, 0
    else:
        progress.epochs_since += 1
