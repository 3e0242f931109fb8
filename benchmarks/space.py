"""How long visitors of the Space wait: for the page after the start of the process, and for each action, on published
models that are already loaded. Times are measured at the server, from a call's values to its answer, and at
`gradio_client` on the same machine, which includes the queue and the connection. The memory of a Space whose models
were all used comes last.

python benchmarks/space.py
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import psutil
from gradio_client import Client, handle_file

from benchmarks.pictures import draw_pictures
from benchmarks.report import print_header, print_table
from hf_vae.families import split_name


SPACE = Path(__file__).parent.parent / "space"
sys.path.insert(0, str(SPACE))  # like `python space/app.py`

from app import LAUNCH_OPTIONS, build_demo, find_models, share_cores  # noqa: E402


REPEATS = 7
REST = 5  # seconds without a visitor before memory is measured


def main() -> None:
    """Starts the Space twice, once in its own process, performs each action a few times, and prints the medians."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        with started_space() as (server, address, ready):
            at_first, at_rest = memory_at_rest(server, address, Path(folder))
        rows = [["page ready after the process started", f"{ready:.2f} s", "", "10 s"]]
        share_cores()
        demo = build_demo(find_models())
        at_server = time_calls(demo)
        _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
        try:
            client = Client(address, verbose=False, download_files=False)
            for what, (visit, aim) in visits(client, Path(folder)).items():
                at_client = time_visit(visit)
                waits = [statistics.median(seconds[-REPEATS:]) for seconds in (at_server, at_client)]
                rows.append([what, *(f"{wait:.2f} s" for wait in waits), f"{aim:g} s"])
        finally:
            demo.close(verbose=False)
    print_header("What visitors of the Space wait for", "drawn ones")
    print_table(["", "at the server", "at the client", "aim"], rows)
    print(f"Resident memory: {at_first:.0f} MB when the page is ready, {at_rest:.0f} MB with all models used.")


@contextmanager
def started_space() -> Iterator[tuple[subprocess.Popen, str, float]]:
    """The process of a Space, its address, and the seconds from its start until the page answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    environment = os.environ | {"GRADIO_SERVER_PORT": address.strip("/").rpartition(":")[2]}
    start = time.perf_counter()
    command = [sys.executable, str(SPACE / "app.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            while server.poll() is None:
                try:
                    urllib.request.urlopen(address).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield server, address, time.perf_counter() - start
        finally:
            server.terminate()


def memory_at_rest(server: subprocess.Popen, address: str, folder: Path) -> tuple[float, float]:
    """The resident memory of a Space in MB: when its page is ready, and when samples were generated with every model,
    an image was reconstructed by every model with an encoder, and it has been at rest for a few seconds."""
    process = psutil.Process(server.pid)
    ready = process.memory_info().rss / 1e6
    client = Client(address, verbose=False, download_files=False)
    picture = handle_file(str(next(draw_pictures(folder / "drawn").iterdir())))
    models = find_models()
    for name in models:
        client.predict(model=name, count=16, seed=1, temperature=1.0, prior="own", api_name="/sample")
    for data_set in dict.fromkeys(split_name(name)[0] for name in models):
        client.predict(picture=picture, data_set=data_set, cut="centre", api_name="/reconstruct")
    time.sleep(REST)
    return ready, process.memory_info().rss / 1e6


def time_calls(demo: gr.Blocks) -> list[float]:
    """Makes `demo` record the seconds that each call takes, in the list that is returned."""
    seconds, process = [], demo.process_api

    async def process_and_time(*arguments: object, **options: object) -> dict:
        start = time.perf_counter()
        answer = await process(*arguments, **options)
        seconds.append(time.perf_counter() - start)
        return answer

    demo.process_api = process_and_time
    return seconds


def visits(client: Client, folder: Path) -> dict[str, tuple[Callable[[], object], float]]:
    """The actions of visitors, and how many seconds each may take at the server."""
    paths = sorted(draw_pictures(folder / "pictures").iterdir())[:2]
    start, end = (handle_file(str(path)) for path in paths)
    drawing = {"temperature": 1.0, "prior": "own"}
    walk = {"start_seed": 0, "end_seed": 0, "path": "slerp", "frames": 48, "speed": 16, "file_format": "webp"}
    return {
        "16 samples, VAE, flow": (
            lambda: client.predict(model="cats-vae", count=16, seed=1, **drawing, api_name="/sample"),
            0.3,
        ),
        "16 samples, DC-GAN": (
            lambda: client.predict(model="cats-dcgan", count=16, seed=1, **drawing, api_name="/sample"),
            0.3,
        ),
        "reconstructions by every family": (
            lambda: client.predict(picture=start, data_set="cats", cut="centre", api_name="/reconstruct"),
            0.2,
        ),
        "a slider that moves": (
            lambda: client.predict(
                model="cats-vae", seed=1, **drawing, picture=None, component_1=1.5, api_name="/latent_pca"
            ),
            0.15,
        ),
        "a named slider of an upload, 128 px": (
            lambda: client.predict(
                model="utkface-vaegan", seed=1, **drawing, picture=start, sliders="smile=1.5", api_name="/edit"
            ),
            0.2,
        ),
        "an animation of 48 frames": (
            lambda: client.predict(models=["cats-vae"], start=start, end=end, **walk, api_name="/interpolate"),
            2.0,
        ),
    }


def time_visit(visit: Callable[[], object]) -> list[float]:
    """The seconds that some visits take, after a first one that loads the model."""
    visit()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        visit()
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
