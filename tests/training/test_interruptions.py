"""SIGTERM and Ctrl-C: a checkpoint is written, the exit code says which, and the rest of the run is the same."""

import dataclasses
import json
import os
import pickle
import signal
import sys

import pytest
import torch
from apart import run_apart
from conftest import assert_equal_runs, every_family, reset_accelerate, tiny_flags, tiny_run, weights

import train_accelerate
from hf_vae.flags import run_from_recipe
from hf_vae.models.priors.code import CodeTraining
from hf_vae.training import checkpoints, fitting, loop
from hf_vae.training.checkpoints import PRIOR_CHECKPOINT, list_checkpoints
from hf_vae.training.interruptions import StopSignals, TrainingInterrupted


pytestmark = pytest.mark.fault("signals", "a checkpoint, and bit-identical weights")


def signal_in_update(number: int, signal_number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has this process get a signal while it computes its `number`-th update."""
    calls, update = [], loop.update

    def update_and_signal(*arguments):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal_number)
        return update(*arguments)

    monkeypatch.setattr(loop, "update", update_and_signal)


@pytest.mark.parametrize(("signal_number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@every_family("vae")
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    signal_number, exit_code, family, finished_run, picture_folder, tmp_path, monkeypatch
):
    quiet, stopped = finished_run(family), tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted) as caught:
        signal_in_update(5, signal_number, patch)
        loop.train(tiny_run(family, picture_folder, stopped))
    assert caught.value.exit_code == exit_code
    assert [path.name for path in list_checkpoints(stopped)] == ["checkpoint-3", "checkpoint-5"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    reset_accelerate()
    loop.train(tiny_run(family, picture_folder, stopped, resume_from_checkpoint="latest"))
    assert_equal_runs(quiet, stopped)


def signal_in_prior(number: int, signal_number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has this process get a signal while it computes the `number`-th update of the flow of a prior."""
    update = CodeTraining.update

    def update_and_signal(code_training: CodeTraining) -> None:
        if len(code_training.losses) == number - 1:
            os.kill(os.getpid(), signal_number)
        update(code_training)

    monkeypatch.setattr(CodeTraining, "update", update_and_signal)


@pytest.mark.parametrize(
    ("signal_number", "exit_code", "settings"),
    [
        (signal.SIGTERM, 143, {}),
        (signal.SIGINT, 130, {"use_ema": False, "save_precision": "fp16"}),
        (signal.SIGTERM, 143, {"checkpointing_steps": 0}),
    ],
    ids=["plain", "no_ema_fp16", "no_checkpoints"],
)
def test_a_run_that_is_stopped_in_its_prior_goes_on_there_to_the_same_weights(
    signal_number, exit_code, settings, picture_folder, tmp_path, monkeypatch, capsys
):
    quiet, stopped = tmp_path / "quiet", tmp_path / "stopped"
    settings = {"prior_steps": 5, **settings}
    loop.train(tiny_run("vae", picture_folder, quiet, **settings))
    reset_accelerate()
    with (
        monkeypatch.context() as patch,
        pytest.raises(TrainingInterrupted, match=rf"{PRIOR_CHECKPOINT} at update 3 of 5 of the prior") as caught,
    ):
        signal_in_prior(3, signal_number, patch)
        loop.train(tiny_run("vae", picture_folder, stopped, **settings))
    assert caught.value.exit_code == exit_code and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert list_checkpoints(stopped)[-1].name == "checkpoint-6" and (stopped / PRIOR_CHECKPOINT).is_file()
    assert not (stopped / "training.json").exists() and not (stopped / "diffusion_pytorch_model.safetensors").exists()
    reset_accelerate()
    updates, update = [], CodeTraining.update
    monkeypatch.setattr(CodeTraining, "update", lambda self: updates.append(1) or update(self))
    loop.train(tiny_run("vae", picture_folder, stopped, resume_from_checkpoint="latest", **settings))
    assert len(updates) == 2 and "the prior resumes after 3 of its 5 updates" in capsys.readouterr().out
    for name, value in weights(quiet).items():
        assert torch.equal(value, weights(stopped)[name]), name
    if "checkpointing_steps" in settings:
        assert not list_checkpoints(quiet) and not list_checkpoints(stopped)
    else:
        assert_equal_runs(quiet, stopped)
    assert not (stopped / PRIOR_CHECKPOINT).exists()


@pytest.mark.parametrize("moment", ["last update", "details", "encoding"])
def test_a_stop_right_before_the_prior_learns_leaves_the_trained_networks(
    moment, picture_folder, tmp_path, monkeypatch
):
    run = tiny_run("vae", picture_folder, tmp_path)
    run = dataclasses.replace(run, model=run.model | {"latent_size": 7, "latent_dim": 98, "detail_dim": 98})
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted, match="after writing checkpoint-6"):
        if moment == "last update":
            signal_in_update(6, signal.SIGTERM, patch)
        else:
            name = "fit_detail" if moment == "details" else "fit_prior"
            fit = getattr(fitting, name)

            def signal_and_fit(*arguments, **settings):
                os.kill(os.getpid(), signal.SIGTERM)
                fit(*arguments, **settings)

            patch.setattr(fitting, name, signal_and_fit)
        loop.train(run)
    reset_accelerate()
    loop.train(dataclasses.replace(run, train=dataclasses.replace(run.train, resume_from_checkpoint="latest")))
    assert json.loads((tmp_path / "training.json").read_text())["steps"] == 6


def train_until_killed_in_the_prior(recipe: str) -> None:
    """Trains, and is killed before the fifth update of the flow, with a state of the prior after each."""
    checkpoints.PRIOR_SAVE_SECONDS = 0.0
    update = CodeTraining.update

    def update_or_die(code_training: CodeTraining) -> None:
        if len(code_training.losses) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        update(code_training)

    CodeTraining.update = update_or_die
    loop.train(train_accelerate.parse_arguments(["--recipe", recipe]))


def test_a_kill_while_the_prior_is_learned_costs_minutes_at_most(picture_folder, tmp_path, monkeypatch, capsys):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    loop.train(tiny_run("vae", picture_folder, quiet, prior_steps=6))
    recipe = tiny_run("vae", picture_folder, killed, prior_steps=6).to_dict()
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    done = run_apart(train_until_killed_in_the_prior, str(tmp_path / "recipe.json"))
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    reset_accelerate()
    recipe["train"]["resume_from_checkpoint"] = "latest"
    loop.train(run_from_recipe(recipe))
    assert "the prior resumes after 4 of its 6 updates" in capsys.readouterr().out
    assert_equal_runs(quiet, killed)


def test_the_exit_code_of_the_script_tells_a_stop_from_a_failure(picture_folder, tmp_path, monkeypatch, capsys):
    arguments = ["train_accelerate.py", "vae", *tiny_flags("vae"), "--train_batch_size", "4"]
    arguments += ["--output_dir", str(tmp_path), "--train_data_dir", str(picture_folder)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--max_train_steps", "5"])
    signal_in_update(2, signal.SIGTERM, monkeypatch)
    with pytest.raises(SystemExit) as caught:
        train_accelerate.main()
    assert caught.value.code == 143
    assert "checkpoint-2" in capsys.readouterr().err


def test_ctrl_c_in_the_evaluation_says_that_the_model_is_there(picture_folder, tmp_path, monkeypatch, capsys):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_vae.evaluation.evaluate.evaluate_folder", stop)
    arguments = ["train_accelerate.py", "vae", *tiny_flags("vae"), "--train_batch_size", "4", "--prior", "gaussian"]
    arguments += ["--output_dir", str(tmp_path), "--train_data_dir", str(picture_folder), "--max_train_steps", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        train_accelerate.main()
    assert caught.value.code == 130
    assert f"The model is in {tmp_path}. To finish, run `hf-vae evaluate {tmp_path} --save`" in capsys.readouterr().err


def test_a_second_ctrl_c_stops_at_once_and_an_echo_of_the_first_does_not(monkeypatch):
    clock = {"now": 10.0}
    monkeypatch.setattr("hf_vae.training.interruptions.time.monotonic", lambda: clock["now"])
    with StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        clock["now"] += 0.1  # as quick as no finger is
        os.kill(os.getpid(), signal.SIGINT)
        clock["now"] += 10
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interruption_reaches_another_process_as_it_is():
    sent = pickle.loads(pickle.dumps(TrainingInterrupted(signal.SIGTERM, "checkpoint-7")))
    assert sent.exit_code == 143 and str(sent) == "Stopped by SIGTERM after writing checkpoint-7."
