"""`--train_batch_size auto`: the largest batch that fits into memory, found by trying."""

import copy
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size

from ..models import ImageGenerator
from ..objectives import Objective
from ..objectives.batch import Batch


LATE = 2**40  # the number of a batch by which all is ramped up, and at which penalties at intervals are due
LARGEST_TRIED = 1024  # beyond it, more images a second no longer make up for fewer updates


def largest_batch_size(accelerator: Accelerator, model: ImageGenerator, objective: Objective, num_images: int) -> int:
    """The largest batch, up to `num_images` and 1,024 and the same on all ranks, that goes through two updates of
    copies of the networks without running out of memory: the GPU's, or what of the machine's is free on a CPU."""
    largest = min(LARGEST_TRIED, num_images)
    smaller = iter([2**power for power in range(10, -1, -1) if 2**power < largest])

    @find_executable_batch_size(starting_batch_size=largest, reduce_batch_size_fn=lambda: next(smaller, 0))
    def attempt(batch_size: int) -> int:
        try:
            _two_updates(accelerator, model, objective, batch_size)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "could not create a primitive" not in str(error):
                raise
            # the words that accelerate knows, for what Python and oneDNN say
            raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory ({error})") from error
        return batch_size

    with torch.random.fork_rng(), _within_free_memory(accelerator.device):
        found = attempt()
    gc.collect()
    return int(accelerator.gather(torch.tensor([found], device=accelerator.device)).min())


def _two_updates(accelerator: Accelerator, model: ImageGenerator, objective: Objective, batch_size: int) -> None:
    """The second one is the larger: optimizers have their state only then, and all terms of a loss have set in."""
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


@contextmanager
def _within_free_memory(device: torch.device) -> Iterator[None]:
    """On a CPU, makes an allocation that would have the machine swap or kill this process fail instead."""
    if device.type != "cpu" or sys.platform != "linux":
        yield
        return
    import resource  # is only there on Unix

    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + psutil.virtual_memory().available
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
