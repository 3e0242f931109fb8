"""SIGTERM and Ctrl-C: a checkpoint is written, the exit code says which, and the rest of the run is the same."""

import os
import signal
import sys

import pytest
from conftest import assert_equal_runs, reset_accelerate, tiny_flags, tiny_run

import train_accelerate
from hf_vae import training
from hf_vae.checkpoints import list_checkpoints
from hf_vae.interruptions import StopSignals, TrainingInterrupted


pytestmark = pytest.mark.fault("signals", "a checkpoint, and the same weights bit for bit")


def signal_in_update(number: int, signal_number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has this process get a signal while it computes its `number`-th update."""
    calls, update = [], training.update

    def update_and_signal(*arguments):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal_number)
        return update(*arguments)

    monkeypatch.setattr(training, "update", update_and_signal)


@pytest.mark.parametrize(("signal_number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    signal_number, exit_code, family, picture_folder, tmp_path, monkeypatch
):
    quiet, stopped = tmp_path / "quiet", tmp_path / "stopped"
    training.train(tiny_run(family, picture_folder, quiet))
    reset_accelerate()
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted) as caught:
        signal_in_update(5, signal_number, patch)
        training.train(tiny_run(family, picture_folder, stopped))
    assert caught.value.exit_code == exit_code
    assert [path.name for path in list_checkpoints(stopped)] == ["checkpoint-3", "checkpoint-5"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    reset_accelerate()
    training.train(tiny_run(family, picture_folder, stopped, resume_from_checkpoint="latest"))
    assert_equal_runs(quiet, stopped)


def test_the_exit_code_of_the_script_tells_a_stop_from_a_failure(picture_folder, tmp_path, monkeypatch, capsys):
    arguments = ["train_accelerate.py", "vae", *tiny_flags("vae"), "--train_batch_size", "4"]
    arguments += ["--output_dir", str(tmp_path), "--train_data_dir", str(picture_folder)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--max_train_steps", "5"])
    signal_in_update(2, signal.SIGTERM, monkeypatch)
    with pytest.raises(SystemExit) as caught:
        train_accelerate.main()
    assert caught.value.code == 143
    assert "checkpoint-2" in capsys.readouterr().err


def test_a_second_ctrl_c_stops_at_once_and_an_echo_of_the_first_does_not(monkeypatch):
    clock = iter([10.0, 10.1, 10.1, 20.0])
    monkeypatch.setattr("hf_vae.interruptions.time.monotonic", lambda: next(clock))
    with StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
