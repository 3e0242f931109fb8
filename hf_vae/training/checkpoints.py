"""Checkpoints: the complete state of a run, and how to tell a complete one from a damaged or foreign one."""

import hashlib
import json
import pickle
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from ..atomic import flush_to_disk, write_whole
from ..config import ONE_LAUNCH, differences
from ..flags import with_defaults
from ..models import FITTED_PARTS
from ..models.formats import FORMAT_VERSION
from ..run_folder import (
    AVERAGED,
    CHECKPOINT_PREFIX,
    MANIFEST,
    MODEL_CONFIG_FILE,
    PRIOR_CHECKPOINT,
    UNFINISHED,
)
from .state import Progress


PRIOR_SAVE_SECONDS = 120.0  # between two checkpoints of the prior
FITTED = tuple(f"{part}." for part in FITTED_PARTS)
# settings that do not change the weights, or that hold a path of the author's machine
NOT_OF_A_LAUNCH = ONE_LAUNCH | {"output_dir", "pretrained_model_name_or_path", "report_to", "checkpoints_total_limit"}


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The folders in `output_dir` that have the name of a checkpoint, oldest first."""
    named = output_dir.glob(f"{CHECKPOINT_PREFIX}*")
    found = [path for path in named if path.name.removeprefix(CHECKPOINT_PREFIX).isdigit()]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(checkpoint: Path) -> int:
    """The number of updates after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(CHECKPOINT_PREFIX))


def find_checkpoint(
    wanted: str, output_dir: Path, run: dict[str, Any], warn: Callable[[str], None] = print
) -> Path | None:
    """Finds the checkpoint to resume from.

    Args:
        wanted: A checkpoint folder, its name in `output_dir`, or "latest" for the newest complete one.
        output_dir: The run folder.
        run: The configuration, which the checkpoint must belong to.
        warn: Gets a line for each checkpoint that is skipped.

    Returns:
        The folder; None for "latest" if there is no checkpoint at all.

    Raises:
        ValueError: If the folder is not a complete checkpoint of this run, if there are checkpoints and all are
            unusable, or if the run is finished and kept no checkpoint.
    """
    present = list_checkpoints(output_dir)
    if wanted != "latest":
        path = next((path for path in (Path(wanted), output_dir / wanted) if path in present or path.is_dir()), None)
        if path is None or not path.name.removeprefix(CHECKPOINT_PREFIX).isdigit():
            available = ", ".join(path.name for path in present) or "none"
            raise ValueError(
                f"resume_from_checkpoint={wanted} is not a checkpoint folder. "
                f"Checkpoints in {output_dir}: {available}."
            )
        if found := find_defect(path, run):
            raise ValueError(f"resume_from_checkpoint={wanted} cannot be used: {found}.")
        return path
    for path in reversed(present):
        found = find_defect(path, run)
        if not found:
            return path
        warn(f"Skipped {path}: {found}.")
    if present:
        raise ValueError(
            f"None of the {len(present)} checkpoints in {output_dir} can be used. The newest, {present[-1].name}: "
            f"{find_defect(present[-1], run)}. Move the checkpoints away to start from the beginning."
        )
    if (output_dir / MODEL_CONFIG_FILE).is_file() and any(output_dir.glob("*.safetensors")):
        raise ValueError(
            f"{output_dir} holds a finished model and no checkpoint to resume from. Training from the beginning would "
            "replace the model; choose another --output_dir."
        )
    return None


def find_defect(checkpoint: Path, run: dict[str, Any]) -> str | None:
    """What is wrong with a checkpoint: it was not written by this package, it belongs to another run than the
    configuration `run`, or a file is missing or has changed. None if nothing is wrong."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        changed = differences(with_defaults(run), with_defaults(manifest["run"]))
        files = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"it has no readable {MANIFEST}, so it is incomplete or was not written by this package"
    if changed:
        return f"it belongs to another run ({'; '.join(changed)})"
    for name, digest in files.items():
        if not (checkpoint / name).is_file():
            return f"its file {name} is missing"
        if _digest(checkpoint / name) != digest:
            return f"its file {name} has changed since it was written"
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
    """Writes `checkpoint-{step}` with the state of every rank, under a temporary name until it is complete on the
    disk. Then deletes the oldest checkpoints beyond `total_limit`. All ranks must call it.

    Raises:
        OSError: If it cannot be written. Earlier checkpoints stay.
    """
    unfinished = output_dir / f"{UNFINISHED}{CHECKPOINT_PREFIX}{progress.step}"
    finished = output_dir / f"{CHECKPOINT_PREFIX}{progress.step}"
    if accelerator.is_main_process:
        _remove_unfinished(output_dir)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(unfinished))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            if averaged:
                state = {name: value.contiguous() for name, value in averaged.state_dict().items()}
                save_file(state, unfinished / AVERAGED)  # safetensors takes no other memory layout
            files = [path for path in sorted(unfinished.rglob("*")) if path.is_file()]
            digests = {str(path.relative_to(unfinished)): _digest(path) for path in files}
            manifest = {"progress": asdict(progress), "meter": meter, "run": run, "files": digests}
            (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2))
            for path in files:
                shutil.copymode(unfinished / MANIFEST, path)  # safetensors lets only the owner read its files
            for path in (*unfinished.rglob("*"), unfinished):
                flush_to_disk(path)
            if finished.exists():  # of the same step, from before the run was resumed
                finished.rename(output_dir / f"{UNFINISHED}old")
            unfinished.rename(finished)
            flush_to_disk(output_dir)
            _remove_unfinished(output_dir)
            for old in list_checkpoints(output_dir)[: -total_limit if total_limit else 0]:
                shutil.rmtree(old)
    except Exception as error:  # for a full disk an OSError, RuntimeError or SafetensorError, by the writer
        if accelerator.is_main_process:
            _remove_unfinished(output_dir)
        raise _not_written(finished, error) from error
    accelerator.wait_for_everyone()


def load_checkpoint(
    accelerator: Accelerator, checkpoint: Path, averaged: nn.Module | None
) -> tuple[Progress, dict[str, Any]]:
    """Loads a checkpoint into the networks and optimizers that `accelerator` prepared, and into `averaged`. Returns
    the progress of the run and the state of its meter.

    Raises:
        ValueError: If `averaged` is given and the checkpoint has no running average.
    """
    accelerator.load_state(str(checkpoint))
    if averaged:
        if not (checkpoint / AVERAGED).is_file():
            raise ValueError(f"{checkpoint} has no running average; resume with --no_use_ema, as the run was trained.")
        averaged.load_state_dict(load_file(checkpoint / AVERAGED))
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    return Progress(**manifest["progress"]), manifest["meter"]


def changed_settings(checkpoint: Path, run: dict[str, Any]) -> list[str]:
    """The settings that a resumed run changed, as `section.field: before -> now`: the differences between the
    configuration in `checkpoint` and `run`."""
    before, run = (with_defaults(each) for each in (json.loads((checkpoint / MANIFEST).read_text())["run"], run))
    found = []
    for section in ("model", "train"):
        for name in sorted((before[section].keys() | run[section].keys()) - NOT_OF_A_LAUNCH):
            old, new = before[section].get(name), run[section].get(name)
            if json.dumps(old) != json.dumps(new):
                found.append(f"{section}.{name}: {old} -> {new}")
    return found


class PriorCheckpoint:
    """The checkpoint of a run whose prior is being trained: a file in the run folder, written every two minutes and
    removed when the model is published.

    Args:
        output_dir: The run folder.
        model: The model whose networks are trained. A checkpoint that belongs to other networks is not used.
        num_steps: Total updates of the prior.
        seed: Seed of the prior.
        settings: How the prior learns.
    """

    def __init__(
        self,
        output_dir: Path,
        model: nn.Module,
        num_steps: int,
        seed: int,
        settings: dict[str, float] | None = None,
    ):
        self.path = output_dir / PRIOR_CHECKPOINT
        self._belongs_to = {"networks": _weights_digest(model), "prior_steps": num_steps, "seed": seed}
        self._belongs_to |= {"settings": settings or {}}
        self._belongs_to |= {"format_version": FORMAT_VERSION}  # another version may learn another prior
        self._since = self._saved = time.perf_counter()
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Seconds that training the prior has taken, over all launches."""
        return self._seconds_before + time.perf_counter() - self._since

    def load(self, warn: Callable[[str], None] = print) -> dict[str, Any] | None:
        """The saved state. None if there is none, or if it cannot be used, which `warn` gets a line about."""
        if not self.path.is_file():
            return None
        try:
            with zipfile.ZipFile(self.path) as archive:
                torn = archive.testzip()  # torch reads an altered file without an error
            content = None if torn else torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile):
            content = None
        if not isinstance(content, dict) or content.keys() != {"belongs_to", "seconds", "state"}:
            warn(f"Skipped {self.path}: it is damaged. The prior is trained from the beginning.")
            return None
        if content["belongs_to"] != self._belongs_to:
            changed = [name for name, value in self._belongs_to.items() if content["belongs_to"].get(name) != value]
            warn(
                f"Skipped {self.path}: it belongs to another prior ({', '.join(changed)} changed). The prior is "
                "trained from the beginning."
            )
            return None
        self._seconds_before = content["seconds"]
        return content["state"]

    def is_due(self) -> bool:
        """Whether two minutes have passed since the last save."""
        return time.perf_counter() - self._saved >= PRIOR_SAVE_SECONDS

    def save(self, state: dict[str, Any]) -> None:
        """Writes a state that `torch.load(weights_only=True)` can read.

        Raises:
            OSError: If it cannot be written. The previous file stays.
        """
        content = {"belongs_to": self._belongs_to, "seconds": self.seconds, "state": state}
        try:
            write_whole(self.path, lambda unfinished: torch.save(content, unfinished))
        except (OSError, RuntimeError) as error:  # torch raises the latter for a full disk
            raise _not_written(self.path, error) from error
        self._saved = time.perf_counter()

    def remove(self) -> None:
        """Removes the file, if there is one."""
        self.path.unlink(missing_ok=True)


def _not_written(path: Path, error: Exception) -> OSError:
    """The error for a checkpoint that could not be written."""
    whole = ", ".join(checkpoint.name for checkpoint in list_checkpoints(path.parent)) or "none"
    free = shutil.disk_usage(path.parent).free / 2**20
    return OSError(
        f"{path} could not be written: {error}. {free:,.0f} MiB are free there. Earlier checkpoints that are kept: "
        f"{whole}. Free some space, then resume with --resume_from_checkpoint latest."
    )


def _weights_digest(model: nn.Module) -> str:
    """The digest of a model's networks, without the parts that are fitted to them."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith(FITTED):
            digest.update(name.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _remove_unfinished(output_dir: Path) -> None:
    for leftover in output_dir.glob(f"{UNFINISHED}{CHECKPOINT_PREFIX}*"):
        shutil.rmtree(leftover)
    shutil.rmtree(output_dir / f"{UNFINISHED}old", ignore_errors=True)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
