"""How long visitors of the Space wait: for the page after the start of the process, and for each action, on published
models that are already loaded. Times are measured at the server, from a call's values to its answer, and at
`gradio_client` on the same machine, which includes the queue and the connection.

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
from collections.abc import Callable
from pathlib import Path

import gradio as gr
from gradio_client import Client, handle_file

from benchmarks.pictures import draw_pictures
from benchmarks.report import print_header, print_table


SPACE = Path(__file__).parent.parent / "space"
sys.path.insert(0, str(SPACE))  # like `python space/app.py`

from app import LAUNCH_OPTIONS, build_demo, find_models  # noqa: E402


REPEATS = 7


def main() -> None:
    """Starts the Space twice, once in its own process, performs each action a few times, and prints the medians."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        ready = time_start()
        rows = [["page ready after the process started", f"{ready:.2f} s", "", "10 s"]]
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


def time_start() -> float:
    """Seconds from the start of the process until the page answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port)}
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, str(SPACE / "app.py")], env=environment, stdout=subprocess.DEVNULL
    ) as server:
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/").close()
                    return time.perf_counter() - start
                except OSError:
                    time.sleep(0.05)
        finally:
            server.terminate()


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
