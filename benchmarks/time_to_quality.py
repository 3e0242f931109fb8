"""How long our default recipe takes to reach the held-out error that a plain VAE reaches after 200,000 images. Both
train in turns, so that other load on the machine affects both.

python benchmarks/time_to_quality.py --train_data_dir photos/
"""

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro

from benchmarks.contestants import OurLoop
from benchmarks.pictures import draw_pictures, load_pictures
from benchmarks.plain_loop import BATCH_SIZE, COLOR_JITTER, PlainLoop
from benchmarks.report import print_header, print_table
from benchmarks.workers import Worker
from hf_vae import VAE
from hf_vae.config import DataConfig, RunConfig, TrainConfig
from hf_vae.flags import FLAG_STYLE
from hf_vae.objectives import VAEObjective
from hf_vae.pictures import to_float


MEASURE_BATCH = 128


@torch.no_grad()
def heldout_mse(model: VAE, heldout: torch.Tensor) -> float:
    """Mean squared error of the reconstructions, from posterior means and clipped to [-1, 1], of uint8 images
    `(N, C, H, W)`, per value of an image in [-1, 1]."""
    was_training = model.training
    model.eval()
    total = 0.0
    for batch in heldout.split(MEASURE_BATCH):
        images = to_float(batch.to(model.device))
        total += (model(images).sample.clamp(-1, 1) - images).square().sum().item()
    model.train(was_training)
    return total / heldout.numel()


class PlainContestant(PlainLoop):
    """The plain loop, measured on held-out images."""

    def __init__(self, heldout: torch.Tensor, **arguments: object):
        super().__init__(**arguments)
        self.heldout = heldout

    def measure(self) -> float:
        """The current error."""
        return heldout_mse(self.model, self.heldout)


class OurContestant(OurLoop):
    """Our loop, measured on the running average, which a run publishes."""

    def measure(self) -> float:
        """The current error."""
        return heldout_mse(self.training.trainees.published, self.training.data.heldout[:])


@dataclass
class Curve:
    """The progress of a contestant.

    Args:
        worker: The contestant.
        num_steps: Length of its run.
        seconds: Training time so far, without waiting and measuring.
        points: Images, seconds and held-out error after each part.
    """

    worker: Worker
    num_steps: int
    seconds: float = 0.0
    points: list[tuple[int, float, float]] = field(default_factory=list)

    def advance(self, share: float) -> None:
        """Trains until `share` of the steps are done, and measures."""
        before = self.points[-1][0] // BATCH_SIZE if self.points else 0
        steps = round(share * self.num_steps)
        self.seconds += self.worker.timed("run", steps - before)[1]
        self.points.append((steps * BATCH_SIZE, self.seconds, self.worker.call("measure")))


def main(
    train_data_dir: Path | None = None,
    images: int = 200_000,
    steps: int = 400,
    rounds: int = 25,
    num_workers: int = 0,
    color_jitter: float = COLOR_JITTER,
    width: int | None = None,
    max_width: int | None = None,
) -> None:
    """Trains both, and prints their errors over time.

    Args:
        train_data_dir: Folder of images or parquet files. Without it, the benchmark draws images.
        images: Number of images that the plain loop trains on.
        steps: Length of our run, and of its learning-rate schedule.
        rounds: Number of parts of both runs. Both are measured after each part.
        num_workers: Processes of the plain loop's DataLoader.
        color_jitter: Colour jitter of the plain loop. Our default recipe has none.
        width: Width of our network, if not the default.
        max_width: The most channels of our network, if not the default.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary, ExitStack() as stack:
        place = Path(temporary)
        os.environ["HF_VAE_CACHE"] = str(place / "cache")
        folder = train_data_dir or draw_pictures(place / "drawings")
        start = time.perf_counter()
        pictures = load_pictures(folder)
        decoding = time.perf_counter() - start
        source = str(train_data_dir or "coloured shapes, drawn by the benchmark")
        counts = f"{len(pictures.train_files):,} to train on, {len(pictures.splits.heldout):,} held out"
        print_header("Time to quality", f"{source}; {counts}")
        loop = {"files": pictures.train_files, "num_workers": num_workers, "color_jitter": color_jitter}
        plain = Worker(PlainContestant, place / "plain.log", heldout=pictures.splits.heldout[:], **loop)
        plain_curve = Curve(stack.enter_context(plain), images // BATCH_SIZE)
        data, train = DataConfig(train_data_dir=str(folder)), TrainConfig(str(place / "run"), max_train_steps=steps)
        sizes = {name: size for name, size in (("width", width), ("max_width", max_width)) if size is not None}
        ours = Worker(OurContestant, place / "ours.log", run=RunConfig("vae", sizes, VAEObjective(), data, train))
        our_curve = Curve(stack.enter_context(ours), steps, seconds=decoding)
        for number in range(1, rounds + 1):
            for name, curve in {"plain": plain_curve, "ours": our_curve}.items():
                curve.advance(number / rounds)
                images_seen, seconds, mse = curve.points[-1]
                progress = f"{name}: {images_seen:,} images, {seconds:.1f} s, held-out MSE {mse:.5f}"
                print(f"part {number} of {rounds}, {progress}", file=sys.stderr)
    _print_result(plain_curve, our_curve, decoding)


def _print_result(plain: Curve, ours: Curve, decoding: float) -> None:
    rows = []
    for plain_point, our_point in zip(plain.points, ours.points, strict=True):
        cells = [(f"{images:,}", f"{seconds:.1f}", f"{mse:.5f}") for images, seconds, mse in (plain_point, our_point)]
        rows.append([cell for pair in cells for cell in pair])
    print_table(["plain: images", "seconds", "held-out MSE", "ours: images", "seconds", "held-out MSE"], rows)
    images, seconds, target = plain.points[-1]
    print(f"- the plain loop: {target:.5f} after {images:,} images and {seconds:.1f} s")
    reached = next((point for point in ours.points if point[2] <= target), None)
    length = f"schedule of {ours.num_steps:,} steps"
    if reached is None:
        print(f"- ours ({length}): not reached; {ours.points[-1][2]:.5f} after {ours.seconds:.1f} s")
        return
    images, our_seconds, error = reached
    print(f"- ours ({length}): {error:.5f} after {images:,} images and {our_seconds:.1f} s, {decoding:.1f} s of them")
    print(f"  for decoding the images once: {our_seconds / seconds:.2f} of the plain loop's time")


if __name__ == "__main__":
    tyro.cli(main, **FLAG_STYLE)
