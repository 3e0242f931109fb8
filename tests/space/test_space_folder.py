"""What `make space` writes: a folder that is a Space by itself, with the shipped models or one's own."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import gradio as gr
import pytest
from conftest import REPOSITORY
from gradio_client import Client
from huggingface_hub import SpaceCard
from space_process import running_space

import app
from hf_vae.families import title_of
from hf_vae.publishing import cards, space
from hf_vae.publishing.space import SpaceModel, write_space


def make_space(target: Path, *variables: str) -> Path:
    """What `make space` writes with this environment, as it is installed."""
    scripts = Path(sys.executable).parent
    command = ["make", "--silent", "--old-file=.venv/installed", "-C", str(REPOSITORY), "space", f"BIN={scripts}"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([*command, f"SPACE={target}", *variables], check=True, env=environment)
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_space(tmp_path_factory.mktemp("build") / "space")


@pytest.fixture(scope="module")
def own(published_models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with two models of one's own, which are not among the shipped ones."""
    models = " ".join(str(published_models / name) for name in ("faces-vaegan", "faces-dcgan"))
    return make_space(tmp_path_factory.mktemp("own") / "space", f"MODELS={models}")


def test_it_holds_the_page_the_package_the_models_and_nothing_else(folder):
    assert {path.name for path in folder.iterdir()} >= {"app.py", "README.md", "requirements.txt", "hf_vae"}
    models = {path.parent.name for path in (folder / "model_cards").glob("*/config.json")}
    assert models == {path.parent.name for path in (REPOSITORY / "model_cards").glob("*/config.json")}
    assert not [path for path in folder.rglob("*") if path.name in ("__pycache__", "runs", "tests", ".venv", ".git")]
    assert max(path.stat().st_size for path in folder.rglob("*")) <= 16 * 2**20


def test_the_shipped_models_and_the_page_are_those_of_the_repository(folder):
    for shipped in ("space", "hf_vae", "model_cards"):
        copied = folder if shipped == "space" else folder / shipped
        for path in (REPOSITORY / shipped).rglob("*"):
            place = path.relative_to(REPOSITORY / shipped)
            is_kept = shipped != "model_cards" or (path.parent / "config.json").is_file()
            if path.is_file() and "__pycache__" not in place.parts and is_kept:
                assert (copied / place).read_bytes() == path.read_bytes(), place


def test_own_models_are_shown_under_their_names_in_place_of_the_shipped_ones(own, published_models):
    assert {path.name for path in (own / "model_cards").iterdir()} == {"faces-vaegan", "faces-dcgan"}
    card = SpaceCard.load(own / "README.md")
    assert card.data.title == "faces-vaegan and faces-dcgan, side by side" and f"# {card.data.title}\n" in card.text
    assert card.data.tags == ["hf_vae", "vaegan", "dcgan", "latent-space", "image-generation"]
    shipped = SpaceCard.load(REPOSITORY / "space" / "README.md").data
    for name in ("sdk", "sdk_version", "python_version", "app_file", "license", "suggested_hardware"):
        assert getattr(card.data, name) == getattr(shipped, name), name
    assert all(len(data.short_description) <= 60 for data in (card.data, shipped))  # the Hub refuses longer ones
    assert 'models=["faces-vaegan", "faces-dcgan"]' in card.text and 'data_set="faces"' in card.text
    assert "cats" not in card.content and "🐱" not in card.content
    for file in ("config.json", "metrics.json", "diffusion_pytorch_model.safetensors"):
        copied = own / "model_cards" / "faces-dcgan" / file
        assert copied.read_bytes() == (published_models / "faces-dcgan" / file).read_bytes()


def test_a_run_gives_its_published_files_alone_and_no_path_of_this_machine(finished_run, published_models, tmp_path):
    run = shutil.copytree(finished_run("vae"), tmp_path / "vae")
    shutil.copy(published_models / "faces-vae" / "metrics.json", run)
    cards.write_card(run)
    model = write_space(tmp_path / "space", [SpaceModel(run)]) / "model_cards" / "vae"
    written = {path.name for path in model.rglob("*")}
    assert {"README.md", "config.json", "metrics.json", "samples.png"} <= written
    assert not written & {"paths.json", "log.jsonl", "previews", "logs"} and not list(model.glob("checkpoint-*"))
    place = str(json.loads((run / "paths.json").read_text())["data"]["train_data_dir"]).encode()
    assert not [path for path in model.parent.parent.rglob("*") if path.is_file() and place in path.read_bytes()]


def test_what_is_no_space_is_refused_before_anything_is_written(published_models, tmp_path, monkeypatch):
    vae, target = published_models / "faces-vae", tmp_path / "space"
    shutil.copytree(vae, tmp_path / "other" / "faces-vae")
    with pytest.raises(ValueError, match="Two models have the same name in faces-vae, faces-vae; rename"):
        write_space(target, [SpaceModel(vae), SpaceModel(tmp_path / "other" / "faces-vae")])
    (tmp_path / "other" / "faces-vae" / "metrics.json").unlink()
    with pytest.raises(
        ValueError, match=r"has no metrics\.json.*run `hf-vae evaluate .*other/faces-vae --save` first"
    ):
        write_space(target, [SpaceModel(tmp_path / "other" / "faces-vae")])
    with pytest.raises(ValueError, match="other is not empty; choose another folder"):
        write_space(tmp_path / "other", [SpaceModel(vae)])
    monkeypatch.setattr(space, "CLONE", tmp_path)  # where a wheel has no page
    with pytest.raises(ValueError, match=r"Clone the repository and run `pip install -e \.` in it"):
        write_space(target, [SpaceModel(vae)])
    assert not target.exists()


def test_the_title_names_the_models_of_the_variable(published_models, folder, monkeypatch):
    models = {name: published_models / name for name in ("faces-vae", "faces-dcgan")}
    monkeypatch.delenv("HF_VAE_MODELS", raising=False)
    assert app.build_demo(models).title == "Small VAEs and GANs, side by side"  # as README.md says
    for names, title in {
        ("faces-vae",): "faces-vae, a small image generator",
        ("faces-vae", "faces-dcgan"): "faces-vae and faces-dcgan, side by side",
    }.items():
        monkeypatch.setenv("HF_VAE_MODELS", ",".join(str(published_models / name) for name in names))
        demo = app.build_demo(app.find_models())
        assert demo.title == title
        texts = [block.value for block in demo.blocks.values() if isinstance(block, gr.Markdown)]
        assert any(text.startswith(f"# {title}\n") for text in texts)
    assert title_of(["a", "b", "c", "d"]) == "Small image generators, side by side"


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


def test_it_starts_with_own_models(own):
    assert answers_from(own, Path(sys.executable)) == 3


@pytest.mark.slow
def test_it_starts_in_an_environment_of_its_own(folder, own, tmp_path):
    """With what its README and requirements.txt ask for and nothing else; the package indexes have to be reachable."""
    gradio = re.search(r"sdk_version: (.*)", (folder / "README.md").read_text()).group(1)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    constraints = ["--constraint", str(REPOSITORY / "constraints.txt")]
    packages = ["-r", str(folder / "requirements.txt"), f"gradio=={gradio}"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, *packages], check=True)
    assert answers_from(folder, python) == answers_from(own, python) == 3
