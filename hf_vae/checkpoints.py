"""Checkpoints: the whole state of a run, and how a whole one is told from a torn or foreign one."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from .config import differences
from .files import flush_to_disk


PREFIX = "checkpoint-"
UNFINISHED = ".writing-"
MANIFEST = "manifest.json"
AVERAGED = "averaged.safetensors"


@dataclass
class Progress:
    """How far a run is: weight updates, batches (several to an update when accumulating), images on all ranks; and,
    for early stopping, the lowest validation loss and the epochs since."""

    step: int = 0
    batches: int = 0
    images: int = 0
    lowest_validation_loss: float | None = None
    epochs_since: int = 0


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The folders in `output_dir` that are named as checkpoints are, oldest first."""
    found = [path for path in output_dir.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(checkpoint: Path) -> int:
    """The number of updates that a checkpoint was written after."""
    return int(checkpoint.name.removeprefix(PREFIX))


def find_checkpoint(
    wanted: str, output_dir: Path, run: dict[str, Any], warn: Callable[[str], None] = print
) -> Path | None:
    """The checkpoint to resume the configuration `run` from: for "latest" the newest whole one (None if there is none
    at all), with a warning for each that is passed over; else the folder named.

    Raises:
        ValueError: If the folder named is no whole checkpoint of this run, or there are some and none is.
    """
    present = list_checkpoints(output_dir)
    if wanted != "latest":
        path = next((path for path in (Path(wanted), output_dir / wanted) if path in present or path.is_dir()), None)
        if path is None or not path.name.removeprefix(PREFIX).isdigit():
            available = ", ".join(path.name for path in present) or "none"
            raise ValueError(f"resume_from_checkpoint={wanted} is no checkpoint folder. In {output_dir}: {available}.")
        if found := defect(path, run):
            raise ValueError(f"resume_from_checkpoint={wanted} cannot be used: {found}.")
        return path
    for path in reversed(present):
        found = defect(path, run)
        if not found:
            return path
        warn(f"Passed over {path}: {found}.")
    if present:
        raise ValueError(
            f"None of the {len(present)} checkpoints in {output_dir} can be used; move them away to start from the "
            f"beginning. Of the newest, {present[-1].name}: {defect(present[-1], run)}."
        )
    return None


def defect(checkpoint: Path, run: dict[str, Any]) -> str | None:
    """What is wrong with a checkpoint: that it is not ours, belongs to another run than the configuration `run`, or is
    not as it was written; None for a whole one."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        changed, files = differences(run, manifest["run"]), manifest["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"it has no readable {MANIFEST}, so it was not written by this package or not to its end"
    if changed:
        return f"it belongs to another run ({'; '.join(changed)})"
    for name, digest in files.items():
        if not (checkpoint / name).is_file():
            return f"its file {name} is missing"
        if _digest(checkpoint / name) != digest:
            return f"its file {name} is not as it was written"
    return None


def save_checkpoint(
    accelerator: Accelerator,
    output_dir: Path,
    run: dict[str, Any],
    progress: Progress,
    meter: dict[str, Any],
    averaged: nn.Module | None,
    total_limit: int | None,
) -> None:
    """Writes `checkpoint-{step}` with the state of every rank, under a temporary name until it is safely on disk; then
    deletes the oldest ones beyond `total_limit`. Called on all ranks.

    Raises:
        OSError: If it cannot be written. What was there before stays.
    """
    unfinished = output_dir / f"{UNFINISHED}{PREFIX}{progress.step}"
    finished = output_dir / f"{PREFIX}{progress.step}"
    if accelerator.is_main_process:
        _remove_unfinished(output_dir)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(unfinished))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            if averaged:
                state = {name: value.contiguous() for name, value in averaged.state_dict().items()}
                save_file(state, unfinished / AVERAGED)  # which takes no other memory layout
            files = [path for path in sorted(unfinished.rglob("*")) if path.is_file()]
            digests = {str(path.relative_to(unfinished)): _digest(path) for path in files}
            manifest = {"progress": asdict(progress), "meter": meter, "run": run, "files": digests}
            (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2))
            for path in (*unfinished.rglob("*"), unfinished):
                flush_to_disk(path)
            if finished.exists():  # the same step of a run that was resumed from before it
                finished.rename(output_dir / f"{UNFINISHED}old")
            unfinished.rename(finished)
            flush_to_disk(output_dir)
            _remove_unfinished(output_dir)
            for old in list_checkpoints(output_dir)[: -total_limit if total_limit else 0]:
                shutil.rmtree(old)
    except Exception as error:  # a full disk is an OSError, a RuntimeError or a SafetensorError, by who was writing
        if accelerator.is_main_process:
            _remove_unfinished(output_dir)
        whole = ", ".join(path.name for path in list_checkpoints(output_dir)) or "none"
        free = shutil.disk_usage(output_dir).free / 2**20
        raise OSError(
            f"{finished} could not be written: {error}. {free:,.0f} MiB are free there. Earlier checkpoints, which "
            f"stay: {whole}. Make room, then --resume_from_checkpoint latest."
        ) from error
    accelerator.wait_for_everyone()


def load_checkpoint(
    accelerator: Accelerator, checkpoint: Path, averaged: nn.Module | None
) -> tuple[Progress, dict[str, Any]]:
    """Loads what `save_checkpoint` wrote into the networks and optimizers that `accelerator` prepared and into
    `averaged`; returns how far the run was, and the state of its meter.

    Raises:
        ValueError: If a running average is wanted that the run did not keep until then.
    """
    accelerator.load_state(str(checkpoint))
    if averaged:
        if not (checkpoint / AVERAGED).is_file():
            raise ValueError(f"{checkpoint} holds no running average: resume with --no_use_ema, as it was trained.")
        averaged.load_state_dict(load_file(checkpoint / AVERAGED))
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    return Progress(**manifest["progress"]), manifest["meter"]


def _remove_unfinished(output_dir: Path) -> None:
    for leftover in output_dir.glob(f"{UNFINISHED}{PREFIX}*"):
        shutil.rmtree(leftover)
    shutil.rmtree(output_dir / f"{UNFINISHED}old", ignore_errors=True)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
