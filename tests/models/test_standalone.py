"""The code that travels with the weights."""

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from diffusers import AutoModel
from diffusers.configuration_utils import register_to_config
from hub_server import Hub
from safetensors.torch import load_file

from hf_vae import FAMILIES, VAE, AutoGenerator
from hf_vae.publishing.hub import published_files


# What people do where hf_vae is not installed: importing it fails as if it were not there.
WITHOUT_US = """
import sys

sys.modules["hf_vae"] = None
import torch
from diffusers import AutoModel
from safetensors.torch import save_file

places, output = sys.argv[1:-1], sys.argv[-1]
drawn = {}
for number, place in enumerate(places):
    model = AutoModel.from_pretrained(place, trust_remote_code=True)
    drawn[f"{number} sample"] = model.sample(3, generator=torch.Generator().manual_seed(5))
    if model.has_encoder:
        images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
        drawn[f"{number} reconstruct"] = model.reconstruct(images)
        drawn[f"{number} interpolate"] = model.interpolate(*images, num_images=5)
model.save_pretrained(output)  # again with the code
drawn["saved again"] = AutoModel.from_pretrained(output, trust_remote_code=True).sample(
    3, generator=torch.Generator().manual_seed(5)
)
save_file(drawn, f"{output}/drawn.safetensors")
"""


def run_without_us(places: list[str], output: Path, home: Path, endpoint: str) -> dict[str, torch.Tensor]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", WITHOUT_US, *places, str(output)]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(output / "drawn.safetensors")


def test_a_folder_and_a_repository_work_where_this_package_is_not_installed(published_models, tmp_path):
    folders = [published_models / f"faces-{family}" for family in FAMILIES]
    with Hub() as server:
        server.add("me/faces", {path.name: path.read_bytes() for path in published_files(folders[0])})
        drawn = run_without_us([*map(str, folders), "me/faces"], tmp_path / "again", tmp_path, server.url)
    images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for number, folder in enumerate([*folders, folders[0]]):
        model = AutoGenerator.from_pretrained(folder)
        samples = model.sample(3, generator=torch.Generator().manual_seed(5))
        torch.testing.assert_close(drawn[f"{number} sample"], samples)
        if model.has_encoder:
            torch.testing.assert_close(drawn[f"{number} reconstruct"], model.reconstruct(images))
            torch.testing.assert_close(drawn[f"{number} interpolate"], model.interpolate(*images, num_images=5))
    torch.testing.assert_close(drawn["saved again"], samples)


SHIPPED = sorted(config.parent for config in (REPOSITORY / "model_cards").glob("*/config.json"))
OPEN_SHIPPED = """
import sys

sys.modules["hf_vae"] = None
import torch
from diffusers import AutoModel
from safetensors.torch import save_file

*places, output = sys.argv[1:]
drawn = {}
for place in places:
    model = AutoModel.from_pretrained(place, trust_remote_code=True)
    drawn[place] = model.sample(2, generator=torch.Generator().manual_seed(5))
    assert drawn[place].shape == (2, model.config.image_channels, model.config.image_size, model.config.image_size)
    if model.has_encoder:
        assert model.reconstruct(drawn[place]).shape == drawn[place].shape
save_file(drawn, output)
"""


def test_every_shipped_folder_works_where_this_package_is_not_installed(tmp_path):
    assert len(SHIPPED) >= 10
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", OPEN_SHIPPED, *map(str, SHIPPED), str(tmp_path / "drawn.safetensors")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = load_file(tmp_path / "drawn.safetensors")
    for folder in SHIPPED:
        samples = AutoGenerator.from_pretrained(folder).sample(2, generator=torch.Generator().manual_seed(5))
        torch.testing.assert_close(drawn[str(folder)], samples)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_code_of_a_shipped_folder_is_what_a_push_would_write(folder, tmp_path):
    (reference,) = json.loads((folder / "config.json").read_text())["auto_map"].values()
    name = f"{reference.split('.')[0]}.py"
    AutoGenerator.class_of(folder).save_source(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {name, "model_index.json"}
    for file in tmp_path.iterdir():
        assert (folder / file.name).is_file() and (folder / file.name).read_text() == file.read_text(), (
            f"{folder / file.name} is not what hf_vae/models says; write it with `make model-code`"
        )
        assert folder / file.name in published_files(folder)
    assert [file.name for file in folder.glob("*.py")] == [name]


def test_a_morph_starts_and_ends_at_the_reconstructions(family, published_models, images):
    model = AutoGenerator.from_pretrained(published_models / f"faces-{family}")
    if not model.has_encoder:
        with pytest.raises(ValueError, match="has no encoder"):
            model.interpolate(*images[:2])
        return
    frames = model.interpolate(*images[:2], num_images=4)
    torch.testing.assert_close(frames[[0, -1]], model.reconstruct(images[:2]), atol=1e-5, rtol=0)
    assert torch.equal(frames, model.interpolate(*images[:2], num_images=4, kind=model.latent_prior.default_path))
    straight = model.interpolate(*images[:2], num_images=4, kind="lerp")
    assert not torch.equal(frames[1], straight[1])
    with pytest.raises(ValueError, match="at least 2 images; got 1"):
        model.interpolate(*images[:2], num_images=1)


def test_code_beside_the_weights_runs_only_where_it_is_asked_for(family, published_models, tmp_path, capfd, recwarn):
    model = AutoGenerator.from_pretrained(published_models / f"faces-{family}")
    model.save_pretrained(tmp_path)
    (tmp_path / f"{family}.py").write_text("raise SystemExit('this ran')")
    capfd.readouterr()
    assert AutoGenerator.from_pretrained(tmp_path).config["latent_dim"] == 8
    assert not capfd.readouterr().err and not recwarn.list
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoModel.from_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="this ran"):
        AutoModel.from_pretrained(tmp_path, trust_remote_code=True)


class NotebookVAE(VAE):
    """A family that somebody defined beside their own notes."""

    @register_to_config
    def __init__(self, image_size: int = 28, latent_dim: int = 8, output_size: int | None = None):
        super().__init__(image_size, 3, latent_dim, 1, 8, 16)


def test_a_class_of_somebody_elses_file_does_not_take_that_file_along(tmp_path):
    NotebookVAE().save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


def test_the_modules_can_be_joined_to_one_file():
    names = Counter()
    folder = REPOSITORY / "hf_vae" / "models"
    for file in sorted(set(folder.rglob("*.py")) - {folder / "__init__.py"}):
        tree = ast.parse(file.read_text())
        relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        assert all(node in tree.body for node in relative), f"{file.name} imports inside a function"
        assert not [alias for node in relative for alias in node.names if alias.asname], f"{file.name} renames"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names[node.name] += 1
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
    assert not [name for name, count in names.items() if count > 1]
