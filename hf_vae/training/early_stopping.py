"""The objective's loss on pictures that are not trained on, for early stopping."""

import torch
from accelerate import Accelerator

from ..objectives import Networks, Objective
from ..objectives.batch import Batch
from ..pictures import to_float
from .checkpoints import Progress


VALIDATION_BATCH = 256


@torch.no_grad()
def validation_loss(
    accelerator: Accelerator, objective: Objective, networks: Networks, images: torch.Tensor, seed: int
) -> torch.Tensor:
    """The mean loss of the model's step over held-out `images` (N, C, H, W), uint8, with the same noise every time: a
    scalar. The model is left in the mode that it was in."""
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
    """Keeps count of the epochs since the lowest validation loss."""
    if progress.lowest_validation_loss is None or loss < progress.lowest_validation_loss:
        progress.lowest_validation_loss, progress.epochs_since = loss, 0
    else:
        progress.epochs_since += 1
