"""Other packages beside ours, each for the same minutes on the same photos, and what each gives afterwards.

pip install --no-deps pythae cloudpickle imageio pydantic pydantic_core annotated_types typing_inspection
python -m benchmarks.peers --train_data_dir photos/ --minutes 20

- pythae: its VAE with its ResNets for 64x64 images, its trainer, 64 latents, batches of 100, Adam, a rate of 0.001.
- diffusers: the network of examples/unconditional_image_generation/train_unconditional.py. The script itself needs
  torchvision, so only updates of 16 images and samples are timed.
- ours: `train_accelerate.py vae --max_train_minutes`, with all defaults.
"""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.pictures import draw_pictures
from benchmarks.report import print_header, print_table
from hf_vae import ImagePipeline
from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.evaluation.features import EfficientNetFeatures, extract, open_features
from hf_vae.evaluation.metrics import frechet_distance, mse
from hf_vae.flags import FLAG_STYLE
from hf_vae.pictures import picture_grid, to_float, to_pictures


SIZE = 64
SHOWN = 16  # samples that are timed
BATCH = 50
PYTHAE_LATENTS, PYTHAE_BATCH, PYTHAE_RATE = 64, 100, 1e-3
DIFFUSION_BATCH, DIFFUSION_UPDATES, DIFFUSION_STEPS = 16, 5, 1000


@dataclass
class Result:
    """What a package gave.

    Args:
        training_images: Images per second of training.
        minutes: How long its run took.
        sampling_seconds: For 16 samples.
        reconstructions: Of the held-out images `(N, C, H, W)` in [-1, 1], or None.
        samples: As many, or None.
        memory_mib: The most that its process held.
    """

    training_images: float
    minutes: float
    sampling_seconds: float
    reconstructions: torch.Tensor | None = None
    samples: torch.Tensor | None = None
    memory_mib: float = 0.0


def ours(folder: Path, place: Path, train: torch.Tensor, heldout: torch.Tensor, minutes: float) -> Result:
    """Trains as a user does, in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, "train_accelerate.py", "vae", "--train_data_dir", str(folder), "--output_dir"]
    subprocess.run([*command, str(place / "run"), "--max_train_minutes", str(minutes)], check=True)
    passed = (time.perf_counter() - start) / 60
    pipeline = ImagePipeline.from_pretrained(str(place / "run"))
    with torch.no_grad():
        found = [pipeline.decode(pipeline.model.encode(batch).latents).tensors for batch in heldout.split(BATCH)]
    sampling = _seconds(lambda: pipeline.sample(SHOWN, 0))
    samples = torch.cat([pipeline.sample(BATCH, seed).tensors for seed in range(len(heldout) // BATCH)])
    speed = _images_per_second(place / "run")
    return Result(speed, passed, sampling, torch.cat(found), samples)


def pythae(folder: Path, place: Path, train: torch.Tensor, heldout: torch.Tensor, minutes: float) -> Result:
    """Its trainer, which is stopped by its callback at the end of the pass in which the time is up."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.benchmarks.celeba import Decoder_ResNet_AE_CELEBA, Encoder_ResNet_VAE_CELEBA
    from pythae.samplers import NormalSampler
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class TimeIsUpError(Exception):
        pass

    class Clock(TrainingCallback):
        def __init__(self) -> None:
            self.start, self.passes = time.perf_counter(), 0

        def on_epoch_end(self, training_config: Any, **kwargs: Any) -> None:
            self.passes += 1
            if time.perf_counter() - self.start > 60 * minutes:
                raise TimeIsUpError

    config = VAEConfig(input_dim=(3, SIZE, SIZE), latent_dim=PYTHAE_LATENTS)
    model = VAE(config, Encoder_ResNet_VAE_CELEBA(config), Decoder_ResNet_AE_CELEBA(config))
    settings = BaseTrainerConfig(
        output_dir=str(place / "pythae"),
        num_epochs=10**6,
        learning_rate=PYTHAE_RATE,
        per_device_train_batch_size=PYTHAE_BATCH,
        per_device_eval_batch_size=PYTHAE_BATCH,
    )
    sets = [BaseDataset((part + 1) / 2, torch.ones(len(part))) for part in train.tensor_split([9 * len(train) // 10])]
    clock = Clock()
    trainer = BaseTrainer(model, *sets, training_config=settings, callbacks=[clock])
    with suppress(TimeIsUpError):
        trainer.train()
    passed = time.perf_counter() - clock.start
    best = trainer._best_model.eval()
    sampler = NormalSampler(best)
    with torch.no_grad():
        found = [best.decoder(best.encoder((b + 1) / 2).embedding).reconstruction for b in heldout.split(BATCH)]
        sampling = _seconds(lambda: sampler.sample(SHOWN))
        samples = sampler.sample(len(heldout), batch_size=BATCH)
    speed = clock.passes * len(sets[0]) / passed
    return Result(speed, passed / 60, sampling, 2 * torch.cat(found) - 1, 2 * samples.clamp(0, 1) - 1)


def diffusers(folder: Path, place: Path, train: torch.Tensor, heldout: torch.Tensor, minutes: float) -> Result:
    """A few updates and steps of sampling of the network of `train_unconditional.py`: no run of some minutes on a CPU
    would teach it anything."""
    from diffusers import DDPMScheduler, UNet2DModel

    model = UNet2DModel(
        sample_size=SIZE,
        layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=(*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
    )
    scheduler = DDPMScheduler(DIFFUSION_STEPS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = train[:DIFFUSION_BATCH]

    def update() -> None:
        noise, times = torch.randn_like(images), torch.randint(DIFFUSION_STEPS, (len(images),))
        found = model(scheduler.add_noise(images, noise, times), times).sample
        torch.nn.functional.mse_loss(found, noise).backward()
        optimizer.step()
        optimizer.zero_grad()

    update()
    seconds = _seconds(lambda: [update() for _ in range(DIFFUSION_UPDATES)]) / DIFFUSION_UPDATES
    with torch.no_grad():
        step = _seconds(lambda: model(torch.randn(SHOWN, 3, SIZE, SIZE), 500).sample)
    return Result(len(images) / seconds, (DIFFUSION_UPDATES + 1) * seconds / 60, DIFFUSION_STEPS * step)


PACKAGES = {"ours": ours, "pythae": pythae, "diffusers": diffusers}


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _images_per_second(run: Path) -> float:
    report = json.loads((run / "training.json").read_text())
    return report["images_seen"] / report["seconds"]


def _run(name: str, path: Path, *arguments: Any) -> None:
    result = PACKAGES[name](*arguments)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    result.memory_mib = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024
    torch.save(result, path)  # a queue would share the tensors' memory, which ends with this process


def main(
    train_data_dir: Path | None = None,
    minutes: float = 20.0,
    images: int = 2000,
    packages: tuple[str, ...] = tuple(PACKAGES),
    sheets: Path | None = None,
) -> None:
    """Trains each package in turn, in a process of its own, and prints a table.

    Args:
        train_data_dir: Folder of images or parquet files. Without it, the benchmark draws images.
        minutes: How long each package trains.
        images: Images to train on. At most as many others judge the results.
        packages: Which of ours, pythae and diffusers.
        sheets: Folder for samples of each.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        place = Path(temporary)
        os.environ["HF_VAE_CACHE"] = str(place / "cache")
        source = train_data_dir or draw_pictures(place / "drawings")
        splits = load_images(DataConfig(train_data_dir=str(source), validation_fraction=0.1), SIZE, image_channels=3)
        chosen = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(0))
        train, heldout = (
            to_float(splits.train[part]).cpu() for part in (chosen[:images], chosen[images : 2 * images])
        )
        heldout = heldout[: len(heldout) // BATCH * BATCH]
        folder = place / "photos"
        folder.mkdir()
        for number, picture in enumerate(to_pictures(train)):
            picture.save(folder / f"{number}.png")
        name = train_data_dir or "coloured shapes, drawn by the benchmark"
        print_header("Peers", f"{name}; {len(train):,} to train on, {len(heldout):,} to judge by")
        print(f"- threads: {torch.get_num_threads()}; minutes: {minutes:g}\n", flush=True)
        network = open_features(EfficientNetFeatures.name)
        real, context = extract(network, heldout), multiprocessing.get_context("spawn")
        rows = []
        for package in packages:
            arguments = (package, place / f"{package}.pt", folder, place, train, heldout, minutes)
            worker = context.Process(target=_run, args=arguments)
            worker.start()
            worker.join()
            result: Result = torch.load(place / f"{package}.pt", weights_only=False)
            rows.append([package, *_cells(result, heldout, real, network)])
            if sheets is not None and result.samples is not None:
                _save_sheet(result.samples, sheets / f"{package}.png")
        columns = ["minutes", "images/s", "held-out MSE", "Frechet distance", "seconds for 16 samples", "memory, MiB"]
        print_table(["package", *columns], rows)


def _cells(result: Result, heldout: torch.Tensor, real: torch.Tensor, network: Any) -> list[str]:
    error, distance = "-", "-"
    if result.reconstructions is not None and result.samples is not None:
        error = f"{mse(result.reconstructions.clamp(-1, 1), heldout).mean().item():.4f}"
        distance = f"{frechet_distance(extract(network, result.samples), real):.0f}"
    speed, sampling = f"{result.training_images:.1f}", f"{result.sampling_seconds:.2f}"
    return [f"{result.minutes:.1f}", speed, error, distance, sampling, f"{result.memory_mib:.0f}"]


def _save_sheet(samples: torch.Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture_grid(to_pictures(samples[:64]), 8).save(path)


if __name__ == "__main__":
    tyro.cli(main, **FLAG_STYLE)
