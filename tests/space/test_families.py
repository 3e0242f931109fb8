"""FAMILIES is the one place that names families: a family that is registered there appears in the Space."""

import re
import shlex
import shutil
from pathlib import Path

import gradio as gr
import pytest
from conftest import REPOSITORY, tiny_model

import app
import live_training
from hf_vae.families import FAMILIES, Family
from hf_vae.models import DCGAN, Autoencoder
from hf_vae.objectives import AutoencoderObjective, DCGANObjective
from published import open_models, split_name
from tabs import about, compare, train_your_own


REGISTERED = tuple(FAMILIES)
SPACE_FILES = [file for file in sorted((REPOSITORY / "space").rglob("*")) if file.suffix in (".py", ".css")]


class SketchCode(Autoencoder):
    """An autoencoder of sketches
    (somebody 2030).

    Args: those of `Autoencoder`.
    """


class Noise(DCGAN):
    """A generator."""


@pytest.fixture
def sketch_code(monkeypatch) -> None:
    """Registers a family whose name begins with another one's."""
    monkeypatch.setitem(FAMILIES, "sketch", Family("Sketch", Noise, DCGANObjective))
    monkeypatch.setitem(FAMILIES, "sketch-code", Family("Sketch code", SketchCode, AutoencoderObjective))
    monkeypatch.setitem(FAMILIES, "noise", Family("Noise", Noise, DCGANObjective))


@pytest.fixture
def folders(sketch_code, published_models: Path, tmp_path: Path, monkeypatch) -> dict[str, Path]:
    """The models that the Space finds, one of them of the new family."""
    shutil.copytree(published_models, tmp_path / "cards")
    shutil.copytree(published_models / "faces-autoencoder", tmp_path / "cards" / "faces-sketch-code-large")
    tiny_model("sketch-code").save_pretrained(tmp_path / "cards" / "faces-sketch-code-large")
    monkeypatch.delenv("HF_VAE_MODELS", raising=False)
    monkeypatch.setattr(app, "MODEL_CARDS", (tmp_path / "cards", tmp_path / "absent"))
    return app.find_models()


def test_its_models_stand_in_the_place_of_the_family(folders):
    assert list(folders) == [*(f"faces-{name}" for name in REGISTERED), "faces-sketch-code-large"]
    assert split_name("faces-sketch-code-large") == ("faces", "sketch-code")
    models = open_models(folders).models
    groups = {"faces": [model for model in models.values() if model.has_encoder]}
    assert "faces-sketch-code-large" in [model.name for model in groups["faces"]]
    grids, *_, table = compare.compare_sharpness({"faces": list(models.values())}, "faces", 0)
    assert grids[-1][1] == list(table["model"])[-1] == "faces-sketch-code-large"


def test_it_is_offered_and_described(folders):
    demo = app.build_demo(folders)
    dropdowns = [block for block in demo.blocks.values() if isinstance(block, gr.Dropdown)]
    offered = [dropdown.choices for dropdown in dropdowns if dropdown.label == "Family"]
    assert len(offered) == 2
    titles = [(family.title, name) for name, family in FAMILIES.items()]
    assert all(list(map(tuple, choices)) == titles for choices in offered)
    lines = about.describe_families().splitlines()
    assert len(lines) == len(FAMILIES)
    assert "- **Sketch code.** An autoencoder of sketches (somebody 2030)." in lines
    assert all(any(f"**{family.title}.**" in line for line in lines) for family in FAMILIES.values())
    command = shlex.split(train_your_own.training_command("sketch-code", "cats", "64", 500, 1))
    assert command[3] == "sketch-code"


def test_a_short_run_uses_a_small_latent_space_if_the_family_has_a_choice(sketch_code, tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(
        "import pathlib, sys\n"
        "run = pathlib.Path(sys.argv[sys.argv.index('--output_dir') + 1])\n"
        "run.mkdir()\n"
        "(run / 'flags.txt').write_text(' '.join(sys.argv[1:]))\n"
        "(run / 'training.json').touch()\n"
    )
    monkeypatch.setattr(live_training, "SCRIPT", tmp_path / "script.py")
    monkeypatch.setattr(live_training, "SECONDS_BETWEEN_LOOKS", 0.05)
    for name, family in FAMILIES.items():
        run = tmp_path / name
        list(live_training.train_live(tmp_path, run, name, size=32, minutes=1, seed=0))
        flags = (run / "flags.txt").read_text()
        assert flags.startswith(f"{name} --")
        assert ("--latent_size 4" in flags) == ("--prior gaussian" in flags) == family.model.has_encoder


@pytest.mark.parametrize("file", SPACE_FILES, ids=lambda file: file.name)
def test_no_file_of_the_space_names_a_family(file):
    names = [word for key, family in FAMILIES.items() for word in (key, family.title, family.model.__name__)]
    text = file.read_text().replace("hf-vae", "")
    assert not re.findall(rf"\b({'|'.join(names)})\b", text, flags=re.IGNORECASE)
