"""The programs in examples/ run as they are. examples/browser runs in tests/space/test_browser.py."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from PIL import Image


EXAMPLES = REPOSITORY / "examples"
NOTEBOOK = EXAMPLES / "hf_vae.ipynb"


def run_program(code: str, folder: Path, *arguments: str) -> str:
    """What Python code prints that is run in a folder, as in a program of its own."""
    environment = os.environ | {"HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_diffusers_alone_loads_a_model_of_the_repository(tmp_path):
    script = EXAMPLES / "auto_model.py"
    code = f"import runpy, sys; sys.modules['hf_vae'] = None; runpy.run_path({str(script)!r}, run_name='__main__')"
    assert "Latents (2, 1024)" in run_program(code, tmp_path)
    assert Image.open(tmp_path / "samples.png").size == (4 * 64, 4 * 64)
    assert Image.open(tmp_path / "morph.png").size == (8 * 64, 64)


@pytest.mark.parametrize("family", ["dcgan", "autoencoder"])
def test_it_loads_a_model_with_and_without_an_encoder(family, published_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["auto_model.py", str(published_models / f"faces-{family}")])
    runpy.run_path(str(EXAMPLES / "auto_model.py"), run_name="__main__")
    assert Image.open("samples.png").size == (4 * 28, 4 * 28)
    assert Path("morph.png").exists() == (family == "autoencoder")


def test_a_space_is_used_from_python(shared_space, tmp_path):
    script = EXAMPLES / "space_client.py"
    code = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    printed = run_program(code, tmp_path, shared_space.address, "--model", "faces-vae")
    assert printed.splitlines() == [f"faces-vae, seed 7, image {number}, temperature 1" for number in range(1, 5)]
    (sample,), (moved,) = (list(tmp_path.glob(f"{name}.*")) for name in ("sample", "moved"))
    assert Image.open(sample).size == Image.open(moved).size == (28, 28)
    assert Image.open(tmp_path / "morph.gif").n_frames > 20


def test_the_model_and_the_address_that_it_takes_by_default_are_those_of_the_demo():
    source = (EXAMPLES / "space_client.py").read_text()
    assert 'default="http://127.0.0.1:7860"' in source
    assert (REPOSITORY / "model_cards" / re.search(r'"--model", default="(.*?)"', source)[1]).is_dir()


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    (tmp_path / "examples").mkdir()
    for name in ("model_cards", "train_accelerate.py"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path / "examples")}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()  # an error of a cell is raised
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(shown) == 7  # a grid for every cell that ends in one
    assert (tmp_path / "runs" / "notebook-vae" / "README.md").is_file()


def test_every_example_is_listed():
    listed = set(re.findall(r"^\| \[([^]]+)\]", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    assert {path.name for path in EXAMPLES.iterdir() if path.name != "README.md"} <= listed
