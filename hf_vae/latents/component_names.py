"""The names of principal components, stored beside the weights: what a slider changes, where it is known."""

import json
from collections.abc import Mapping
from pathlib import Path

from ..models.loading import refuse_lfs_pointer
from ..run_folder import COMPONENTS_FILE, write_json


MAX_BYTES = 100_000
MAX_LETTERS = 80  # of a name


def write_component_names(
    folder: Path, names: Mapping[int, str], effects: Mapping[str, list[list[float]]] | None = None
) -> Path:
    """Writes `components.json` into a model's folder, replacing an earlier one, and returns its path.

    Args:
        folder: Folder of the model.
        names: The name of each component that has one, by its number from 0.
        effects: What they were chosen by: for each measure, the effect of each component in each set of samples.
    """
    content = {
        "names": {str(number): name for number, name in names.items()},
        "effects": {
            measure: [[round(effect, 3) for effect in row] for row in sets]
            for measure, sets in (effects or {}).items()
        },
    }
    write_json(folder, COMPONENTS_FILE, content)
    return folder / COMPONENTS_FILE


def read_component_names(folder: Path) -> dict[int, str]:
    """The names of the components of the model in `folder`, by number from 0; empty if it has none.

    Raises:
        ValueError: If the file is not as `write_component_names` writes it.
    """
    path = folder / COMPONENTS_FILE
    if not path.is_file():
        return {}
    refuse_lfs_pointer(path, "names of components")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes: it does not hold names of components.")
    try:
        names = json.loads(path.read_bytes())["names"]
        found = {int(number): name for number, name in names.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for number, name in found.items():
        if number < 0 or not (isinstance(name, str) and 0 < len(name) <= MAX_LETTERS and name.isprintable()):
            raise ValueError(f"{path} has a name that is not possible, of component {number}.")
    return found
