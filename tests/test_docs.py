"""The documentation says what is so: Python runs, commands exist, links lead somewhere.

docs/your-own-pictures.md, whose commands all run, has a test of its own.
"""

import functools
import os
import re
import shlex
from collections.abc import Callable

import pytest
import tyro
from conftest import REPOSITORY, draw_picture

import train_accelerate
from hf_vae.commands import main
from hf_vae.flags import FLAG_STYLE


PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
WITHOUT_A_HUB = [page for page in PAGES if page.name != "hub.md"]  # whose Python test_hub.py runs


def blocks(page, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page) -> list[list[str]]:
    """The words of every command in a page's bash blocks."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize(
    "page", [page for page in WITHOUT_A_HUB if blocks(page, "python")], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, monkeypatch, tmp_path):
    (tmp_path / "model_cards").symlink_to(REPOSITORY / "model_cards")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_VAE_CACHE", str(tmp_path / "cache"))
    names = {"photo": draw_picture(1), "photo_a": draw_picture(2), "photo_b": draw_picture(3)}
    for number, name in enumerate(("photo.jpg", "other_photo.jpg")):
        draw_picture(number).save(tmp_path / name)
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if not os.path.exists(page.parent / target)]
    assert not missing


def test_every_page_is_listed():
    listed = set(re.findall(r"\]\(([^)]+)\)", (REPOSITORY / "docs" / "README.md").read_text()))
    assert {page.name for page in PAGES if page.parent.name == "docs" and page.name != "README.md"} <= listed
