"""What a run says about itself: averages and previews on the way, to `log.jsonl`, `previews/` and the trackers; and
the facts of a finished one in `training.json`."""

import json
import math
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from PIL import Image

from ..atomic import write_text_whole
from ..models import ImageGenerator
from ..objectives import Logs
from .checkpoints import Progress
from .trackers import track_picture


LOG_FILE = "log.jsonl"
MIB = 2**20


class Meter:
    """Keeps what the steps log, on the device, until it is read; and measures speed between two readings."""

    def __init__(self, accelerator: Accelerator, progress: Progress, state: dict[str, Any] | None = None):
        self._accelerator = accelerator
        self._waiting: list[tuple[int, Logs]] = []  # values that are still on the device, with their step
        self._settled: list[tuple[int, dict[str, float]]] = (
            [tuple(entry) for entry in state["values"]] if state else []
        )
        self._start = time.perf_counter() - (state["seconds"] if state else 0.0)
        self._restart(progress)

    def add(self, step: int, logs: Logs) -> None:
        """Adds one batch's scalars, without waiting for the device."""
        self._waiting.append((step, logs))

    def settle(self) -> None:
        """Fetches what is waiting, as the mean over all ranks. Called on all ranks.

        Raises:
            ValueError: If a value is infinite or not a number; it names the first such step and its terms.
        """
        if not self._waiting:
            return
        flat = torch.stack([value.float() for _, logs in self._waiting for value in logs.values()])
        values = iter(self._accelerator.reduce(flat, "mean").tolist())
        settled = [(step, {name: next(values) for name in logs}) for step, logs in self._waiting]
        self._waiting = []
        for step, logs in settled:
            if bad := [f"{name} is {value}" for name, value in logs.items() if not self._is_sound(name, value)]:
                raise ValueError(
                    f"At step {step}, {' and '.join(bad)}. Nothing was saved since; resume from the last checkpoint, "
                    "or an earlier one, with a lower --learning_rate."
                )
        self._settled += settled

    def _is_sound(self, name: str, value: float) -> bool:
        overflow_is_expected = self._accelerator.mixed_precision == "fp16" and name.startswith("grad_norm")
        return math.isfinite(value) or overflow_is_expected  # the gradient scaler skips such an update

    def read(self, progress: Progress) -> dict[str, float]:
        """The averages since the last reading, the speed since then, and memory; starts anew. Called on all ranks.

        Raises:
            ValueError: As `settle` does.
        """
        self.settle()
        series: dict[str, list[float]] = {}
        for _, logs in self._settled:
            for name, value in logs.items():
                series.setdefault(name, []).append(value)
        logs = {"step": progress.step} | {name: sum(values) / len(values) for name, values in series.items()}
        logs["seconds"] = self.seconds
        logs["images_per_second"] = (progress.images - self._images) / (time.perf_counter() - self._since)
        logs |= memory_in_use(self._accelerator.device)
        self._settled = []
        self._restart(progress)
        return logs

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that the next line of the log is the same after a resume. Settle first."""
        return {"values": self._settled, "seconds": self.seconds}

    @property
    def seconds(self) -> float:
        """How long the run has taken, all its launches together."""
        return time.perf_counter() - self._start

    def _restart(self, progress: Progress) -> None:
        self._since, self._images = time.perf_counter(), progress.images


def memory_in_use(device: torch.device) -> dict[str, float]:
    """Memory of this process in MiB: resident now and, on a GPU, allocated there at most so far."""
    used = {"memory_mib": psutil.Process().memory_info().rss / MIB}
    if device.type == "cuda":
        used["gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / MIB
    return used


def write_log(accelerator: Accelerator, logs: dict[str, float], output_dir: Path) -> None:
    """Appends a line to `log.jsonl`, and hands the values to the tracker."""
    if accelerator.is_main_process:
        with open(output_dir / LOG_FILE, "a") as log:
            log.write(json.dumps(logs) + "\n")
    accelerator.log({name: value for name, value in logs.items() if name != "step"}, step=logs["step"])


def drop_log_after(step: int, output_dir: Path) -> None:
    """Removes the lines that a resumed run will write again, and one that was torn."""
    log = output_dir / LOG_FILE
    if log.is_file():
        whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        write_text_whole(log, "".join(line for line in whole if json.loads(line)["step"] <= step))


def write_picture(
    accelerator: Accelerator,
    model: ImageGenerator,
    draw: Callable[[ImageGenerator], Image.Image],
    path: Path,
    step: int,
) -> None:
    """Writes what `draw` makes of the model after `step` updates to `path`, and hands it to the trackers under the
    name of its folder. The model is left in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    grid = draw(model)
    for module, was_training in modes.items():
        module.training = was_training
    path.parent.mkdir(exist_ok=True)
    unfinished = path.parent.with_name(f".writing-{path.name}")  # the Space shows previews while a run goes on
    grid.save(unfinished)
    unfinished.replace(path)
    track_picture(accelerator, path.parent.name, grid, step)


def write_facts(
    accelerator: Accelerator,
    progress: Progress,
    seconds: float,
    prior: dict[str, Any] | None,
    pictures: dict[str, int],
    output_dir: Path,
) -> None:
    """Writes `training.json`: what a card says about how the model came about, beyond its configuration.

    Args:
        accelerator: Of the run.
        progress: Its updates, images and launches.
        seconds: How long its networks were trained, in all launches together.
        prior: Updates, seconds and machine of a prior that was learned; None for one that was not.
        pictures: How many were found, dropped, trained on and held out.
        output_dir: The run folder.
    """
    facts = {
        "steps": progress.step,
        "images_seen": progress.images,
        "seconds": round(seconds),
        "device": device_name(accelerator.device),
        "num_processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "prior": prior,
        "launches": progress.launches,
        "pictures": pictures,
        "versions": {name: version(name) for name in ("torch", "diffusers", "accelerate")},
    }
    write_text_whole(output_dir / "training.json", json.dumps(facts, indent=2) + "\n")


def device_name(device: torch.device) -> str:
    """What a run computed on, as a card says it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    return device.type
