"""Runs that are killed, or whose disk, clock or partner fails: they go on to the same weights, or end with one error
and a whole checkpoint."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from apart import enter_private_file_system, run_apart, skip_without_private_file_systems
from conftest import REPOSITORY, every_family, flags_of, launch_two, reset_accelerate, tiny_run, weights

import train_accelerate
from hf_vae.training import loop
from hf_vae.training.checkpoints import find_defect, list_checkpoints
from hf_vae.training.loop import train


pytestmark = pytest.mark.fault("training", "bit-identical weights, or one error and an intact checkpoint")

KILLS = {  # how many, and of a run with which settings
    "plain": (50, {}),
    "bf16": (10, {"mixed_precision": "bf16"}),
    "accumulation": (10, {"gradient_accumulation_steps": 2, "lr_scheduler": "linear"}),
}


KILLED_AGAIN_AND_AGAIN = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import torch
import train_accelerate
from conftest import assert_equal_runs
from hf_vae.training import loop
from hf_vae.training.checkpoints import checkpoint_step, list_checkpoints

torch.set_num_threads(1)
recipe, quiet, killed, kills = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

def start(output_dir):
    child = os.fork()  # what is imported stays, so that a kill never hits the import
    if child:
        return child
    flags = ["--recipe", recipe, "--output_dir", str(output_dir), "--resume_from_checkpoint", "latest"]
    loop.train(train_accelerate.parse_arguments(flags))
    os._exit(0)

started = time.monotonic()
assert os.waitpid(start(quiet), 0)[1] == 0
seconds = time.monotonic() - started

moments, reached, runs = random.Random(7), [], 0
while len(reached) < kills:
    child = start(killed)
    time.sleep(moments.uniform(0, seconds))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        reached.append(max(map(checkpoint_step, list_checkpoints(killed)), default=0))
    else:  # it had ended: the next kills are of another run
        assert status == 0
        assert_equal_runs(quiet, killed)
        shutil.rmtree(killed)
        runs += 1
assert os.waitpid(start(killed), 0)[1] == 0
assert_equal_runs(quiet, killed)
print(runs + 1, "runs were killed after checkpoints", reached)
"""


@pytest.mark.slow
@pytest.mark.parametrize("setting", KILLS)
def test_kills_at_random_moments_change_nothing(family, setting, picture_folder, tmp_path, record_property):
    kills, settings = KILLS[setting]
    steps = {"max_train_steps": 60, "checkpointing_steps": 2, "preview_steps": 20}
    run = tiny_run(family, picture_folder, tmp_path, **steps, **settings)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(run.to_dict()))
    folders = [str(tmp_path / "quiet"), str(tmp_path / "killed")]
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, str(recipe), *folders, str(kills)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout.splitlines()[-1])
    record_property("tried", kills)


@every_family("vae")
def test_a_clock_that_jumps_changes_nothing(family, finished_run, picture_folder, tmp_path, monkeypatch):
    quiet, jumping = finished_run(family), tmp_path / "jumping"
    jumps = random.Random(0)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: jumps.uniform(-1e9, 4e9))
        train(tiny_run(family, picture_folder, jumping, max_train_steps=3))
    for number, checkpoint in enumerate(list_checkpoints(jumping)):
        os.utime(checkpoint, (4e9 - number, 4e9 - number))  # the older, the later
    (jumping / "train_config.json").unlink()  # of a shorter run
    reset_accelerate()
    train(tiny_run(family, picture_folder, jumping, resume_from_checkpoint="latest"))
    for name, value in weights(quiet).items():
        assert torch.equal(value, weights(jumping)[name]), name


def test_a_run_has_no_workers_that_could_be_killed(picture_folder, tmp_path, monkeypatch):
    children, update = [], loop.update

    def count_and_update(*arguments):
        children.extend(psutil.Process().children(recursive=True))
        return update(*arguments)

    monkeypatch.setattr(loop, "update", count_and_update)
    before = psutil.Process().children(recursive=True)
    train(tiny_run("vae", picture_folder, tmp_path, max_train_steps=2))
    assert set(children) <= set(before)


def train_on_a_read_only_folder(folder: str, flags: list[str]) -> None:
    """Trains in a folder, makes it read-only, and runs `train_accelerate.py` there again, to resume and anew."""
    enter_private_file_system()  # which only a process with one thread can
    run = train_accelerate.parse_arguments([*flags, "--output_dir", folder])
    loop.train(run)
    shutil.rmtree(folder + "/checkpoint-20")
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    for more in (["--output_dir", folder, "--resume_from_checkpoint", "latest"], ["--output_dir", folder + "/new"]):
        reset_accelerate()
        sys.argv = ["train_accelerate.py", *flags, *more]
        try:
            train_accelerate.main()
        except SystemExit as stopped:
            print("stopped:", stopped.code)
    print("defect:", find_defect(Path(folder) / "checkpoint-10", run.to_dict()))


def test_a_read_only_folder_is_one_error_and_its_checkpoint_stays(picture_folder, tmp_path):
    skip_without_private_file_systems()
    flags = flags_of("vae", picture_folder, tmp_path / "run", 4)
    place = flags.index("--output_dir")
    del flags[place : place + 2]
    done = run_apart(train_on_a_read_only_folder, str(tmp_path / "run"), flags)
    assert done.stdout.count("stopped: Error: [Errno 30] Read-only file system") == 2, done.stdout + done.stderr
    assert "defect: None" in done.stdout


KILL_RANK_1 = """
import os, signal
from accelerate import PartialState
from hf_vae.training import loop as training
import train_accelerate

update, calls = training.update, []
def die(*arguments):
    calls.append(1)
    if PartialState().process_index == 1 and len(calls) == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(*arguments)
training.update = die
train_accelerate.main()
"""


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_which_goes_on_to_the_same_weights(family, picture_folder, tmp_path):
    (tmp_path / "quiet.py").write_text("import train_accelerate\ntrain_accelerate.main()")
    (tmp_path / "dying.py").write_text(KILL_RANK_1)
    quiet, dying = tmp_path / "quiet", tmp_path / "dying"
    done = launch_two(tmp_path / "quiet.py", flags_of(family, picture_folder, quiet, 4))
    assert done.returncode == 0, done.stderr[-3000:]
    done = launch_two(tmp_path / "dying.py", flags_of(family, picture_folder, dying, 4))
    assert done.returncode != 0
    assert [path.name for path in list_checkpoints(dying)] == ["checkpoint-10"]
    flags = [*flags_of(family, picture_folder, dying, 4), "--resume_from_checkpoint", "latest"]
    done = launch_two(tmp_path / "quiet.py", flags)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, value in weights(quiet).items():
        assert torch.equal(value, weights(dying)[name]), name
