"""The layering of the package, read from its source: what a file may import, and what it may not name."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_vae.families import FAMILIES


ROOT = Path(__file__).parent.parent
LAYERS = [
    {"files", "ranges", "licenses", "diffusers_flags", "forecast", "batches", "transforms", "losses", "directions"}
    | {f"models.{name}" for name in ("flow", "blocks", "detail", "paths", "loading", "source")},
    {"config", "images", "models.prior"},
    {"presets", "machine", "listing", "split"},
    {"sources"},
    {"models.base", "models.layers"},
    {"models.autoencoder", "models.vae", "models.dcgan", "models.vaegan"},
    {"models"},
    {"objectives", "latents", "metrics", "datasets", "export", "efficientnet"},
    {"families", "streaming", "priors", "details", "features", "inversion", "labels", "probes"},
    {"trainees", "checkpoints", "interruptions", "trackers", "batch_size", "previews", "inspection", "hub"},
    {"logs", "validation"},
    {"preflight"},
    {"dry_run"},
    {"training", "evaluation", "feature_training"},
    {"recipes"},
    {"conversion"},
    {"pipeline", "__init__"},
    {"cards"},
    {"comparison"},
    {"commands", "commands.arguments", "commands.picture_files"},
    {"commands.pictures", "commands.measures", "commands.data", "commands.directions"},
    {"cli"},
]
LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer}
MODEL_LIBRARIES = {"torch", "diffusers", "safetensors", "huggingface_hub", *sys.stdlib_module_names}
SPACE_MAY_NOT_IMPORT = {"training", "sources", "datasets", "streaming"}


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


def test_every_module_has_a_layer():
    assert set(MODULES) <= set(LAYER_OF), f"not in LAYERS above: {set(MODULES) - set(LAYER_OF)}"


@pytest.mark.parametrize("module", [name for name in MODULES if name in LAYER_OF])
def test_imports_go_upwards_only(module):
    later = {name for name in imported_modules(MODULES[module]) if LAYER_OF.get(name, 0) > LAYER_OF[module]}
    assert not later, f"{module} imports {later}, which lie further down"


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "models"])
def test_models_import_nothing_that_cannot_travel_with_the_weights(module):
    for level, name in imported_names(MODULES[module]):
        assert level == 1 or (level == 0 and name.split(".")[0] in MODEL_LIBRARIES), f"{module} imports {name}"


@pytest.mark.parametrize(
    "name",
    [name for key, family in FAMILIES.items() for name in (key, family.model.__name__, family.objective.__name__)],
)
def test_training_names_no_family(name):
    assert not re.search(rf"\b{name}\b", MODULES["training"].read_text(), re.IGNORECASE)


@pytest.mark.parametrize("file", SPACE_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_space_neither_trains_nor_loads_data_sets(file):
    assert not imported_modules(file) & SPACE_MAY_NOT_IMPORT


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
