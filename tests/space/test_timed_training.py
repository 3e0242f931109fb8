"""Runs of the Space on a machine that gets busier meanwhile. Time is that of a clock of the test."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import tiny_run

from hf_vae.models.priors.code import CodeTraining
from hf_vae.training import loop
from hf_vae.training.length import Afterwards, Clock
from timed_training import finish_in_time


UPDATE, PRIOR_UPDATE, AFTER = 0.4, 0.2, 10.0  # seconds, on a machine that is not busy


class Machine:
    """A machine with a clock, and what it has done on it. `slower` is how much longer the update of that number and
    all later ones take."""

    def __init__(self) -> None:
        self.seconds, self.updates, self.prior_updates = 0.0, 0, 0
        self.slower: Callable[[int], float] = lambda number: 1.0
        self.clock = Clock(0.0, lambda: self.seconds)

    def work(self, seconds: float) -> None:
        self.seconds += seconds * self.slower(self.updates)


@pytest.fixture
def machine(monkeypatch) -> Machine:
    machine, update, prior_update = Machine(), loop.update, CodeTraining.update

    def timed_update(*arguments):
        machine.updates += 1
        machine.work(UPDATE)
        return update(*arguments)

    def timed_prior_update(training: CodeTraining) -> None:
        machine.prior_updates += 1
        machine.work(PRIOR_UPDATE)
        prior_update(training)

    monkeypatch.setattr(loop, "update", timed_update)
    monkeypatch.setattr(CodeTraining, "update", timed_prior_update)
    return machine


def trained(machine: Machine, images: Path, folder: Path) -> tuple[loop.Training, dict]:
    """A run of a minute, and the settings that it recorded."""
    settings = {"max_train_steps": None, "prior_steps": "auto", "max_train_minutes": 1.0}
    run = tiny_run("vae", images, folder, **settings)
    training = loop.Training.start(run, machine.clock, lambda model, images: Afterwards(AFTER))
    before = machine.updates, machine.prior_updates
    finish_in_time(training, machine.clock)
    recorded = json.loads((folder / "train_config.json").read_text())["train"]
    made = machine.updates - before[0], machine.prior_updates - before[1]
    assert made == (recorded["max_train_steps"], recorded["prior_steps"]), "what is recorded is what was done"
    assert json.loads((folder / "training.json").read_text())["prior"]["steps"] == recorded["prior_steps"]
    assert len(list((folder / "previews").glob("*.png"))) > 0
    return training, recorded


def test_a_run_on_a_machine_that_becomes_busy_still_ends_in_time(machine, picture_folder, tmp_path):
    quiet, recorded = trained(machine, picture_folder, tmp_path / "quiet")
    assert quiet.progress.step == quiet.length.steps == recorded["max_train_steps"], "all that was planned"
    assert 50 < machine.seconds + AFTER <= 60
    machine.seconds = machine.updates = machine.prior_updates = 0
    machine.slower = lambda number: 2.0 if number > 30 else 1.0
    busy, recorded = trained(machine, picture_folder, tmp_path / "busy")
    assert 1 < recorded["max_train_steps"] < quiet.length.steps
    assert 1 < recorded["prior_steps"] < quiet.length.prior_steps
    assert 50 < machine.seconds + 2 * AFTER < 62
    last = sorted((tmp_path / "busy" / "previews").glob("*.png"))[-1]
    assert f"{recorded['max_train_steps']:04d}" in last.name, "the last preview is that of the last update"
