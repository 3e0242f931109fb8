"""`make smoke`: the whole path with the commands that people type, through a SIGKILL, on pictures made here."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, draw_picture, every_family, tiny_flags
from safetensors.torch import load_file

import app
import published
from hf_vae import AutoGenerator
from hf_vae.training.checkpoints import checkpoint_step, list_checkpoints
from tabs import generate


STEPS = 150


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", *arguments]


def training_flags(family: str, pictures: Path, output_dir: Path) -> list[str]:
    flags = "--train_batch_size 8 --lr_warmup_steps 2 --prior_steps 20"
    flags += f" --max_train_steps {STEPS} --logging_steps 5 --preview_steps 50 --checkpointing_steps 5"
    return [
        family,
        *tiny_flags(family),
        *flags.split(),
        "--train_data_dir",
        str(pictures),
        "--output_dir",
        str(output_dir),
    ]


def run(arguments: list[str], **environment: str) -> str:
    done = subprocess.run(
        arguments, cwd=REPOSITORY, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def kill_after_a_checkpoint(arguments: list[str], output_dir: Path) -> None:
    """Starts a training and kills it, and all processes that it started, once it has written its first checkpoints."""
    process = subprocess.Popen(
        arguments, cwd=REPOSITORY, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not any(checkpoint_step(checkpoint) >= 10 for checkpoint in list_checkpoints(output_dir)):
        assert process.poll() is None and time.monotonic() < deadline, "the run ended, or wrote no checkpoint"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke-pictures")
    for number in range(40):
        draw_picture(number).save(folder / f"{number}.png")
    return folder


@every_family("vaegan")
def test_train_kill_resume_evaluate_card_load_and_show(family, pictures, tmp_path):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    run([sys.executable, "train_accelerate.py", *training_flags(family, pictures, quiet)])
    kill_after_a_checkpoint(command("train_accelerate.py", *training_flags(family, pictures, killed)), killed)
    assert not (killed / "diffusion_pytorch_model.safetensors").exists()
    resume = [*training_flags(family, pictures, killed), "--resume_from_checkpoint", "latest"]
    assert "Wrote the model to" in run(command("train_accelerate.py", *resume))
    for name, value in load_file(quiet / "diffusion_pytorch_model.safetensors").items():
        assert torch.equal(value, load_file(killed / "diffusion_pytorch_model.safetensors")[name]), name

    hf_vae = [sys.executable, "-c", "from hf_vae.commands.main import main; main()"]
    measured = json.loads(run([*hf_vae, "evaluate", str(killed), "--train_data_dir", str(pictures), "--json"]))
    recorded = json.loads((killed / "metrics.json").read_text())
    assert measured["num_heldout"] == recorded["num_heldout"] == 4
    assert measured["laplacian_variance_samples"] == pytest.approx(recorded["laplacian_variance_samples"], rel=1e-4)
    (killed / "README.md").unlink()
    run([*hf_vae, "card", str(killed)])
    assert (killed / "README.md").is_file()
    run([*hf_vae, "sample", str(killed), "--num", "4", "--output", str(tmp_path / "grid.png")])
    assert AutoGenerator.from_pretrained(killed).sample(2).shape == (2, 3, 28, 28)

    # a recipe is the train_config.json of a published model; flags given beside it win
    again = tmp_path / "again"
    recipe = ["--recipe", str(killed / "train_config.json")]
    run(command("train_accelerate.py", *recipe, "--output_dir", str(again), "--max_train_steps", "2"))
    assert json.loads((again / "training.json").read_text())["steps"] == 2

    models = published.open_models({"smoke": killed}).models
    assert len(generate.draw(models, "smoke", count=3, seed=0, temperature=1.0, prior="own")[0]) == 3
    assert app.build_demo({"smoke": killed})
