"""Images per second and memory of a plain training loop, of ours, and of the ceiling. Also the cost of gradient
penalties, and the time that published models take to start, to sample and to reconstruct.

python benchmarks/throughput.py --train_data_dir photos/
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch
import tyro

from benchmarks.contestants import Ceiling, OurLoop, ShippedModel
from benchmarks.pictures import Pictures, draw_pictures, load_pictures
from benchmarks.plain_loop import BATCH_SIZE, COLOR_JITTER, NETWORK, PlainLoop
from benchmarks.report import flops_of_a_step, print_header, print_table, ratios, share_of_peak, spread
from benchmarks.workers import Turn, Worker, take_turns
from hf_vae.config import DataConfig, RunConfig, TrainConfig
from hf_vae.flags import FLAG_STYLE, flags_from_recipe, flags_to_run
from hf_vae.objectives import VAEObjective
from hf_vae.pictures import to_float


MODEL_CARDS = Path(__file__).parent.parent / "model_cards"
ENDLESS = 1_000_000  # steps of a run that is cut short
NEVER = 10**9

START = """
import time
start = time.perf_counter()
from hf_vae import AutoGenerator
imported = time.perf_counter()
AutoGenerator.from_pretrained({folder!r})
print(imported - start, time.perf_counter() - imported)
"""


def main(train_data_dir: Path | None = None, rounds: int = 12, seconds: float = 3.0) -> None:
    """Measures and prints.

    Args:
        train_data_dir: Folder of images or parquet files. Without it, the benchmark draws images.
        rounds: Number of turns of each contestant.
        seconds: Approximate length of a turn.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        place = Path(temporary)
        os.environ["HF_VAE_CACHE"] = str(place / "cache")
        pictures = load_pictures(train_data_dir or draw_pictures(place / "drawings"))
        source = str(train_data_dir or "coloured shapes, drawn by the benchmark")
        print_header("Throughput", f"{source}; {len(pictures.train_files):,} to train on")
        compare_loops(pictures, rounds, seconds, place)
        compare_penalties(pictures, max(1, rounds // 2), seconds, place)
    measure_published_models()


def compare_loops(pictures: Pictures, rounds: int, seconds: float, place: Path) -> None:
    """Compares the plain loop, ours, and the ceiling, on the same network."""
    on_gpu = torch.cuda.is_available()
    images = to_float(pictures.splits.train[:BATCH_SIZE])
    num_workers = 8 if on_gpu else 2
    modes = ["default", "reduce-overhead"] if on_gpu else ["default"]
    plain = {f"plain loop, {workers} workers": workers for workers in (0, num_workers)}
    ours = {"ours": "auto"} | {f"ours, --compile {mode}": mode for mode in ["no", *modes[1:]]}
    ceilings = {"ceiling, eager": None} | {f"ceiling, compiled ({mode})": mode for mode in modes}

    with ExitStack() as stack:
        turns = {}
        for name, workers in plain.items():
            worker = Worker(PlainLoop, place / f"{name}.log", files=pictures.train_files, num_workers=workers)
            turns[name] = Turn(stack.enter_context(worker), seconds=seconds, lead_in=2 * workers + 1)
        for name, mode in ours.items():
            worker = Worker(OurLoop, place / f"{name}.log", run=_our_run(pictures.folder, place / name, mode))
            turns[name] = Turn(stack.enter_context(worker), seconds=seconds)
        for name, mode in ceilings.items():
            worker = Worker(Ceiling, place / f"{name}.log", images=images, compile_mode=mode)
            turns[name] = Turn(stack.enter_context(worker), seconds=seconds)
        data_path = Turn(turns["ours"].worker, "draw_batches", seconds / 4)
        found = take_turns(turns | {"data path": data_path}, rounds)
        memory = {name: turn.worker.memory() for name, turn in turns.items()}
        pauses = {method: turns["ours"].worker.timed(method)[1] for method in ("write_preview", "write_checkpoint")}

    flops = flops_of_a_step(images)
    rows = []
    for name in turns:
        speeds = [BATCH_SIZE / step for step in found[name]]
        step = statistics.median(found[name])
        row = [name, spread(speeds, ".0f"), f"{1000 * step:.1f}", f"{memory[name]['memory']:,.0f}"]
        row += [f"{memory[name]['gpu_memory']:,.0f}"] if on_gpu else []
        rows.append([*row, share_of_peak(flops / step)])
    columns = ["64x64, batch 64", "images/s (range)", "ms a step", "memory, MiB"]
    print_table([*columns, *(["GPU memory, MiB"] if on_gpu else []), "GFLOP/s"], rows)

    others = [*plain, *ceilings]
    rows = [[name, *(spread(ratios(found[other], found[name])) for other in others)] for name in ours]
    print_table(["times as fast as", *others], rows)
    share = [100 * part for part in ratios(found["data path"], found["ours"])]
    print(f"- our data path: {spread(share, '.1f')}% of a step")
    train = TrainConfig()
    for method, every in (("write_preview", train.preview_steps), ("write_checkpoint", train.checkpointing_steps)):
        part = pauses[method] / (every * statistics.median(found["ours"]))
        print(f"- {method.replace('_', ' ')}: {pauses[method]:.2f} s every {every} steps, {part:.1%}")
    print()


def compare_penalties(pictures: Pictures, rounds: int, seconds: float, place: Path) -> None:
    """Times the recipe of the published DC-GAN, with gradient penalties in every batch, every fourth, and none."""
    intervals = {"penalties every batch": 1, "every 4th batch": 4, "never": NEVER}
    recipe = json.loads((MODEL_CARDS / "cats-dcgan" / "train_config.json").read_text())
    run = flags_to_run("dcgan", flags_from_recipe(recipe))
    with ExitStack() as stack:
        turns = {}
        for name, interval in intervals.items():
            changed = dataclasses.replace(
                run,
                objective=dataclasses.replace(run.objective, penalty_interval=interval),
                data=DataConfig(train_data_dir=str(pictures.folder)),
                train=_endless(run.train, place / name, mixed_precision="auto"),
            )
            worker = Worker(OurLoop, place / f"{name}.log", run=changed)
            turns[name] = Turn(stack.enter_context(worker), seconds=seconds, lead_in=4, cycle=4)
        found = take_turns(turns, rounds)
    size = run.train.train_batch_size
    rows = [
        [
            name,
            spread([size / step for step in found[name]], ".0f"),
            spread([100 * (ratio - 1) for ratio in ratios(found[name], found["never"])], "+.0f"),
        ]
        for name in intervals
    ]
    print_table([f"DC-GAN, batch {size}", "images/s (range)", "cost, % of a step without"], rows)


def _our_run(folder: Path, output_dir: Path, compile_mode: str) -> RunConfig:
    data = DataConfig(train_data_dir=str(folder), color_jitter=COLOR_JITTER)
    train = _endless(TrainConfig(), output_dir, train_batch_size=BATCH_SIZE, compile=compile_mode)
    return RunConfig("vae", dict(NETWORK), VAEObjective(), data, train)


def _endless(train: TrainConfig, output_dir: Path, **changes: object) -> TrainConfig:
    return dataclasses.replace(train, output_dir=str(output_dir), max_train_steps=ENDLESS, **changes)


def measure_published_models() -> None:
    """Times the start in a new process, sampling and reconstruction, with all files in the system's cache."""
    rows = []
    for folder in sorted(path.parent for path in MODEL_CARDS.glob("*/config.json")):
        command = [sys.executable, "-c", START.format(folder=str(folder))]
        starts = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(4)][1:]
        times = zip(*(map(float, line.split()) for line in starts), strict=True)
        row = [folder.name, *(f"{statistics.median(values):.2f} s" for values in times)]
        with tempfile.NamedTemporaryFile() as log, Worker(ShippedModel, Path(log.name), folder=folder) as worker:
            methods = ["sample", "reconstruct"] if worker.call("can_reconstruct") else ["sample"]
            for method in methods:
                for num_images, repeats in ((1, 30), (64, 8)):
                    times = [worker.timed(method, num_images)[1] for _ in range(repeats + 2)][2:]
                    row.append(f"{1000 * statistics.median(times):.1f} ms")
        rows.append(row + ["-"] * (7 - len(row)))
    columns = ["published model", "import", "from_pretrained", "sample 1", "sample 64", "reconstruct 1"]
    print_table([*columns, "reconstruct 64"], rows)


if __name__ == "__main__":
    tyro.cli(main, **FLAG_STYLE)
