"""What a run says about itself: averages on the way in `log.jsonl`, and the facts of a finished one in
`training.json`."""

import json
import math
import time
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import Accelerator

from .objectives import Logs


LOG_FILE = "log.jsonl"


class Meter:
    """Averages what the steps log, on the device, and measures speed, between two readings. `images_per_step`
    counts all ranks; `first_step` and `seconds_before` are where the run was when it was resumed."""

    def __init__(self, accelerator: Accelerator, images_per_step: int, first_step: int, seconds_before: float):
        self._accelerator = accelerator
        self._images_per_step = images_per_step
        self._sums: Logs = {}
        self._count = 0
        self._last_step = first_step
        self._since = time.perf_counter()
        self._start = self._since - seconds_before

    def add(self, logs: Logs) -> None:
        """Adds one batch's scalars, without waiting for the device."""
        for name, value in logs.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._count += 1

    def read(self, step: int) -> dict[str, float]:
        """The averages over all batches and ranks since the last reading, and the speed since then; starts anew."""
        means = self._accelerator.reduce({name: value / self._count for name, value in self._sums.items()}, "mean")
        logs = {"step": step} | {name: value.item() for name, value in means.items()}
        now = time.perf_counter()
        logs["seconds"] = now - self._start
        logs["images_per_second"] = (step - self._last_step) * self._images_per_step / (now - self._since)
        self._sums, self._count, self._last_step, self._since = {}, 0, step, now
        return logs


def write_log(accelerator: Accelerator, logs: dict[str, float], output_dir: Path) -> None:
    """Appends a line to `log.jsonl`, and hands the values to the tracker."""
    if accelerator.is_main_process:
        with open(output_dir / LOG_FILE, "a") as log:
            log.write(json.dumps(logs) + "\n")
    accelerator.log({name: value for name, value in logs.items() if name != "step"}, step=logs["step"])


def refuse_non_finite(logs: dict[str, float], output_dir: Path) -> None:
    """Stops a run whose losses have become infinite or not a number.

    Raises:
        ValueError: Names which, and by which step.
    """
    if bad := [name for name, value in logs.items() if not math.isfinite(value)]:
        raise ValueError(
            f"{', '.join(bad)} is not finite by step {logs['step']}. The checkpoints in {output_dir} are older; "
            "resume from one with a lower --learning_rate."
        )


def drop_log_after(step: int, output_dir: Path) -> float:
    """Removes the lines that a resumed run will write again, and returns the seconds that the lines kept took."""
    log = output_dir / LOG_FILE
    if not log.is_file():
        return 0.0
    kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
    log.write_text("".join(f"{line}\n" for line in kept))
    return json.loads(kept[-1])["seconds"] if kept else 0.0


def write_facts(accelerator: Accelerator, images_per_step: int, pictures: dict[str, int], output_dir: Path) -> None:
    """Writes `training.json`: what a card says about how the model came about, beyond its configuration."""
    last = json.loads((output_dir / LOG_FILE).read_text().splitlines()[-1])
    facts = {
        "steps": last["step"],
        "images_seen": last["step"] * images_per_step,
        "seconds": round(last["seconds"]),
        "device": _device_name(accelerator.device),
        "num_processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "pictures": pictures,
        "versions": {name: version(name) for name in ("torch", "diffusers", "accelerate")},
    }
    (output_dir / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    return device.type
