"""Weights that lie in installed packages: their files are opened, and no code of the packages is run."""

import hashlib
from importlib.util import find_spec
from pathlib import Path


def packaged_file(package: str, file: str, digest: str, install: str) -> Path:
    """The path of a `file` in an installed `package`, without importing it.

    Raises:
        ValueError: If it is not there, or its SHA-256 is not `digest`.
    """
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / file if folders else None
    if path is None or not path.is_file():
        raise ValueError(f"The package {package.replace('_', '-')} is not installed: {install}.")
    with path.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
            raise ValueError(f"{path} has other weights than hf_vae was tested with. Reinstall it: {install}.")
    return path
