"""How long Python takes to start what people use, against the import that it cannot do without.

python benchmarks/startup.py
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import tyro

from benchmarks.report import print_header, print_table, ratios, spread
from hf_vae.flags import FLAG_STYLE


ROOT = Path(__file__).parent.parent  # has train_accelerate.py
BASE = "import torch"
HF_VAE = "import sys; from hf_vae.commands.main import main; sys.argv = ['hf-vae', {}]; main()"
STARTED = {
    BASE: BASE,
    "import torch; from diffusers import ModelMixin": "import torch; from diffusers import ModelMixin",
    "from hf_vae import AutoGenerator, ImagePipeline": "from hf_vae import AutoGenerator, ImagePipeline",
    "hf-vae --help": HF_VAE.format("'--help'"),
    "hf-vae sample --help": HF_VAE.format("'sample', '--help'"),
    "hf-vae env": HF_VAE.format("'env'"),
    "train_accelerate.py vae --help": "import sys, train_accelerate; sys.argv[1:] = ['vae', '--help']; "
    "train_accelerate.main()",
}


def main(rounds: int = 7) -> None:
    """Starts each program once a round, and prints medians of seconds and of the ratio to the base.

    Args:
        rounds: Number of rounds. The first is not counted: it fills the disk cache.
    """
    seconds: dict[str, list[float]] = {name: [] for name in STARTED}
    computed: dict[str, list[float]] = {name: [] for name in STARTED}
    for number in range(rounds + 1):
        for name, code in STARTED.items():
            wall, processor = _start(code)
            if number:
                seconds[name].append(wall)
                computed[name].append(processor)
    print_header("Start-up", "none")
    columns = ["program", "seconds", "ratio", "CPU seconds", "ratio"]
    rows = []
    for name in STARTED:
        row = [f"`{name}`"]
        for found in (seconds, computed):
            row += [spread(found[name]), spread(ratios(found[name], found[BASE]))]
        rows.append(row)
    print_table(columns, rows)


def _start(code: str) -> tuple[float, float]:
    """The wall-clock and the CPU seconds of a Python process that runs `code`."""
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, os.times()
    return wall, sum(after[2:4]) - sum(before[2:4])


if __name__ == "__main__":
    tyro.cli(main, **FLAG_STYLE)
