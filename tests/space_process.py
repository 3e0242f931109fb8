"""The Space as a program of its own, for the tests that need one."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import REPOSITORY


START_SECONDS = 90  # the machine may be busy training


@contextmanager
def running_space(
    cache: Path, app: Path = REPOSITORY / "space" / "app.py", python: Path = Path(sys.executable), **environment: str
) -> Iterator[tuple[str, subprocess.Popen]]:
    """Starts `app` with its uploads in `cache` and gives where it answers, and the process. Its output is in
    `space.log` beside the cache, and holds no traceback in the end. Its port is free, or GRADIO_SERVER_PORT."""
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
