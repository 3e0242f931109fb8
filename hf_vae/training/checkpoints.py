"""Checkpoints: the whole state of a run, and how a whole one is told from a torn or foreign one."""

import hashlib
import json
import pickle
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.utils import CONFIG_NAME
from safetensors.torch import load_file, save_file
from torch import nn

from ..atomic import flush_to_disk, write_whole
from ..config import ONE_LAUNCH, differences
from ..models import FITTED_PARTS
from ..models.formats import FORMAT_VERSION


PREFIX = "checkpoint-"
PRIOR_CHECKPOINT = "prior-checkpoint.pt"
PRIOR_SAVE_SECONDS = 120.0  # between two times that it is written
UNFINISHED = ".writing-"
MANIFEST = "manifest.json"
AVERAGED = "averaged.safetensors"
FITTED = tuple(f"{part}." for part in FITTED_PARTS)
# Settings that no weight follows from, or that hold a path of the author's machine.
NOT_OF_A_LAUNCH = ONE_LAUNCH | {"output_dir", "pretrained_model_name_or_path", "report_to", "checkpoints_total_limit"}


@dataclass
class Progress:
    """How far a run is: weight updates, batches (several to an update when accumulating), images on all ranks; for
    early stopping, the lowest validation loss and the epochs since; and the launches that it came about by, each with
    the update that it went on from, where it ran and the settings that it changed."""

    step: int = 0
    batches: int = 0
    images: int = 0
    lowest_validation_loss: float | None = None
    epochs_since: int = 0
    launches: list[dict[str, Any]] = field(default_factory=list)


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
        ValueError: If the folder named is no whole checkpoint of this run, or there are some and none is, or the run
            is finished and kept none.
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
    if (output_dir / CONFIG_NAME).is_file() and any(output_dir.glob("*.safetensors")):
        raise ValueError(
            f"{output_dir} holds a finished model and no checkpoint to resume from, and training from the beginning "
            "would replace it; choose another --output_dir."
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
            for path in files:
                shutil.copymode(unfinished / MANIFEST, path)  # safetensors writes what its owner alone may read
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
        raise _not_written(finished, error) from error
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


def changed_settings(checkpoint: Path, run: dict[str, Any]) -> list[str]:
    """The settings, as `section.field: before -> now`, in which the configuration `run` differs from the one that
    `checkpoint` was written by, of those that a resumed run may change."""
    before = json.loads((checkpoint / MANIFEST).read_text())["run"]
    found = []
    for section in ("model", "train"):
        for name in sorted((before[section].keys() | run[section].keys()) - NOT_OF_A_LAUNCH):
            old, new = before[section].get(name), run[section].get(name)
            if json.dumps(old) != json.dumps(new):
                found.append(f"{section}.{name}: {old} -> {new}")
    return found


class PriorCheckpoint:
    """What a run resumes from that was ended while the flow of its prior was learned: a file in the run folder, which
    is written every two minutes and removed once the model is published.

    Args:
        output_dir: The run folder.
        model: The model whose networks are trained. What was kept for other networks is not used.
        num_steps: Updates of the flow in all.
        seed: Of the flow.
    """

    def __init__(self, output_dir: Path, model: nn.Module, num_steps: int, seed: int):
        self.path = output_dir / PRIOR_CHECKPOINT
        self._belongs_to = {"networks": _weights_digest(model), "prior_steps": num_steps, "seed": seed}
        self._belongs_to |= {"format_version": FORMAT_VERSION}  # another version may learn another prior
        self._since = self._saved = time.perf_counter()
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """How long the prior has taken, in all launches together."""
        return self._seconds_before + time.perf_counter() - self._since

    def load(self, warn: Callable[[str], None] = print) -> dict[str, Any] | None:
        """The state that was kept; None if there is none, or, with a warning, if it cannot be used."""
        if not self.path.is_file():
            return None
        try:
            with zipfile.ZipFile(self.path) as archive:
                torn = archive.testzip()  # torch reads what was altered without a word
            content = None if torn else torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile):
            content = None
        if not isinstance(content, dict) or content.keys() != {"belongs_to", "seconds", "state"}:
            warn(f"Passed over {self.path}: it is not as it was written. The prior is learned from its beginning.")
            return None
        if content["belongs_to"] != self._belongs_to:
            changed = [name for name, value in self._belongs_to.items() if content["belongs_to"].get(name) != value]
            warn(
                f"Passed over {self.path}: it belongs to another prior ({', '.join(changed)} changed). The prior is "
                "learned from its beginning."
            )
            return None
        self._seconds_before = content["seconds"]
        return content["state"]

    def is_due(self) -> bool:
        """Whether two minutes have passed since it was written."""
        return time.perf_counter() - self._saved >= PRIOR_SAVE_SECONDS

    def save(self, state: dict[str, Any]) -> None:
        """Writes a state that `torch.load(weights_only=True)` can read.

        Raises:
            OSError: If it cannot be written. What was there before stays.
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
    """What to raise for a checkpoint that could not be written."""
    whole = ", ".join(checkpoint.name for checkpoint in list_checkpoints(path.parent)) or "none"
    free = shutil.disk_usage(path.parent).free / 2**20
    return OSError(
        f"{path} could not be written: {error}. {free:,.0f} MiB are free there. Earlier checkpoints, which "
        f"stay: {whole}. Make room, then --resume_from_checkpoint latest."
    )


def _weights_digest(model: nn.Module) -> str:
    """The digest of a model's networks, without what is fitted to them."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith(FITTED):
            digest.update(name.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _remove_unfinished(output_dir: Path) -> None:
    for leftover in output_dir.glob(f"{UNFINISHED}{PREFIX}*"):
        shutil.rmtree(leftover)
    shutil.rmtree(output_dir / f"{UNFINISHED}old", ignore_errors=True)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
