"""How long visitors of the Space wait: from the start of the process to the page, and for each thing they do, on the
published models, warm, at the server.

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

from gradio_client import Client, handle_file

from benchmarks.pictures import draw_pictures
from benchmarks.report import print_header, print_table


ROOT = Path(__file__).parent.parent
REPEATS = 7


def main() -> None:
    """Starts the Space, does each thing a few times, and prints the medians."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": folder}
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, str(ROOT / "space" / "app.py")], env=environment, stdout=subprocess.DEVNULL
        ) as server:
            try:
                address = f"http://127.0.0.1:{port}/"
                rows = [("page ready after the process started", wait_for(address, start), 10.0)]
                rows += time_visits(Client(address, verbose=False, download_files=False), Path(folder))
            finally:
                server.terminate()
    print_header("What visitors of the Space wait for", "drawn ones")
    print_table(["", "median", "aim"], [[what, f"{seconds:.2f} s", f"{aim:g} s"] for what, seconds, aim in rows])


def wait_for(address: str, start: float) -> float:
    """Seconds from `start` until the page answers."""
    while True:
        try:
            urllib.request.urlopen(address).close()
            return time.perf_counter() - start
        except OSError:
            time.sleep(0.05)


def time_visits(client: Client, folder: Path) -> list[tuple[str, float, float]]:
    """What visitors do, the median seconds that it takes once the models are loaded, and how long it may take."""
    paths = sorted(draw_pictures(folder / "pictures").iterdir())[:2]
    start, end = (handle_file(str(path)) for path in paths)
    drawing = {"temperature": 1.0, "prior": "own"}
    walk = {"start_seed": 0, "end_seed": 0, "path": "slerp", "frames": 48, "speed": 16, "file_format": "webp"}
    visits: dict[str, tuple[Callable[[], object], float]] = {
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
        "an animation of 48 frames": (
            lambda: client.predict(models=["cats-vae"], start=start, end=end, **walk, api_name="/interpolate"),
            2.0,
        ),
    }
    return [(what, median_seconds(visit), aim) for what, (visit, aim) in visits.items()]


def median_seconds(visit: Callable[[], object]) -> float:
    """The median of some visits after a first one, which loads the model."""
    visit()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        visit()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
