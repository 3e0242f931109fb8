"""Checkpoints: the whole state of a run, written so that a name that exists is a checkpoint that is whole."""

import os
import shutil
from pathlib import Path

from accelerate import Accelerator


PREFIX = "checkpoint-"
UNFINISHED = ".writing-"


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [path for path in output_dir.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(checkpoint: Path) -> int:
    """The number of updates that a checkpoint was written after."""
    return int(checkpoint.name.removeprefix(PREFIX))


def find_checkpoint(wanted: str, output_dir: Path) -> Path | None:
    """The checkpoint to resume from: the newest for "latest" (None if there is none yet), else the folder named.

    Raises:
        ValueError: If the folder named is no checkpoint.
    """
    if wanted == "latest":
        return next(reversed(list_checkpoints(output_dir)), None)
    for path in (Path(wanted), output_dir / wanted):
        if path.is_dir() and path.name.removeprefix(PREFIX).isdigit():
            return path
    available = ", ".join(path.name for path in list_checkpoints(output_dir)) or "none"
    raise ValueError(f"resume_from_checkpoint={wanted} is no checkpoint folder. In {output_dir}: {available}.")


def save_checkpoint(accelerator: Accelerator, output_dir: Path, step: int, total_limit: int | None) -> None:
    """Writes `checkpoint-{step}` with the state of every rank, under a temporary name until it is safely on disk; then
    deletes the oldest ones beyond `total_limit`. Called on all ranks."""
    unfinished, finished = output_dir / f"{UNFINISHED}{PREFIX}{step}", output_dir / f"{PREFIX}{step}"
    if accelerator.is_main_process:
        for leftover in output_dir.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover)
        shutil.rmtree(finished, ignore_errors=True)  # the same step of a run that was resumed from before it
    accelerator.wait_for_everyone()
    accelerator.save_state(str(unfinished))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for path in (*unfinished.rglob("*"), unfinished):
            _flush_to_disk(path)
        unfinished.rename(finished)
        _flush_to_disk(output_dir)
        for old in list_checkpoints(output_dir)[: -total_limit if total_limit else 0]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def _flush_to_disk(path: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
