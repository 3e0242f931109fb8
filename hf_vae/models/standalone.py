"""The code that travels with the weights: a model's module and all that it is built from, as one file."""

import re
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path


RELATIVE_IMPORT = re.compile(r"^from (\.+\w+) import (?:\([^)]*\)|.*)\n", re.MULTILINE)


def standalone_source(module_name: str) -> str:
    """The source of an imported module, after that of every module that it imports relatively, sub-packages included:
    one file that imports only libraries. It is one file because diffusers follows the imports of a folder's first file
    no further, and on the Hub asks again for each of them."""
    return "\n\n".join(_sources(module_name, set()))


def _sources(module_name: str, seen: set[str]) -> Iterator[str]:
    seen.add(module_name)
    module = sys.modules[module_name]
    if module.__file__ is None:
        raise ValueError(f"{module_name} has no file, and so no source that can travel with the weights.")
    source = Path(module.__file__).read_text()
    for name in RELATIVE_IMPORT.findall(source):
        imported = resolve_name(name, module.__package__)
        if imported not in seen:
            yield from _sources(imported, seen)
    yield RELATIVE_IMPORT.sub("", source)
