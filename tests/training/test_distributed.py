"""Two processes on the CPU (gloo): what is trained ends up the same on both."""

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from apart import launch_forks
from conftest import flags_of, launch_two, log_lines, reset_accelerate

import train_accelerate
from hf_vae import FAMILIES, AutoGenerator
from hf_vae.config import TrainConfig
from hf_vae.models.priors.code import CodeTraining
from hf_vae.training import loop
from hf_vae.training.checkpoints import list_checkpoints
from hf_vae.training.measuring import PRIOR_UPDATES
from hf_vae.training.state import _refuse_to_shard


def train_and_save_weights(folder: str, flags: list[str]) -> None:
    """Trains, and saves the weights of every network that this process ends with."""
    trained, prepare = {}, loop.prepare

    def remember(*arguments):
        trained["trainees"] = prepare(*arguments)
        return trained["trainees"]

    loop.prepare = remember
    loop.train(train_accelerate.parse_arguments(flags))
    weights = {
        f"{name}.{key}": value.detach()
        for name, network in trained["trainees"].bare.items()
        for key, value in network.named_parameters()
    }
    torch.save(weights, Path(folder) / f"rank{PartialState().process_index}.pt")


RAISE_ON_RANK_1 = """
import sys
from accelerate import PartialState
from hf_vae.training import loop as training
import train_accelerate

update = training.update
def fail(accelerator, *arguments):
    if PartialState().process_index == 1:
        raise ValueError("the second picture is made of cheese")
    return update(accelerator, *arguments)
training.update = fail
train_accelerate.main()
"""


def get_a_signal_on_rank_1(flags: list[str]) -> None:
    """Runs `train_accelerate.py`; the second of the processes gets a SIGTERM in its third update."""
    update, calls = loop.update, []

    def update_and_signal(*arguments):
        calls.append(1)
        if PartialState().process_index == 1 and len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*arguments)

    loop.update = update_and_signal
    sys.argv = ["train_accelerate.py", *flags]
    train_accelerate.main()


def get_a_signal_in_the_prior(flags: list[str]) -> None:
    """Runs `train_accelerate.py`; the process that fits the prior gets a SIGTERM in its first update, but not in those
    that are measured for the estimate."""
    update = CodeTraining.update

    def update_and_signal(code_training: CodeTraining) -> None:
        if code_training._learning.num_updates != PRIOR_UPDATES:
            os.kill(os.getpid(), signal.SIGTERM)
        update(code_training)

    CodeTraining.update = update_and_signal
    sys.argv = ["train_accelerate.py", *flags]
    train_accelerate.main()


SHARDED = """
import os
os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "NO_WRAP"}
os.environ |= {"FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT", "FSDP_RESHARD_AFTER_FORWARD": "true"}
from accelerate import PartialState
from accelerate.utils import DistributedType
from hf_vae.training import loop as training
import train_accelerate

class SeeminglyOnGPUs(PartialState):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
training.PartialState = SeeminglyOnGPUs
train_accelerate.main()
"""


def small_steps(*arguments):
    """Flags of a run in which rounding stays small: in a game of two networks it grows with their steps."""
    return [*flags_of(*arguments), "--learning_rate", "0.0001"]


@pytest.fixture
def two_processes(family, picture_folder, tmp_path):
    """A run of 20 updates by two processes with 4 images each, and the weights that each of them ended with."""
    done = launch_forks(
        train_and_save_weights, str(tmp_path), small_steps(family, picture_folder, tmp_path / "two", 4)
    )
    assert done.returncode == 0, done.stderr[:6000]
    return [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_agree_and_follow_one_with_twice_the_batch(family, two_processes, picture_folder, tmp_path):
    first, second = two_processes
    assert first.keys() == second.keys() and first
    for name, value in first.items():
        assert torch.equal(value, second[name]), name

    two, one = tmp_path / "two", tmp_path / "one"
    facts = json.loads((two / "training.json").read_text())
    assert facts["num_processes"] == 2 and facts["images_seen"] == 160
    states = {path.name for path in (two / "checkpoint-20").glob("random_states_*")}
    assert states == {"random_states_0.pkl", "random_states_1.pkl"}

    loop.train(train_accelerate.parse_arguments(small_steps(family, picture_folder, one, 8)))
    reset_accelerate()
    assert len(log_lines(one)) == len(log_lines(two)) == 10  # rank 0 alone writes
    for ours, theirs in zip(log_lines(one), log_lines(two), strict=True):
        for line in (ours, theirs):
            line.pop("active_units", None)  # a count over one process's share
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    # compared by what they draw: Adam makes steps of the noise in a gradient that is zero but for rounding
    drawn = [AutoGenerator.from_pretrained(run).sample(8, torch.Generator().manual_seed(0)) for run in (one, two)]
    torch.testing.assert_close(*drawn, rtol=0, atol=2e-3)


@pytest.mark.fault("training", "bit-identical weights, or one error and an intact checkpoint")
def test_an_error_on_one_rank_ends_all_of_them_with_that_error(picture_folder, tmp_path):
    """With the command that people type."""
    (tmp_path / "fail.py").write_text(RAISE_ON_RANK_1)
    done = launch_two(tmp_path / "fail.py", flags_of("vae", picture_folder, tmp_path / "run", 4))
    assert done.returncode != 0
    assert "Error: the second picture is made of cheese" in done.stderr
    assert not (tmp_path / "run" / "diffusion_pytorch_model.safetensors").exists()


def test_a_signal_to_one_rank_stops_all_of_them_with_a_checkpoint(picture_folder, tmp_path):
    done = launch_forks(get_a_signal_on_rank_1, flags_of("vae", picture_folder, tmp_path / "run", 4))
    assert done.returncode != 0
    assert "Stopped by SIGTERM after writing checkpoint-10" in done.stderr
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["checkpoint-10"]
    assert [line["step"] for line in log_lines(tmp_path / "run")] == [2, 4, 6, 8, 10]


def test_a_signal_while_the_first_rank_fits_the_prior_stops_all_of_them(picture_folder, tmp_path):
    flags = flags_of("vae", picture_folder, tmp_path / "run", 4, steps=2)
    done = launch_forks(get_a_signal_in_the_prior, flags)
    assert done.returncode != 0
    sentence = "Stopped by SIGTERM after writing prior-checkpoint.pt at update 1 of 2 of the prior."
    assert done.stderr.count(sentence) == 2, done.stderr[-3000:]
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["checkpoint-2"]


@pytest.mark.slow
def test_launches_at_the_same_time_end(picture_folder, tmp_path):
    """gloo's thread may still need Python's lock when the networks of a finished run are freed."""
    (tmp_path / "whole.py").write_text("import train_accelerate\ntrain_accelerate.main()")
    with ThreadPoolExecutor(2) as pool:
        launches = [
            pool.submit(
                launch_two, tmp_path / "whole.py", flags_of("dcgan", picture_folder, tmp_path / str(number), 4)
            )
            for number in range(6)
        ]
    assert [launch.result().returncode for launch in launches] == [0] * 6


@pytest.mark.slow
def test_sharded_networks_are_trained_as_whole_ones_are(picture_folder, tmp_path):
    """FSDP, whose own code runs on a CPU but which accelerate only uses on GPUs, so it is told that these are some."""
    (tmp_path / "whole.py").write_text("import train_accelerate\ntrain_accelerate.main()")
    (tmp_path / "sharded.py").write_text(SHARDED)
    for name in ("whole", "sharded"):
        flags = flags_of("vae", picture_folder, tmp_path / name, 4)
        for more in ([], ["--resume_from_checkpoint", "checkpoint-10"]):
            done = launch_two(tmp_path / f"{name}.py", [*flags, *more])
            assert done.returncode == 0, done.stderr[:6000]
    assert (tmp_path / "sharded" / "checkpoint-10" / "pytorch_model_fsdp.bin").is_file()
    for ours, theirs in zip(log_lines(tmp_path / "whole"), log_lines(tmp_path / "sharded"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("family", "settings"), [("dcgan", {}), ("vae", {"use_ema": False}), ("vae", {"channels_last": "yes"})]
)
def test_what_cannot_be_sharded_is_refused(family, settings):
    with pytest.raises(ValueError, match="FSDP"):
        _refuse_to_shard(FAMILIES[family].objective(), TrainConfig(**settings))
