"""The contestants beside the plain loop: our loop, the shipped models, and the ceiling, a speed that no loop around
the same network can exceed."""

from pathlib import Path

import torch
from PIL import Image

from benchmarks.plain_loop import NETWORK
from hf_vae import VAE, ImagePipeline
from hf_vae.config import RunConfig
from hf_vae.hardware import computes_in_bfloat16, prepare_backends
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
        self.model = VAE(**NETWORK).to(device, memory_format=torch.channels_last).train()
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
