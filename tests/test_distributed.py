"""Two processes on the CPU (gloo): what is trained ends up the same on both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, log_lines, reset_accelerate

import train_accelerate
from hf_vae import AutoGenerator
from hf_vae.training import train


TINY_FLAGS = ["--image_size", "28", "--latent_dim", "8", "--width", "8", "--max_width", "16"]
TINY_FLAGS += ["--lr_warmup_steps", "2"]

ON_EACH_RANK = """
import sys, torch
from pathlib import Path
from accelerate import PartialState
from hf_vae import training
import train_accelerate

trained = {}
prepare = training.prepare
def remember(*arguments):
    trained["trainees"] = prepare(*arguments)
    return trained["trainees"]
training.prepare = remember
folder = Path(sys.argv.pop(1))
training.train(train_accelerate.parse_arguments(sys.argv[1:]))
weights = {
    f"{name}.{key}": value
    for name, network in trained["trainees"].bare.items()
    for key, value in network.named_parameters()
}
torch.save({key: value.detach() for key, value in weights.items()}, folder / f"rank{PartialState().process_index}.pt")
"""


def launch_two(script: Path, arguments: list[str]) -> subprocess.CompletedProcess:
    # torchrun rather than `accelerate launch`, which starts one process when it finds no GPU
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)


RAISE_ON_RANK_1 = """
import sys
from accelerate import PartialState
from hf_vae import training
import train_accelerate

update = training.update
def fail(accelerator, *arguments):
    if PartialState().process_index == 1:
        raise ValueError("the second picture is made of cheese")
    return update(accelerator, *arguments)
training.update = fail
train_accelerate.main()
"""


def flags_of(family: str, pictures: Path, output_dir: Path, batch_size: int, steps: int = 20) -> list[str]:
    flags = [family, "--train_data_dir", str(pictures), "--output_dir", str(output_dir), *TINY_FLAGS]
    flags += ["--train_batch_size", str(batch_size), "--max_train_steps", str(steps), "--color_jitter", "0.1"]
    return [*flags, "--logging_steps", "2", "--preview_steps", "20", "--checkpointing_steps", "10"]


@pytest.fixture
def two_processes(family, picture_folder, tmp_path):
    """A run of 20 updates by two processes with 4 images each, and the weights that each of them ended with."""
    (tmp_path / "on_each_rank.py").write_text(ON_EACH_RANK)
    done = launch_two(
        tmp_path / "on_each_rank.py", [str(tmp_path), *flags_of(family, picture_folder, tmp_path / "two", 4)]
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

    train(train_accelerate.parse_arguments(flags_of(family, picture_folder, one, 8)))
    reset_accelerate()
    assert len(log_lines(one)) == len(log_lines(two)) == 10  # rank 0 alone writes
    for ours, theirs in zip(log_lines(one), log_lines(two), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    # compared by what they draw: Adam makes steps of the noise in a gradient that is zero but for rounding
    drawn = [AutoGenerator.from_pretrained(run).sample(8, torch.Generator().manual_seed(0)) for run in (one, two)]
    torch.testing.assert_close(*drawn, rtol=0, atol=2e-3)


def test_an_error_on_one_rank_ends_all_of_them_with_that_error(picture_folder, tmp_path):
    (tmp_path / "fail.py").write_text(RAISE_ON_RANK_1)
    done = launch_two(tmp_path / "fail.py", flags_of("vae", picture_folder, tmp_path / "run", 4))
    assert done.returncode != 0
    assert "Error: the second picture is made of cheese" in done.stderr
    assert not (tmp_path / "run" / "diffusion_pytorch_model.safetensors").exists()
