"""docs/your-own-pictures.md: every command runs as it stands there, in a folder with photos of any size.

What makes it quick is not in the commands: `train_accelerate.py` is one that adds tiny settings to its arguments, and
the photos are few and small. The last command, which serves the Space until it is stopped, is asked for its page.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import REPOSITORY, draw_picture
from PIL import Image


PAGE = REPOSITORY / "docs" / "your-own-pictures.md"
TINY_TRAINING = f"""
import runpy, sys

sys.path.insert(0, {str(REPOSITORY)!r})
sys.argv += "--image_size 32 --latent_dim 32 --latent_size 4 --width 8 --max_width 16 --train_batch_size 4".split()
if "--max_train_minutes" in sys.argv:  # a run by the clock would take its minutes
    place = sys.argv.index("--max_train_minutes")
    del sys.argv[place : place + 2]
sys.argv += "--max_train_steps 3 --preview_steps 2 --lr_warmup_steps 1".split()
if "--prior_steps 0" not in " ".join(sys.argv):
    sys.argv += ["--prior_steps", "2"]
runpy.run_path({str(REPOSITORY / "train_accelerate.py")!r}, run_name="__main__")
"""


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.fixture
def place(tmp_path) -> Path:
    """A copy of the repository as far as the page needs it, with photos of many sizes."""
    (tmp_path / "photos").mkdir()
    for number in range(24):
        size = (40 + 37 * number % 300, 40 + 53 * number % 200)
        draw_picture(number, size).save(tmp_path / "photos" / f"IMG_{number:04d}.JPG")
    (tmp_path / "space").symlink_to(REPOSITORY / "space")
    (tmp_path / "train_accelerate.py").write_text(TINY_TRAINING)
    (tmp_path / "bin").mkdir()
    hf_vae = f"#!{sys.executable}\nfrom hf_vae.commands.main import main\n\nmain()\n"
    (tmp_path / "bin" / "hf-vae").write_text(hf_vae)
    (tmp_path / "bin" / "hf-vae").chmod(0o755)
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_page_does_what_the_page_says(place):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{place / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "HF_VAE_CACHE": str(place / "cache"),
        "GRADIO_SERVER_PORT": str(port),
        "HF_HUB_OFFLINE": "1",
    }
    *finite, serve = commands()
    assert "space/app.py" in serve
    printed = ""
    for command in finite:
        done = subprocess.run(
            ["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        printed += done.stdout
    assert "images       24, of which training would use 24" in printed and "Reconstruction PSNR" in printed
    for name in ("photos.png", "drawn.png", "sweep.png", "compared.png", "runs/photos-vae/samples.png"):
        Image.open(place / name).verify()
    assert (place / "runs" / "photos-vaegan" / "README.md").is_file()
    page = serve_and_read(serve, place, environment, f"http://127.0.0.1:{port}/config")
    assert "photos-vae" in page and "photos-vaegan" in page


def serve_and_read(command: str, place: Path, environment: dict[str, str], address: str) -> str:
    """What a server that the command starts answers; it is stopped then."""
    server = subprocess.Popen(["bash", "-c", command], cwd=place, env=environment, start_new_session=True)
    try:
        for _ in range(240):
            assert server.poll() is None, "the Space has stopped"
            try:
                with urllib.request.urlopen(address, timeout=5) as answer:
                    return answer.read().decode()
            except OSError:
                time.sleep(0.5)
        raise AssertionError("the Space does not answer")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def test_the_page_names_no_flag_that_does_not_exist():
    """Quick, so that it is not the slow test alone that watches the page."""
    import train_accelerate

    for command in commands():
        if command.startswith("python train_accelerate.py"):
            run = train_accelerate.parse_arguments(command.split()[2:])
            assert run.data.train_data_dir == "photos"
