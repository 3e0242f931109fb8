"""The layering of the package, read from its source: what a file may import, and what it may not name."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from hf_vae.families import FAMILIES
from hf_vae.models.priors import PRIORS


ROOT = Path(__file__).parent.parent
MODEL_LIBRARIES = {"torch", "diffusers", "safetensors", "huggingface_hub", *sys.stdlib_module_names}
SPACE_MAY_NOT_IMPORT = ("training", "data", "publishing", "commands")


def module_name(file: Path) -> str:
    """A file's name below the package: `models/vae.py` is `models.vae`, `models/__init__.py` is `models`."""
    parts = file.relative_to(ROOT / "hf_vae").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(file): file for file in sorted((ROOT / "hf_vae").rglob("*.py"))}
SPACE_FILES = sorted((ROOT / "space").rglob("*.py"))


def imported_names(file: Path) -> Iterator[tuple[int, str]]:
    """Every import in a file, inside functions too, as its number of leading dots and dotted name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, f"{node.module}.{alias.name}".removeprefix("None.")) for alias in node.names)


def imported_modules(file: Path) -> set[str]:
    """The modules of the package that a file imports."""
    found = set()
    for level, name in imported_names(file):
        if level:
            name = ".".join((*file.relative_to(ROOT).parts[:-level], name))
        if name.split(".")[0] == "hf_vae":
            parts = name.split(".")[1:]
            candidates = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
            found.add(next((candidate for candidate in candidates if candidate in MODULES), "__init__"))
    return found


def test_imports_keep_the_contracts_of_every_folder(monkeypatch):
    """They are in pyproject.toml; `lint-imports` explains what breaks them."""
    monkeypatch.chdir(ROOT)
    assert lint_imports(cache_dir=None) == 0


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "models"])
def test_models_import_nothing_that_cannot_travel_with_the_weights(module):
    outside = [name for name in imported_modules(MODULES[module]) if name.split(".")[0] != "models"]
    assert not outside, f"{module} imports {outside}"
    for level, name in imported_names(MODULES[module]):
        assert level or name.split(".")[0] in MODEL_LIBRARIES, f"{module} imports {name}"


@pytest.mark.parametrize(
    "name",
    [name for key, family in FAMILIES.items() for name in (key, family.model.__name__, family.objective.__name__)],
)
def test_training_names_no_family(name):
    for module in MODULES:
        if module.split(".")[0] == "training":
            assert not re.search(rf"\b{name}\b", MODULES[module].read_text(), re.IGNORECASE), module


@pytest.mark.slow
def test_a_model_is_used_in_an_environment_with_the_base_dependencies_alone(tmp_path):
    """The package indexes have to be reachable."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = ["--quiet", "--constraint", str(ROOT / "constraints.txt"), str(ROOT)]
    subprocess.run([python, "-m", "pip", "install", *install], check=True)
    found = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout.lower()
    assert "torch==" in found and not re.search(r"^(accelerate|datasets|scikit-learn|gradio)==", found, re.MULTILINE)
    code = (
        "from hf_vae import AutoGenerator, ImagePipeline\n"
        f"pipe = ImagePipeline.from_pretrained({str(ROOT / 'model_cards' / 'cats-vae')!r})\n"
        "image = pipe.sample(2, seed=0).images[0]\n"
        "print(len(pipe.reconstruct(image).images), len(pipe.vary(image, 0, [-1.0, 1.0]).images))"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "1 2", done.stderr[-3000:]


@pytest.mark.parametrize("file", SPACE_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_space_neither_trains_nor_loads_data_sets(file):
    assert not [name for name in imported_modules(file) if name.split(".")[0] in SPACE_MAY_NOT_IMPORT]


@pytest.mark.parametrize("kind", PRIORS)
def test_no_other_room_names_a_prior(kind):
    """A quoted name is a comparison or a default of its own."""
    for module in MODULES:
        if not module.startswith("models."):
            text = MODULES[module].read_text()
            assert f'"{kind}"' not in re.sub(r'""".*?"""', "", text, flags=re.DOTALL), module


WITH_INFERENCE_ALONE = """
import sys

unused = ["tyro", "docstring_parser", "typeguard", "sklearn", "accelerate", "datasets", "tensorboard", "psutil"]
sys.modules |= dict.fromkeys([*unused, "hf_vae.objectives", "hf_vae.training", "hf_vae.data"])  # importing None fails
import torch
from hf_vae import VAE, AutoGenerator, ImagePipeline

model = AutoGenerator.from_pretrained("model_cards/cats-vae")
assert type(model) is type(VAE.from_pretrained("model_cards/cats-vae")) is VAE
image, other = model.sample(2, torch.Generator().manual_seed(0))
assert model.reconstruct(image[None]).shape == (1, 3, 64, 64) and model.interpolate(image, other, 3).shape[0] == 3
pipe = ImagePipeline.from_pretrained("model_cards/cats-vae")
one, two = pipe.sample(2, seed=0, num_steps=2).images
assert len(pipe.reconstruct([one, two]).images) == 2 and len(pipe.interpolate(one, two, 3).images) == 3
assert len(pipe.vary(one, 0, [-1.0, 1.0]).images) == 2
assert not [name for name in unused if sys.modules[name]]
assert not {"hf_vae.families", "hf_vae.flags", "hf_vae.config", "hf_vae.evaluation"} & sys.modules.keys()
"""


def test_using_a_model_needs_nothing_that_trains_one():
    command = [sys.executable, "-c", WITH_INFERENCE_ALONE]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_families_are_imported_when_they_are_asked_for():
    import hf_vae

    assert hf_vae.FAMILIES is FAMILIES and "FAMILIES" in hf_vae.__all__
    with pytest.raises(AttributeError, match="no attribute 'FAMILY'"):
        _ = hf_vae.FAMILY


HELP = """
import runpy, sys

try:
    {}
except SystemExit as done:
    assert not done.code
heavy = ["torch._dynamo", "sympy", "scipy", "sklearn", "datasets", "pandas", "torchmetrics", "cv2", "gradio"]
print("imported", [name for name in heavy if name in sys.modules])
"""
HELPS = [
    "from hf_vae.commands.main import main; sys.argv[1:] = ['--help']; main()",
    "from hf_vae.commands.main import main; sys.argv[1:] = ['sample', '--help']; main()",
    "sys.argv[1:] = ['vae', '--help']; runpy.run_path('train_accelerate.py', run_name='__main__')",
]


@pytest.mark.parametrize("code", HELPS)
def test_help_waits_for_no_library_that_it_does_not_need(code):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HELP.format(code)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert "--help" in done.stdout and done.stdout.splitlines()[-1] == "imported []", done.stderr[-3000:]


COMPILING = """
import hf_vae.commands, sys, torch

assert "torch._dynamo" not in sys.modules
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
"""


def test_a_command_can_still_compile_networks():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COMPILING]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_package_lists_what_it_imports_when_asked_for():
    import hf_vae

    assert set(hf_vae.__all__) <= set(dir(hf_vae)) and all(getattr(hf_vae, name) for name in hf_vae.__all__)


WITHOUT_TRAINING_EXTRA = """
import sys

sys.modules |= dict.fromkeys(["accelerate", "datasets", "tensorboard", "psutil", "sklearn"])  # importing None fails
import hf_vae, hf_vae.pipeline, app
"""


def test_the_space_and_the_package_need_nothing_of_the_training_extra():
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'space'}"}
    command = [sys.executable, "-c", WITHOUT_TRAINING_EXTRA]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
