"""Checkpoints that are torn, foreign, or cannot be written; and a run that is killed while it writes one."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from apart import enter_private_file_system, run_apart, skip_without_private_file_systems
from conftest import assert_equal_runs, every_family, tiny_run

import train_accelerate
from hf_vae.config import with_paths
from hf_vae.flags import run_from_recipe
from hf_vae.training import checkpoints, loop
from hf_vae.training.checkpoints import (
    AVERAGED,
    MANIFEST,
    PriorCheckpoint,
    Progress,
    changed_settings,
    find_checkpoint,
    find_defect,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from hf_vae.training.loop import train
from hf_vae.training.preflight import recorded_run


pytestmark = pytest.mark.fault("checkpoints", "a damaged one is reported and skipped; an intact one always exists")


@pytest.fixture
def whole(finished_run) -> Path:
    """A VAE's finished run of 6 updates, with checkpoints at 3 and 6."""
    return finished_run("vae")


def truncate(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def flip_a_bit(checkpoint: Path) -> None:
    content = bytearray((checkpoint / "optimizer.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoint / "optimizer.bin").write_bytes(content)


def lose_a_file(checkpoint: Path) -> None:
    (checkpoint / AVERAGED).unlink()


def lose_the_manifest(checkpoint: Path) -> None:
    (checkpoint / MANIFEST).unlink()


def cut_the_manifest(checkpoint: Path) -> None:
    text = (checkpoint / MANIFEST).read_text()
    (checkpoint / MANIFEST).write_text(text[: len(text) // 2])


def empty_the_manifest(checkpoint: Path) -> None:
    (checkpoint / MANIFEST).write_text("[]")


def make_foreign(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest["run"]["model"]["latent_dim"] = 9
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


DAMAGES = {
    truncate: "model.safetensors has changed since it was written",
    flip_a_bit: "optimizer.bin has changed since it was written",
    lose_a_file: f"{AVERAGED} is missing",
    lose_the_manifest: f"no readable {MANIFEST}",
    cut_the_manifest: f"no readable {MANIFEST}",
    empty_the_manifest: f"no readable {MANIFEST}",
    make_foreign: "belongs to another run (model.latent_dim: 9 -> 8)",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_named_and_passed_over(damage, whole, picture_folder, tmp_path):
    run = tiny_run("vae", picture_folder, tmp_path).to_dict()
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "checkpoint-6")
    warnings = []
    assert find_checkpoint("latest", tmp_path, run, warnings.append) == tmp_path / "checkpoint-3"
    assert len(warnings) == 1 and "checkpoint-6" in warnings[0] and DAMAGES[damage] in warnings[0]
    with pytest.raises(ValueError, match="checkpoint-6 cannot be used"):
        find_checkpoint("checkpoint-6", tmp_path, run)
    damage(tmp_path / "checkpoint-3")
    with pytest.raises(ValueError, match="None of the 2 checkpoints"):
        find_checkpoint("latest", tmp_path, run)


@every_family("vaegan")
def test_a_run_goes_on_from_the_last_whole_checkpoint(family, finished_run, picture_folder, tmp_path, capsys):
    quiet, torn = finished_run(family), tmp_path / "torn"
    shutil.copytree(quiet, torn)
    flip_a_bit(torn / "checkpoint-6")
    train(tiny_run(family, picture_folder, torn, resume_from_checkpoint="latest"))
    assert "Skipped" in capsys.readouterr().out
    assert_equal_runs(quiet, torn)


def test_a_run_of_a_version_without_a_setting_can_be_resumed(whole, picture_folder, tmp_path):
    run = tiny_run("vae", picture_folder, tmp_path, resume_from_checkpoint="latest")
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "train_config.json", tmp_path / "checkpoint-6" / MANIFEST):
        content = json.loads(path.read_text())
        sections = content.get("run", content)
        for section, name in (("objective", "perceptual_weight"), ("data", "random_shift"), ("train", "prior_draws")):
            del sections[section][name]
        path.write_text(json.dumps(content))
    assert recorded_run(run, tmp_path) is not None
    assert find_checkpoint("latest", tmp_path, run.to_dict()) == tmp_path / "checkpoint-6"
    assert changed_settings(tmp_path / "checkpoint-6", run.to_dict()) == []


def test_a_checkpoint_of_another_folder_can_be_named(whole, picture_folder, tmp_path):
    run = tiny_run("vae", picture_folder, tmp_path).to_dict()
    assert find_checkpoint(str(whole / "checkpoint-3"), tmp_path, run) == whole / "checkpoint-3"


class OneProcess:
    """What `save_checkpoint` needs of accelerate, with a state of three bytes."""

    is_main_process = True

    def wait_for_everyone(self) -> None:
        pass

    def save_state(self, folder: str) -> None:
        Path(folder).mkdir()
        (Path(folder) / "state.bin").write_bytes(b"abc")

    def load_state(self, folder: str) -> None:
        assert (Path(folder) / "state.bin").read_bytes() == b"abc"


RUN = {"family": "vae", "model": {}, "objective": {}, "data": {}}


def save_steps(output_dir: Path, *steps: int, total_limit: int | None = None) -> None:
    for step in steps:
        progress = Progress(step, 2 * step, 3 * step, 0.5, 1)
        save_checkpoint(OneProcess(), output_dir, RUN, progress, {"loss": step}, None, total_limit)


@pytest.mark.parametrize(("limit", "kept"), [(None, [8, 9, 10]), (1, [10]), (2, [9, 10]), (3, [8, 9, 10])])
def test_the_newest_checkpoints_are_kept(limit, kept, tmp_path):
    save_steps(tmp_path, 8, 9, 10, total_limit=limit)
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{step}" for step in kept]
    assert len(list(tmp_path.iterdir())) == len(kept)


def test_what_a_killed_run_left_of_the_same_step_is_not_taken_over(tmp_path):
    (tmp_path / ".writing-checkpoint-9").mkdir()
    (tmp_path / ".writing-checkpoint-9" / "torn.bin").write_bytes(b"a")
    save_steps(tmp_path, 9)
    assert sorted(path.name for path in (tmp_path / "checkpoint-9").iterdir()) == [MANIFEST, "state.bin"]


def test_how_far_a_run_was_is_kept(tmp_path):
    save_steps(tmp_path, 7)
    assert load_checkpoint(OneProcess(), tmp_path / "checkpoint-7", None) == (Progress(7, 14, 21, 0.5, 1), {"loss": 7})
    assert Progress() == Progress(0, 0, 0, None, 0)
    with pytest.raises(ValueError, match="checkpoint-7 has no running average; resume with --no_use_ema"):
        load_checkpoint(OneProcess(), tmp_path / "checkpoint-7", torch.nn.Linear(1, 1))


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(tmp_path):
    assert find_checkpoint("latest", tmp_path, {}) is None
    with pytest.raises(ValueError, match="checkpoint-9 is not a checkpoint folder. Checkpoints in .*: none"):
        find_checkpoint("checkpoint-9", tmp_path, {})
    save_steps(tmp_path, 8, 10)
    (tmp_path / "checkpoint-last").mkdir()
    for wanted in ("checkpoint-9", "checkpoint-last", str(tmp_path)):
        with pytest.raises(
            ValueError, match="is not a checkpoint folder. Checkpoints in .*: checkpoint-8, checkpoint-10"
        ):
            find_checkpoint(wanted, tmp_path, {})


def test_where_none_can_be_used_it_is_said_why_the_newest_cannot(tmp_path):
    save_steps(tmp_path, 8, 9, 10)
    (tmp_path / "checkpoint-8" / "state.bin").unlink()
    (tmp_path / "checkpoint-9" / "manifest.json").unlink()
    (tmp_path / "checkpoint-10" / "state.bin").write_bytes(b"abd")
    warnings = []
    with pytest.raises(
        ValueError, match="None of the 3 .* The newest, checkpoint-10: its file state.bin has changed since it"
    ):
        find_checkpoint("latest", tmp_path, RUN, warnings.append)
    assert [re.search("checkpoint-(.*): ", warning)[1] for warning in warnings] == ["10", "9", "8"]


def test_a_disk_that_is_full_is_said_with_what_is_free_and_what_stays(tmp_path, monkeypatch):
    save_steps(tmp_path, 8)
    (tmp_path / ".writing-old").mkdir()
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * 2**20))
    for written in ("save_file", "flush_to_disk"):

        def fail(*_: object) -> None:
            raise OSError("No space left")

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, written, fail)
            with pytest.raises(
                OSError, match=r"left\. 3 MiB are free there\. .* are kept: checkpoint-8\. Free some space"
            ):
                save_checkpoint(OneProcess(), tmp_path, {}, Progress(9), {}, torch.nn.Linear(1, 1), None)
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-8"]


def train_until_killed(stage: str, recipe: str) -> None:
    """Trains, and is killed at a stage of writing the checkpoint at step 6."""

    def kill(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    written = {
        "after the networks": (checkpoints, "save_file"),
        "in the manifest": (checkpoints.json, "dumps"),
        "before the name": (checkpoints, "flush_to_disk"),
    }
    save = loop.save_checkpoint

    def save_or_die(accelerator, output_dir, run, progress, *rest):
        if progress.step == 6:
            setattr(*written[stage], kill)
        save(accelerator, output_dir, run, progress, *rest)

    loop.save_checkpoint = save_or_die
    loop.train(train_accelerate.parse_arguments(["--recipe", recipe]))


STAGES = ["after the networks", "in the manifest", "before the name"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_inside_a_checkpoint_write_costs_nothing_but_time(stage, whole, picture_folder, tmp_path):
    recipe = with_paths(json.loads((whole / "train_config.json").read_text()), whole)
    recipe["train"]["output_dir"] = str(tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    done = run_apart(train_until_killed, stage, str(tmp_path / "recipe.json"))
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]
    assert list(tmp_path.glob(".writing-checkpoint-6/*"))
    recipe["train"]["resume_from_checkpoint"] = "latest"
    train(run_from_recipe(recipe))
    assert_equal_runs(whole, tmp_path)
    assert not list(tmp_path.glob(".writing-*"))


def train_on_a_small_disk(recipe: str, disk: str, size: int, kept: str) -> None:
    """Runs `train_accelerate.py` on a disk of so many bytes, and resumes once there is room."""
    enter_private_file_system()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
    for more in ([], ["--resume_from_checkpoint", "latest"]):
        sys.argv = ["train_accelerate.py", "--recipe", recipe, *more]
        run = multiprocessing.get_context("fork").Process(target=train_accelerate.main)
        run.start()
        run.join()
        print("rc", run.exitcode, sorted(os.listdir(disk)))
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    shutil.copytree(disk, kept)


def test_a_full_disk_stops_with_one_error_and_keeps_what_was_there(whole, picture_folder, tmp_path):
    skip_without_private_file_systems()
    recipe = with_paths(json.loads((whole / "train_config.json").read_text()), whole)
    recipe["train"]["output_dir"] = str(tmp_path / "disk")
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    (tmp_path / "disk").mkdir()
    checkpoint_size = sum(file.stat().st_size for file in (whole / "checkpoint-3").iterdir())
    size = int(checkpoint_size * 1.5)  # room for one checkpoint, not for two
    paths = [str(tmp_path / name) for name in ("recipe.json", "disk", "kept")]
    done = run_apart(train_on_a_small_disk, *paths[:2], size, paths[2])
    assert done.returncode == 0, done.stdout + done.stderr
    before_room, after = (line for line in done.stdout.splitlines() if line.startswith("rc "))
    assert before_room.startswith("rc 1") and after.startswith("rc 0"), done.stdout + done.stderr
    assert "checkpoint-3" in before_room and "checkpoint-6" not in before_room
    assert "Traceback" not in done.stderr
    assert "checkpoint-6 could not be written" in done.stderr and "are kept: checkpoint-3" in done.stderr
    assert_equal_runs(whole, tmp_path / "kept")


def test_a_run_that_is_resumed_from_another_folder_has_its_networks_in_its_own(whole, picture_folder, tmp_path):
    run = tiny_run("vae", picture_folder, tmp_path, resume_from_checkpoint=str(whole / "checkpoint-6"))
    train(run)
    (kept,) = list_checkpoints(tmp_path)
    assert kept.name == "checkpoint-6" and find_defect(kept, run.to_dict()) is None


def test_the_same_step_is_written_again_without_a_moment_in_which_none_is_there(whole, picture_folder, tmp_path):
    """A run that is resumed from an earlier checkpoint overtakes a later one."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    train(tiny_run("vae", picture_folder, tmp_path, resume_from_checkpoint="checkpoint-3"))
    assert_equal_runs(whole, tmp_path)
    run = tiny_run("vae", picture_folder, tmp_path).to_dict()
    assert [find_defect(path, run) for path in list_checkpoints(tmp_path)] == [None, None]


def prior_checkpoint(output_dir: Path, model: torch.nn.Module, num_steps: int = 9, seed: int = 0, **settings):
    return PriorCheckpoint(output_dir, model, num_steps, seed, settings)


def network(value: float = 0.0) -> torch.nn.Module:
    """Something with a network, and with what is fitted to it."""
    parts = {name: torch.nn.Linear(1, 1) for name in ("decoder", "latent_prior", "detail")}
    for part in parts.values():
        torch.nn.init.constant_(part.weight, value)
        torch.nn.init.zeros_(part.bias)
    return torch.nn.ModuleDict(parts)


def test_the_state_of_a_prior_is_that_of_these_networks_and_of_this_number_of_updates(tmp_path):
    state, warnings = {"losses": torch.arange(3.0), "schedule": {"rate": 0.1}}, []
    assert prior_checkpoint(tmp_path, network()).load(warnings.append) is None and not warnings
    prior_checkpoint(tmp_path, network()).save(state)
    fitted = network()
    torch.nn.init.ones_(fitted["latent_prior"].weight)
    torch.nn.init.ones_(fitted["detail"].weight)
    for model in (network(), fitted):
        found = prior_checkpoint(tmp_path, model).load(warnings.append)
        assert torch.equal(found["losses"], state["losses"]) and found["schedule"] == state["schedule"]
    assert not warnings
    for other, what in (
        (prior_checkpoint(tmp_path, network(1.0)), "networks"),
        (prior_checkpoint(tmp_path, network(), num_steps=8), "prior_steps"),
        (prior_checkpoint(tmp_path, network(), seed=1), "seed"),
        (prior_checkpoint(tmp_path, network(), dropout=0.1), "settings"),
    ):
        assert other.load(warnings.append) is None
        assert f"it belongs to another prior ({what} changed)" in warnings.pop()
    prior_checkpoint(tmp_path, network()).remove()
    assert not list(tmp_path.iterdir())
    prior_checkpoint(tmp_path, network()).remove()


def test_a_state_of_a_prior_that_is_damaged_is_named_and_passed_over(tmp_path):
    kept, warnings = prior_checkpoint(tmp_path, network()), []
    kept.save({"losses": torch.arange(3000.0)})
    whole = kept.path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(torch.arange(3000.0).numpy().tobytes()) + 5000] ^= 1
    foreign = tmp_path / "foreign.pt"
    torch.save([1, 2], foreign)
    for content in (whole[:5000], bytes(flipped), b"", b"no zip", foreign.read_bytes()):
        kept.path.write_bytes(content)
        assert kept.load(warnings.append) is None
        assert f"Skipped {kept.path}: it is damaged" in warnings.pop()
    kept.path.write_bytes(whole)
    assert kept.load(warnings.append) is not None and not warnings


def test_a_prior_s_state_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    save_steps(tmp_path, 8)
    kept = prior_checkpoint(tmp_path, network())
    kept.save({"losses": torch.zeros(1)})
    before, names = kept.path.read_bytes(), sorted(tmp_path.iterdir())

    def fail(content: object, path: Path) -> None:
        path.write_bytes(b"the first half")
        raise RuntimeError("PytorchStreamWriter failed")

    monkeypatch.setattr(checkpoints.torch, "save", fail)
    with pytest.raises(OSError, match=r"prior-checkpoint.pt could not be written: Pytorch.* are kept: checkpoint-8\."):
        kept.save({"losses": torch.ones(1)})
    assert kept.path.read_bytes() == before and sorted(tmp_path.iterdir()) == names


def test_the_time_of_a_prior_adds_up_over_launches_and_its_state_is_due_every_two_minutes(tmp_path, monkeypatch):
    clock = {"now": 100.0}
    monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: clock["now"])
    first = prior_checkpoint(tmp_path, network())
    clock["now"] += 119
    assert not first.is_due()
    clock["now"] += 1
    assert first.is_due() and first.seconds == 120
    first.save({"losses": torch.zeros(1)})
    assert not first.is_due()
    clock["now"] += 1000
    second = prior_checkpoint(tmp_path, network())
    second.load()
    clock["now"] += 30
    assert second.seconds == 150 and not second.is_due()


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_all_files_of_a_run_have_the_mode_that_files_get(umask, picture_folder, tmp_path):
    before = os.umask(umask)
    try:
        train(tiny_run("vae", picture_folder, tmp_path, max_train_steps=1))
    finally:
        os.umask(before)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"diffusion_pytorch_model.safetensors", "model.safetensors", AVERAGED} <= {file.name for file in files}
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {
        file.name: oct(0o666 & ~umask) for file in files
    }
