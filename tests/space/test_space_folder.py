"""What `make space` writes: a folder that is a Space by itself."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import REPOSITORY
from gradio_client import Client
from space_process import running_space


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("build") / "space"
    command = ["make", "--silent", "-C", str(REPOSITORY), "space", f"SPACE={target}"]
    subprocess.run(command, check=True)
    return target


def test_it_holds_the_page_the_package_the_models_and_nothing_else(folder):
    assert {path.name for path in folder.iterdir()} >= {"app.py", "README.md", "requirements.txt", "hf_vae"}
    models = {path.parent.name for path in (folder / "model_cards").glob("*/config.json")}
    assert models == {path.parent.name for path in (REPOSITORY / "model_cards").glob("*/config.json")}
    assert not [path for path in folder.rglob("*") if path.name in ("__pycache__", "runs", "tests", ".venv", ".git")]
    assert max(path.stat().st_size for path in folder.rglob("*")) <= 16 * 2**20


def test_its_pins_are_the_tested_ones(folder):
    constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = re.findall(r"^(?:# )?(\S+==\S+)$", (folder / "requirements.txt").read_text(), flags=re.MULTILINE)
    assert len(pins) >= 5 and set(pins) <= set(constraints)
    front_matter = (folder / "README.md").read_text().split("---")[1]
    assert f"gradio=={re.search(r'sdk_version: (.*)', front_matter).group(1)}" in constraints
    assert 'python_version: "3.1' in front_matter


def test_it_asks_for_what_the_package_imports(folder):
    """But for what gradio and diffusers bring themselves."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    pinned = set(re.findall(r"^(\S+)==", (folder / "requirements.txt").read_text(), flags=re.MULTILINE))
    assert needed - pinned == {"huggingface_hub", "safetensors", "numpy", "pillow", "jinja2"}


def answers_from(folder: Path, python: Path) -> int:
    """Starts the Space in its folder with an interpreter, and returns how many pictures it draws when asked for 3."""
    where = "import importlib.util; print(importlib.util.find_spec('hf_vae').origin)"
    found = subprocess.run([python, "-c", where], cwd=folder, capture_output=True)
    assert Path(found.stdout.decode().strip()).is_relative_to(folder)
    with running_space(folder.parent / "cache", folder / "app.py", python) as (address, _):
        model = next((folder / "model_cards").glob("*/config.json")).parent.name
        settings = {"model": model, "count": 3, "seed": 1, "temperature": 1, "prior": "own"}
        return len(Client(address, verbose=False).predict(**settings, api_name="/sample"))


def test_it_starts_by_itself(folder):
    assert answers_from(folder, Path(sys.executable)) == 3


@pytest.mark.slow
def test_it_starts_in_an_environment_of_its_own(folder, tmp_path):
    """With what its README and requirements.txt ask for and nothing else; the package indexes have to be reachable."""
    gradio = re.search(r"sdk_version: (.*)", (folder / "README.md").read_text()).group(1)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    constraints = ["--constraint", str(REPOSITORY / "constraints.txt")]
    packages = ["-r", str(folder / "requirements.txt"), f"gradio=={gradio}"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, *packages], check=True)
    assert answers_from(folder, python) == 3
