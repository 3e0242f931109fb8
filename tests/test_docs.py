"""The documentation is true: its Python runs, its commands exist, its links lead somewhere.

All commands of docs/your-own-pictures.md run in tests/test_own_pictures.py.
"""

import functools
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
import tyro
from conftest import REPOSITORY, draw_picture

import train_accelerate
from hf_vae.commands import main
from hf_vae.families import FAMILIES, Family, new_model
from hf_vae.flags import FLAG_STYLE
from hf_vae.objectives.batch import Batch


CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
LINKED = [*PAGES, CONTRIBUTING, *(REPOSITORY / name for name in ("SECURITY.md", "CHANGELOG.md", "examples/README.md"))]
WITH_TESTS_OF_THEIR_OWN = {"hub.md", "latent-diffusion.md"}  # test_hub.py, test_latent_diffusion.py run their Python
RUN_HERE = [page for page in PAGES if page.name not in WITH_TESTS_OF_THEIR_OWN]


def blocks(page, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page) -> list[list[str]]:
    """The words of every command in a page's bash blocks, and of every command with arguments in its tables."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    in_tables = re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^\|.*", page.read_text(), re.MULTILINE)))
    lines = [*text.splitlines(), *(line for line in in_tables if len(line.split()) > 2)]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("page", [page for page in RUN_HERE if blocks(page, "python")], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, monkeypatch, tmp_path):
    (tmp_path / "model_cards").symlink_to(REPOSITORY / "model_cards")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_VAE_CACHE", str(tmp_path / "cache"))
    names = {"photo": draw_picture(1), "photo_a": draw_picture(2), "photo_b": draw_picture(3)}
    for number, name in enumerate(("photo.jpg", "other_photo.jpg")):
        draw_picture(number).save(tmp_path / name)
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)
    assert names.keys() > {"photo", "photo_a", "photo_b"}  # it has imported and computed something


def recorded(name: str, calls: list[str]) -> Callable[..., None]:
    """A command that takes the same arguments, and does nothing."""

    @functools.wraps(main.COMMANDS[name])
    def record(*_, **__) -> None:
        calls.append(name)

    return record


HF_VAE = [(page.name, words) for page in PAGES for words in commands(page) if words[0] == "hf-vae"]
TRAINING = [
    (page.name, words[words.index("train_accelerate.py") + 1 :])
    for page in PAGES
    for words in commands(page)
    if "train_accelerate.py" in words
]


@pytest.mark.parametrize(("page", "words"), HF_VAE, ids=lambda value: value if isinstance(value, str) else value[1])
def test_commands_of_a_page_take_the_arguments_that_it_gives(page, words):
    calls: list[str] = []
    stand_ins = {name: recorded(name, calls) for name in main.COMMANDS}
    tyro.extras.subcommand_cli_from_dict(stand_ins, args=words[1:], **FLAG_STYLE)
    assert calls == [words[1]]


@pytest.mark.parametrize(("page", "arguments"), TRAINING, ids=lambda value: value if isinstance(value, str) else "")
def test_trainings_of_a_page_can_be_started(page, arguments, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    run = train_accelerate.parse_arguments(arguments)
    assert run.data.dataset_name or run.data.train_data_dir


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text)
    missing = [target for target in targets if not os.path.exists(page.parent / target)]
    assert not missing


def test_every_page_is_listed():
    listed = set(re.findall(r"\]\(([^)]+)\)", (REPOSITORY / "docs" / "README.md").read_text()))
    assert {page.name for page in PAGES if page.parent.name == "docs" and page.name != "README.md"} <= listed


def example(heading: str, package: str, name: str, monkeypatch, number: int = 0) -> ModuleType:
    """A module of `package` made from a Python block of a section of CONTRIBUTING.md."""
    section = CONTRIBUTING.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    code = re.findall(r"^ *```python\n(.*?)^ *```", section, re.DOTALL | re.MULTILINE)[number]
    module = ModuleType(f"{package}.{name}")
    module.__package__ = package
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(textwrap.dedent(code), module.__name__, "exec"), module.__dict__)
    return module


def test_the_family_in_contributing_trains(monkeypatch, tmp_path):
    model = example("Add a family", "hf_vae.models", "bounded", monkeypatch).BoundedAutoencoder
    objective = example("Add a family", "hf_vae.objectives", "bounded", monkeypatch, 1).BoundedObjective
    monkeypatch.setitem(FAMILIES, "bounded", Family("Bounded autoencoder", model, objective))
    arguments = ["bounded", "--train_data_dir", str(tmp_path), "--output_dir", str(tmp_path), "--error_weight", "2"]
    run = train_accelerate.parse_arguments([*arguments, "--resolution", "28", "--width", "8", "--max_width", "16"])
    network, images = new_model(run), torch.rand(2, 3, 28, 28) * 2 - 1
    loss, logs = run.objective.steps["model"]({"model": network}, Batch(images, number=0, seed=0))
    loss.backward()
    assert logs["loss"] > 0 and network.encode(images).latents.abs().max() <= 1


def test_the_prior_in_contributing_is_sampled(monkeypatch):
    from hf_vae.models import priors

    prior = example("Add a prior", "hf_vae.models.priors", "truncated", monkeypatch).TruncatedPrior
    monkeypatch.setitem(priors.PRIORS, "truncated", prior)
    latents = priors.LatentPrior(latent_dim=4, kind="truncated").sample(1000, "truncated")
    assert latents.shape == (1000, 4) and latents.abs().max() <= 4 * 2
