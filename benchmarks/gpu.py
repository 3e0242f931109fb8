"""What a GPU does with our training: images per second of a plain loop with 8 workers, of ours and of the ceiling, and
for how much of the time each keeps the GPU busy, at 64 and 128 pixels. Also of the default recipes of VAE and VAE-GAN,
and the updates a second of the prior. It takes less than ten minutes; each size is printed when it is done.

python -m benchmarks.gpu
python -m benchmarks.gpu --smoke        # on any machine, in a minute: whether it runs
"""

import dataclasses
import math
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import tyro

from benchmarks.contestants import Ceiling, OurLoop, PriorLoop, Watched
from benchmarks.pictures import Pictures, draw_pictures, load_pictures
from benchmarks.plain_loop import BATCH_SIZE, COLOR_JITTER, NETWORK, PlainLoop
from benchmarks.report import print_header, print_table, ratios, spread
from benchmarks.workers import Turn, Worker, take_turns
from hf_vae.config import DataConfig, RunConfig
from hf_vae.flags import FLAG_STYLE, flags_to_run, flags_type
from hf_vae.pictures import to_float


ENDLESS = 1_000_000  # updates of a run that is cut short
PLAIN, OURS, CEILING = "VAE, plain loop", "VAE, ours", "VAE, ceiling, compiled"


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is measured.

    Args:
        sizes: Edges of the images, in pixels.
        rounds: Number of turns of each contestant.
        seconds: Approximate length of a turn.
        workers: Of the plain loop.
        compile_mode: Of the ceiling.
        our_compile_mode: Of ours.
        watched: Updates during which the GPU is watched.
        prior_updates: Updates of the prior.
        model: Arguments of the default recipes' models, besides the size of the images.
    """

    sizes: tuple[int, ...] = (64, 128)
    rounds: int = 5
    seconds: float = 2.0
    workers: int = 8
    compile_mode: str | None = "reduce-overhead"
    our_compile_mode: str = "auto"
    watched: int = 50
    prior_updates: int = 200
    model: dict[str, int] = dataclasses.field(default_factory=dict)


SMOKE = Extent((32,), 1, 0.01, 1, None, "no", 1, 8, {"latent_size": 4, "latent_dim": 16, "width": 8, "max_width": 16})


def main(train_data_dir: Path | None = None, smoke: bool = False) -> None:
    """Measures and prints.

    Args:
        train_data_dir: Folder of images or parquet files. Without it, the benchmark draws images of 64 pixels.
        smoke: Measure next to nothing, on small images.
    """
    extent = SMOKE if smoke else Extent()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        place = Path(temporary)
        os.environ["HF_VAE_CACHE"] = str(place / "cache")
        folder = train_data_dir or draw_pictures(place / "drawings")
        print_header("GPU", str(train_data_dir or "coloured shapes, drawn by the benchmark"))
        for size in extent.sizes:
            (place / str(size)).mkdir()
            pictures = load_pictures(folder, size)
            compare_loops(pictures, size, extent, place / str(size))
            time_prior(pictures, size, extent, place / str(size))


def compare_loops(pictures: Pictures, size: int, extent: Extent, place: Path) -> None:
    """Compares our loop with the plain one and with the ceiling, on the same network and on the default recipes."""
    images = to_float(pictures.splits.train[:BATCH_SIZE])
    files = pictures.train_files * math.ceil(BATCH_SIZE / len(pictures.train_files))  # it trains on whole batches
    plain = {"files": files, "num_workers": extent.workers, "image_size": size}
    contestants = {
        PLAIN: {"contestant": PlainLoop, **plain},
        OURS: {
            "contestant": OurLoop,
            "run": _our_run("vae", pictures, NETWORK | {"image_size": size}, extent, place / "vae"),
        },
        CEILING: {"contestant": Ceiling, "images": images, "compile_mode": extent.compile_mode},
    }
    for family in ("vae", "vaegan"):
        run = _our_run(family, pictures, extent.model | {"image_size": size}, extent, place / f"default-{family}")
        contestants[f"{family}, default recipe, ours"] = {"contestant": OurLoop, "run": run}
    with ExitStack() as stack:
        turns = {}
        for number, (name, arguments) in enumerate(contestants.items()):
            worker = stack.enter_context(Worker(Watched, place / f"{number}.log", **arguments))
            lead_in = 2 * extent.workers + 1 if name == PLAIN else 1
            turns[name] = Turn(worker, seconds=extent.seconds, lead_in=lead_in)
        found = take_turns(turns, extent.rounds)
        busy = {name: turn.worker.call("busy_share", extent.watched) for name, turn in turns.items()}
    rows = [
        [
            name,
            spread([BATCH_SIZE / step for step in found[name]], ".0f"),
            f"{1000 * statistics.median(found[name]):.1f}",
            "not measured" if busy[name] is None else f"{busy[name]:.0%}",
        ]
        for name in contestants
    ]
    print_table([f"{size}x{size}, batch {BATCH_SIZE}", "images/s (range)", "ms a step", "GPU busy"], rows)
    times, share = ratios(found[PLAIN], found[OURS]), ratios(found[CEILING], found[OURS])
    print(f"Ours is {spread(times)} times as fast as the plain loop, and reaches {spread(share)} of the ceiling.\n")


def time_prior(pictures: Pictures, size: int, extent: Extent, place: Path) -> None:
    """Times the updates of the prior of a default VAE."""
    images = to_float(pictures.splits.train[:1024])
    with Worker(PriorLoop, place / "prior.log", images=images, size=extent.model | {"image_size": size}) as worker:
        speeds = worker.call("speeds", extent.prior_updates)
    rows = [[part, f"{speed:.1f}"] for part, speed in speeds.items()]
    print_table([f"prior of a default VAE, {size}x{size}", "updates/s"], rows)


def _our_run(family: str, pictures: Pictures, model: dict, extent: Extent, output_dir: Path) -> RunConfig:
    run = flags_to_run(family, flags_type(family)())
    length = {"max_train_steps": ENDLESS, "train_batch_size": BATCH_SIZE}
    train = dataclasses.replace(run.train, output_dir=str(output_dir), compile=extent.our_compile_mode, **length)
    data = DataConfig(train_data_dir=str(pictures.folder), color_jitter=COLOR_JITTER)
    return dataclasses.replace(run, model=run.model | model, data=data, train=train)


if __name__ == "__main__":
    tyro.cli(main, **FLAG_STYLE)
