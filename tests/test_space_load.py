"""Many visitors at once."""

import time
from pathlib import Path

import psutil
from conftest import REPOSITORY
from gradio_client import Client
from gradio_client.utils import Status
from space_process import running_space


VISITORS = 32
ROUNDS = 3


def draw_at_once(visitors: list[Client], first_seed: int) -> tuple[list[str], list[int]]:
    """All visitors ask for samples, each once the one before is in the queue: the seeds of what each got, in their
    order, and their places in the order in which they got it."""
    finished: list[int] = []
    jobs = []
    for place, visitor in enumerate(visitors):
        jobs.append(
            visitor.submit(
                model="faces-vae",
                count=4,
                seed=first_seed + place,
                temperature=1,
                prior="own",
                api_name="/sample",
                result_callbacks=lambda *_, place=place: finished.append(place),
            )
        )
        while jobs[-1].status().code in (Status.STARTING, Status.JOINING_QUEUE):
            time.sleep(0.005)  # so that there is an order to keep
    captions = [job.result()[0]["caption"] for job in jobs]
    while len(finished) < len(visitors):
        time.sleep(0.01)
    return [caption.split("seed ")[1].split(",")[0] for caption in captions], finished


def test_visitors_at_once_are_served_in_order_without_an_error(published_models: Path, tmp_path: Path):
    models = ",".join(map(str, sorted(published_models.iterdir())))
    memory = []
    with running_space(tmp_path / "cache", HF_VAE_MODELS=models, PYTHONPATH=str(REPOSITORY)) as (address, process):
        visitors = [Client(address, verbose=False, download_files=False) for _ in range(VISITORS)]
        for first_seed in range(0, 100 * ROUNDS, 100):
            seeds, finished = draw_at_once(visitors, first_seed)
            assert seeds == [str(first_seed + place) for place in range(VISITORS)]  # each got what it asked for
            assert all(abs(rank - place) <= 3 for rank, place in enumerate(finished))  # answers travel for a moment
            memory.append(psutil.Process(process.pid).memory_info().rss)
    assert memory[-1] < 1.05 * memory[0]
