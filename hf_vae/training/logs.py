"""The records of a run: averages and images during training, in `log.jsonl`, `previews/` and the trackers, and the
facts about a finished run in `training.json`."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from PIL import Image

from ..atomic import write_text_whole
from ..hardware import device_name, peak_memory
from ..models import ImageGenerator
from ..objectives import Logs
from ..run_folder import FACTS_FILE, LOG_FILE, UNFINISHED, write_json
from .length import Length
from .state import Progress
from .trackers import track_picture


MIB = 2**20


class Meter:
    """Collects what the steps log, on the device, until it is read, and measures the speed between two readings.

    Args:
        accelerator: The run's accelerator.
        progress: The progress of the run, from which images are counted.
        state: The `state()` of an earlier launch.
        now: Gives the time in seconds, from any origin.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        progress: Progress,
        state: dict[str, Any] | None = None,
        now: Callable[[], float] = time.perf_counter,
    ):
        self._accelerator = accelerator
        self._waiting: list[tuple[int, Logs]] = []  # values that are still on the device, with their step
        self._settled: list[tuple[int, dict[str, float]]] = (
            [tuple(entry) for entry in state["values"]] if state else []
        )
        self._now = now
        self._start = now() - (state["seconds"] if state else 0.0)
        self._restart(progress)

    def add(self, step: int, logs: Logs) -> None:
        """Adds the scalars of one batch, without waiting for the device."""
        self._waiting.append((step, logs))

    def settle(self) -> None:
        """Fetches the values that are still on the device, averaged over all ranks. All ranks must call it.

        Raises:
            ValueError: If a value is infinite or not a number. It names the first such step and its values.
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
                    f"At step {step}, {' and '.join(bad)}. Nothing was saved since. Resume from the last checkpoint, "
                    "or from an earlier one, with a lower --learning_rate."
                )
        self._settled += settled

    def _is_sound(self, name: str, value: float) -> bool:
        overflow_is_expected = self._accelerator.mixed_precision == "fp16" and name.startswith("grad_norm")
        return math.isfinite(value) or overflow_is_expected  # the gradient scaler skips such an update

    def read(self, progress: Progress) -> dict[str, float]:
        """The averages and the speed since the last reading, and the memory in use. All ranks must call it.

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
        logs["images_per_second"] = (progress.images - self._images) / (self._now() - self._since)
        logs |= memory_in_use(self._accelerator.device)
        self._settled = []
        self._restart(progress)
        return logs

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that the log continues as without an interruption. Call `settle` before."""
        return {"values": self._settled, "seconds": self.seconds}

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken, over all launches."""
        return self._now() - self._start

    def _restart(self, progress: Progress) -> None:
        self._since, self._images = self._now(), progress.images


def memory_in_use(device: torch.device) -> dict[str, float]:
    """Memory of this process in MiB: resident memory and, where `peak_memory` has it, the highest allocation so far on
    the GPU."""
    used = {"memory_mib": psutil.Process().memory_info().rss / MIB}
    if (peak := peak_memory(device)) is not None:
        used["gpu_memory_mib"] = peak / MIB
    return used


def write_log(accelerator: Accelerator, logs: dict[str, float], output_dir: Path) -> None:
    """Appends a line to `log.jsonl` and logs its values to the trackers."""
    if accelerator.is_main_process:
        with open(output_dir / LOG_FILE, "a") as log:
            log.write(json.dumps(logs) + "\n")
    accelerator.log({name: value for name, value in logs.items() if name != "step"}, step=logs["step"])


def drop_log_after(step: int, output_dir: Path) -> None:
    """Removes the lines that a resumed run will write again, and an incomplete last line."""
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
    """Writes an image of the model, and logs it to the trackers under the name of its folder.

    Args:
        accelerator: The run's accelerator.
        model: The model. The training mode of each module is restored.
        draw: Returns the image.
        path: Where to write it.
        step: Number of updates.
    """
    modes = {module: module.training for module in model.modules()}
    grid = draw(model)
    for module, was_training in modes.items():
        module.training = was_training
    save_whole(grid, path)
    track_picture(accelerator, path.parent.name, grid, step)


def save_whole(picture: Image.Image, path: Path) -> None:
    """Writes an image whole or not at all: the Space shows previews during a run."""
    path.parent.mkdir(exist_ok=True)
    unfinished = path.parent.with_name(f"{UNFINISHED}{path.name}")
    picture.save(unfinished)
    unfinished.replace(path)


def write_facts(
    accelerator: Accelerator,
    progress: Progress,
    seconds: float,
    prior: dict[str, Any] | None,
    pictures: dict[str, int],
    output_dir: Path,
    length: Length | None = None,
) -> None:
    """Writes `training.json`: what a card says about the training, beyond its configuration.

    Args:
        accelerator: The run's accelerator.
        progress: Its updates, images and launches.
        seconds: Time that training the networks took, over all launches.
        prior: Updates, seconds and device of a prior that was trained; None for other priors.
        pictures: Number of images that were found, dropped, trained on and held out.
        output_dir: The run folder.
        length: What was fixed for a run by the clock.
    """
    facts: dict[str, Any] = {
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
    if length is not None:
        facts["clock"] = asdict(length)
    write_json(output_dir, FACTS_FILE, facts)
