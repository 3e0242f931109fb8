"""`--train_batch_size auto`: on a GPU the largest batch that fits into its memory, found by trying."""

import copy
import gc

import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size

from ..models import ImageGenerator
from ..objectives import Objective
from ..objectives.batch import Batch


CPU_BATCH = 64
LATE = 2**40  # the number of a batch at which every ramp has ended and every periodic penalty is due
LARGEST_TRIED = 1024  # with larger batches, higher throughput no longer makes up for fewer updates


def choose_batch_size(accelerator: Accelerator, model: ImageGenerator, objective: Objective, num_images: int) -> int:
    """The batch size that "auto" stands for, the same on all ranks.

    On a CPU it is 64. On a GPU it is the smallest of `num_images`, 1,024 and the largest power of two for which two
    updates of copies of the networks fit into memory.
    """
    if accelerator.device.type == "cpu":
        return CPU_BATCH
    found = _largest_that_fits(accelerator, model, objective, min(LARGEST_TRIED, num_images))
    return int(accelerator.gather(torch.tensor([found], device=accelerator.device)).min())


def _largest_that_fits(accelerator: Accelerator, model: ImageGenerator, objective: Objective, largest: int) -> int:
    """`largest`, or else the largest power of two below it that fits into memory."""
    smaller = iter([2**power for power in range(10, -1, -1) if 2**power < largest])

    @find_executable_batch_size(starting_batch_size=largest, reduce_batch_size_fn=lambda: next(smaller, 0))
    def attempt(batch_size: int) -> int:
        _two_updates(accelerator, model, objective, batch_size)
        return batch_size

    device = accelerator.device
    with torch.random.fork_rng(devices=[device] if device.type != "cpu" else [], device_type=device.type):
        found = attempt()
    gc.collect()
    return found


def _two_updates(accelerator: Accelerator, model: ImageGenerator, objective: Objective, batch_size: int) -> None:
    """Trains copies of the networks on two batches of zeros. The second batch needs more memory: the optimizers have
    their state by then, and all terms of the losses are active."""
    networks = objective.networks(copy.deepcopy(model))
    optimizers = {
        name: torch.optim.AdamW(network.train().to(accelerator.device).parameters())
        for name, network in networks.items()
    }
    size, channels = model.config.image_size, model.config.image_channels
    images = torch.zeros(batch_size, channels, size, size, device=accelerator.device)
    for number in (0, LATE):
        for name, step in objective.steps.items():
            for other, network in networks.items():
                network.requires_grad_(other == name)
            with accelerator.autocast():
                loss, _ = step(networks, Batch(images, number=number))
            loss.backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
