"""What is installed and what it talks to: versions and digests that belong together, and no network before it is asked
for."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import gradio as gr
import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import app


PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def pins(file: str) -> dict[str, str]:
    """The version of each package that a file of requirements pins."""
    return {canonicalize_name(name): version for name, version in PINNED.findall((REPOSITORY / file).read_text())}


def requirements() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for: as "main", and under the names of its extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lists = {"main": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: [Requirement(line) for line in lines if not line.startswith("hf_vae")] for extra, lines in lists.items()
    }


def test_every_dependency_is_pinned_to_a_version_that_is_allowed():
    for lines in requirements().values():
        for requirement in lines:
            version = pins("constraints.txt").get(canonicalize_name(requirement.name))
            assert version and requirement.specifier.contains(version), requirement


def test_the_lock_has_the_versions_of_the_constraints_and_a_digest_for_each():
    lock = pins("requirements.lock")
    entries = re.split(r"\n(?=[a-z0-9])", (REPOSITORY / "requirements.lock").read_text())[1:]
    assert len(entries) == len(lock) and all("--hash=sha256:" in entry for entry in entries)
    constraints = pins("constraints.txt")
    differing = {name for name in lock.keys() & constraints.keys() if lock[name] != constraints[name]}
    assert not differing
    for extra in ("main", "train", "metrics", "space"):
        assert all(canonicalize_name(requirement.name) in lock for requirement in requirements()[extra])


WITHOUT_NETWORK = """
import importlib, pkgutil, socket, sys

def refuse(*arguments, **options):
    raise AssertionError(f"the network was asked for at import: {arguments}")

for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse

import hf_vae
for module in pkgutil.walk_packages(hf_vae.__path__, "hf_vae."):
    importlib.import_module(module.name)
import app, train_accelerate
print("imported", len([name for name in sys.modules if name.startswith("hf_vae")]))
"""


@pytest.mark.fault("imports without a network", "no connection is attempted")
def test_importing_everything_asks_for_no_network():
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "space")])
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WITHOUT_NETWORK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) > 40


def test_the_space_reports_to_nobody(published_models: Path):
    demo = app.build_demo({folder.name: folder for folder in published_models.iterdir()})
    assert isinstance(demo, gr.Blocks) and demo.analytics_enabled is False


@pytest.mark.parametrize("target", ["install", "demo", "space", "test"])
def test_every_target_builds_an_environment_that_can_train(target):
    command = ["make", "--dry-run", "--always-make", target]
    planned = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert '--editable ".[train,space]"' in planned
    assert ('--editable ".[dev]"' in planned) == (target == "test")
