"""The contestants beside the plain loop: our loop, the shipped models, and the ceiling, a speed that no loop around
the same network can exceed."""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from benchmarks.plain_loop import NETWORK
from hf_vae import VAE, ImagePipeline
from hf_vae.config import RunConfig
from hf_vae.hardware import computes_in_bfloat16, prepare_backends
from hf_vae.latents.fit_prior import fit_prior
from hf_vae.models.priors.base import PriorTraining
from hf_vae.models.priors.code import CODE_SHARE
from hf_vae.objectives import VAEObjective
from hf_vae.objectives.batch import Batch
from hf_vae.training.loop import Training


class OurLoop:
    """`hf_vae.training.loop.Training`, as users run it."""

    def __init__(self, run: RunConfig):
        self.training = Training.start(run)

    def run(self, num_steps: int) -> None:
        """Makes `num_steps` updates, including logs, previews and checkpoints."""
        self.training.advance(self.training.progress.step + num_steps)

    def draw_batches(self, num_batches: int) -> None:
        """Prepares batches for training, without training on them."""
        batches = self.training._batches()
        for _ in range(num_batches):
            next(batches)

    def write_preview(self) -> None:
        """Does what the loop does every `preview_steps`."""
        self.training._preview()

    def write_checkpoint(self) -> None:
        """Does what the loop does every `checkpointing_steps`."""
        self.training._save_checkpoint()


class Ceiling:
    """The plain loop's network on one batch in memory, with our loss and the best settings found. It has no data
    loading, log, clipping or running average."""

    def __init__(self, images: torch.Tensor, compile_mode: str | None = None):
        torch.manual_seed(0)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        prepare_backends(device, allow_tf32=True)
        self.model = (
            VAE(**NETWORK | {"image_size": images.shape[-1]}).to(device, memory_format=torch.channels_last).train()
        )
        if compile_mode:
            self.model.compile(mode=compile_mode)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.batch = Batch(images.to(device, memory_format=torch.channels_last))
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bfloat16(device))
        self.step = VAEObjective().model_step

    def run(self, num_steps: int) -> None:
        """Makes `num_steps` updates."""
        for _ in range(num_steps):
            with self.autocast:
                loss, _ = self.step({"model": self.model}, self.batch)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


class Watched:
    """Any contestant, and for how much of the time it keeps the GPU busy."""

    def __init__(self, contestant: Callable[..., Any], **arguments: Any):
        self.contestant = contestant(**arguments)

    def run(self, num_steps: int) -> None:
        """Makes `num_steps` updates."""
        self.contestant.run(num_steps)

    def busy_share(self, num_steps: int) -> float | None:
        """The share of the time of `num_steps` updates in which a kernel ran, by PyTorch's profiler; None without a
        GPU. Copies do not count."""
        if not torch.cuda.is_available():
            return None
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            begin = time.perf_counter()
            self.run(num_steps)
            torch.cuda.synchronize()
            seconds = time.perf_counter() - begin
        kernels = [
            (event.time_range.start, event.time_range.end)
            for event in profiler.events()
            if event.device_type == torch.autograd.DeviceType.CUDA
            and not event.is_user_annotation
            and not event.name.startswith("Mem")  # Memcpy and Memset
        ]
        return covered(kernels) / 1e6 / seconds


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals, each a start and an end."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


class _Enough(Exception):  # noqa: N818, it is not an error
    """Ends the training of a prior."""


class PriorLoop:
    """The training of a default VAE's prior, whose networks have random weights."""

    def __init__(self, images: torch.Tensor, size: dict[str, int]):
        torch.manual_seed(0)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        prepare_backends(device, allow_tf32=True)
        self.images, self.model = images.to(device), VAE(**size).to(device).eval().requires_grad_(False)

    def speeds(self, num_updates: int) -> dict[str, float]:
        """Updates a second of the code and of the flow given it, in a training of `num_updates`. The first quarter of
        either is not timed."""
        num_of_code = round(CODE_SHARE * num_updates)
        sizes = {"code": num_of_code, "flow": num_updates - num_of_code}
        warm = {part: max(1, size // 4) for part, size in sizes.items()}
        due = {warm["code"], num_of_code, num_of_code + warm["flow"], num_updates}
        stamps: list[float] = []

        def note(training: PriorTraining) -> None:
            if len(training.losses) in due:
                training.losses[-1].item()  # waits for the device
                stamps.append(time.perf_counter())
            if len(training.losses) == num_updates:
                raise _Enough

        with suppress(_Enough):  # without the calibration at the end
            fit_prior(self.model, self.images.split(256), num_updates, after_update=note)
        seconds = {"code": stamps[1] - stamps[0], "flow": stamps[3] - stamps[2]}
        return {part: (sizes[part] - warm[part]) / seconds[part] for part in sizes}


class ShippedModel:
    """A published model in an `ImagePipeline`."""

    def __init__(self, folder: Path):
        self.pipeline = ImagePipeline.from_pretrained(folder)
        self.pipeline.to("cuda" if torch.cuda.is_available() else "cpu")

    def can_reconstruct(self) -> bool:
        """Whether its family has an encoder."""
        return self.pipeline.model.has_encoder

    def sample(self, num_images: int) -> None:
        """Generates images."""
        self.pipeline.sample(num_images, seed=0)

    def reconstruct(self, num_images: int) -> None:
        """Encodes and decodes images."""
        size = self.pipeline.model.config.image_size
        self.pipeline.reconstruct([Image.new("RGB", (size, size), "teal")] * num_images)
