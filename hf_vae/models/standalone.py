"""The code that travels with the weights: a model's module and all that it is built from, as one file."""

import json
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path

from diffusers import __version__ as diffusers_version


RELATIVE_IMPORT = re.compile(r"^from (\.+\w+) import (?:\([^)]*\)|.*)\n", re.MULTILINE)
PIPELINE_MODULE, PIPELINE_CLASS = "diffusers_pipeline", "ImageGenerationPipeline"
PIPELINE_CONFIG = "model_index.json"  # as diffusers calls it


def standalone_source(module_name: str) -> str:
    """The source of an imported module and of the pipeline around it, after that of every module that they import
    relatively, sub-packages included: one file that imports only libraries. It is one file because diffusers follows
    the imports of a folder's first file no further, and on the Hub asks again for each of them."""
    module = sys.modules[module_name]
    if module.__file__ is None:
        raise ValueError(f"{module_name} has no file, and so no source that can travel with the weights.")
    seen: set[str] = set()
    sources = [*_sources(module_name, Path(module.__file__), seen)]
    if Path(__file__).with_name(f"{PIPELINE_MODULE}.py").is_file():  # else this is such a file, and has the pipeline
        sources += _sources_of(f"{__package__}.{PIPELINE_MODULE}", seen)
    return "\n\n".join(sources)


def pipeline_config(module: str, class_name: str) -> str:
    """The content of `model_index.json` for a class in `module`.py, which diffusers' `DiffusionPipeline` reads. It has
    to name a library for the class, and would look for a module of ours in a folder; the pipeline knows better."""
    config = {
        "_class_name": [module, PIPELINE_CLASS],
        "_diffusers_version": diffusers_version,
        "model": ["diffusers", class_name],
    }
    return json.dumps(config, indent=2) + "\n"


def _sources(module_name: str, file: Path, seen: set[str]) -> Iterator[str]:
    seen.add(module_name)
    source = file.read_text()
    package = module_name if file.name == "__init__.py" else module_name.rpartition(".")[0]
    for name in RELATIVE_IMPORT.findall(source):
        imported = resolve_name(name, package)
        if imported not in seen:
            yield from _sources_of(imported, seen)
    yield RELATIVE_IMPORT.sub("", source)


def _sources_of(module_name: str, seen: set[str]) -> Iterator[str]:
    spec = find_spec(module_name)
    assert spec is not None and spec.origin is not None, module_name
    yield from _sources(module_name, Path(spec.origin), seen)
