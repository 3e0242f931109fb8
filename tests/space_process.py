"""The Space as a separate process, for tests that need one."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import REPOSITORY


START_SECONDS = 90  # the machine may be busy


class SpaceProcess(NamedTuple):
    """A running Space: its address, its process and the folder of its uploads."""

    address: str
    process: subprocess.Popen
    cache: Path


@contextmanager
def running_space(
    cache: Path, app: Path = REPOSITORY / "space" / "app.py", python: Path = Path(sys.executable), **environment: str
) -> Iterator[tuple[str, subprocess.Popen]]:
    """Starts `app` with its uploads in `cache`, and yields its address and process. It listens on GRADIO_SERVER_PORT,
    or on a free port. Its output is in `space.log` beside the cache and must contain no traceback in the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = environment.get("GRADIO_SERVER_PORT", str(probe.getsockname()[1]))
    log = cache.parent / "space.log"
    settings = {"GRADIO_SERVER_PORT": port, "GRADIO_TEMP_DIR": str(cache)} | environment
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_VAE_MODELS")}
    with log.open("a") as output:
        process = subprocess.Popen(
            [python, str(app)], cwd=app.parent, env=inherited | settings, stdout=output, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}/"
    try:
        _wait_for(address, process, log)
        yield address, process
    finally:
        process.terminate()
        process.wait(10)
    assert "Traceback" not in log.read_text()


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"The Space did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def shared_space(published_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpaceProcess]:
    """One Space for all tests that only use it. It shows `faces-<family>`, a tiny model of each family with a card,
    and reports `broken-vae`, which cannot be loaded."""
    root = tmp_path_factory.mktemp("shared-space")
    shutil.copytree(published_models, root / "models")
    for folder in (root / "models").iterdir():
        (folder / "README.md").write_text(f"# {folder.name}\n\nMeasured on images that were held out.\n")
    (root / "models" / "broken-vae").mkdir()
    (root / "models" / "broken-vae" / "config.json").write_text("{")
    models = ",".join(map(str, sorted((root / "models").iterdir())))
    with running_space(root / "cache", HF_VAE_MODELS=models, PYTHONPATH=str(REPOSITORY)) as (address, process):
        yield SpaceProcess(address, process, root / "cache")
