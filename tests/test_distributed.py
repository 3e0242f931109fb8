"""Two processes on the CPU (gloo): what is trained ends up the same on both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


REPOSITORY = Path(__file__).parent.parent
TINY_FLAGS = ["--image_size", "28", "--latent_dim", "8", "--width", "8", "--max_width", "16"]
TINY_FLAGS += ["--train_batch_size", "4", "--lr_warmup_steps", "2"]

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


def launch_two(script: Path, arguments: list[str]) -> None:
    # torchrun rather than `accelerate launch`, which starts one process when it finds no GPU
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[:6000]


def test_both_ranks_end_with_the_same_weights_and_rank_0_alone_writes(family, picture_folder, tmp_path):
    (tmp_path / "on_each_rank.py").write_text(ON_EACH_RANK)
    flags = [family, "--train_data_dir", str(picture_folder), "--output_dir", str(tmp_path / "run"), *TINY_FLAGS]
    flags += ["--max_train_steps", "4", "--logging_steps", "2", "--preview_steps", "4", "--checkpointing_steps", "4"]
    launch_two(tmp_path / "on_each_rank.py", [str(tmp_path), *flags])
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys() and first
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    facts = json.loads((tmp_path / "run" / "training.json").read_text())
    assert facts["num_processes"] == 2 and facts["images_seen"] == 32
    states = {path.name for path in (tmp_path / "run" / "checkpoint-4").glob("random_states_*")}
    assert states == {"random_states_0.pkl", "random_states_1.pkl"}
    assert load_file(tmp_path / "run" / "diffusion_pytorch_model.safetensors")
