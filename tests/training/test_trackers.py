"""Trackers get losses and previews; none is imported unless it is asked for."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from apart import run_apart
from conftest import reset_accelerate, tiny_run

from hf_vae.training import trackers
from hf_vae.training.loop import train


def train_and_list(pictures: Path, output: Path, report_to: str) -> None:
    """Trains a tiny model, and prints which trackers were imported."""
    train(tiny_run("vae", pictures, output / "my-run", report_to=report_to))
    print("IMPORTED", json.dumps([name for name in ("tensorboard", "trackio", "wandb") if name in sys.modules]))


def train_apart(folder: Path, output: Path, report_to: str, **environment: str) -> list[str]:
    """Trains a tiny model in a process of its own, and tells which trackers were imported there."""
    done = run_apart(train_and_list, folder, output, report_to, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.split("IMPORTED ")[1].splitlines()[0])


def print_what_trackio_has() -> None:
    from trackio.sqlite_storage import SQLiteStorage

    print(json.dumps([SQLiteStorage.get_runs("hf_vae"), SQLiteStorage.get_logs("hf_vae", "my-run")], default=str))


def test_no_tracker_is_imported_unless_asked_for(picture_folder, tmp_path):
    assert train_apart(picture_folder, tmp_path, "none") == []


@pytest.mark.skipif(not find_spec("trackio"), reason="trackio is not installed")
def test_trackio_gets_losses_and_previews(picture_folder, tmp_path):
    storage = tmp_path / "trackio"
    assert train_apart(picture_folder, tmp_path, "trackio", TRACKIO_DIR=str(storage)) == ["trackio"]
    printed = run_apart(print_what_trackio_has, TRACKIO_DIR=str(storage)).stdout
    runs, logs = json.loads(printed.splitlines()[-1])
    assert runs == ["my-run"]
    assert [entry["step"] for entry in logs if "loss" in entry] == [2, 4, 6]
    assert [entry["step"] for entry in logs if "previews" in entry] == [3, 6]
    assert len(list(storage.rglob("*.png"))) == 2


@pytest.mark.skipif(not find_spec("wandb"), reason="wandb is not installed: pip install wandb runs this test")
def test_wandb_gets_losses_and_previews(picture_folder, tmp_path):
    imported = train_apart(picture_folder, tmp_path, "wandb", WANDB_MODE="offline", WANDB_SILENT="true")
    assert imported == ["wandb"]
    run = next((tmp_path / "my-run").glob("wandb/offline-run-*"))
    assert list(run.glob("*.wandb"))
    assert len(list(run.glob("files/media/images/*.png"))) == 2


@pytest.mark.parametrize(
    ("report_to", "installed", "expected"),
    [
        ("none", {"tensorboard"}, []),
        ("trackio", {"tensorboard", "trackio"}, ["trackio"]),
        ("all", {"tensorboard", "wandb"}, ["tensorboard", "wandb"]),
    ],
)
def test_what_is_asked_for_is_used(report_to, installed, expected, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: name in installed)
    assert trackers.tracker_names(report_to) == expected


@pytest.mark.parametrize("report_to", ["wandb", "all"])
def test_a_missing_tracker_is_named_before_training_starts(report_to, picture_folder, monkeypatch, tmp_path):
    installed = {"tensorboard"} if report_to == "wandb" else set()
    monkeypatch.setattr(trackers, "find_spec", lambda name: name in installed)
    with pytest.raises(ValueError, match=f"report_to={report_to} needs a package that is not installed: pip install"):
        train(tiny_run("vae", picture_folder, tmp_path / "run", report_to=report_to))
    reset_accelerate()
    assert not (tmp_path / "run").exists()
