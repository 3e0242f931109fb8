"""Push and pull, and the presets' data sets, over HTTP, against a Hub on loopback. The client is a process of its own,
because huggingface_hub reads its environment when it is imported."""

import contextlib
import io
import json
import logging
import multiprocessing
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, draw_picture, tiny_flags
from gradio_client import Client
from hub_server import Hub
from huggingface_hub import SpaceCard, hf_hub_download
from PIL import Image
from space_process import running_space

import published
import train_accelerate
from hf_vae import AutoGenerator
from hf_vae.commands import main
from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.data.labels import load_labels
from hf_vae.data.presets import PRESETS, Preset
from hf_vae.publishing import hub
from hf_vae.publishing.space import push_space


MINE, SOMEBODY_ELSES, UNKNOWN = "hf_of_me", "hf_of_somebody_else", "hf_of_nobody"
WEIGHTS = "diffusion_pytorch_model.safetensors"
PUBLISHED = {"README.md", "config.json", "model_index.json", WEIGHTS, "metrics.json", "samples.png", "vae.py"}


@pytest.fixture(scope="module")
def loopback() -> Iterator[Hub]:
    """The Hub that all tests here share; each has repositories of its own."""
    with Hub() as server:
        yield server


@pytest.fixture(scope="module")
def client(loopback, tmp_path_factory) -> Iterator[Callable[..., Any]]:
    """Calls a function in a process whose Hub is the one on loopback, with an empty cache and nobody logged in."""
    environment = {
        "HF_ENDPOINT": loopback.url,
        "HF_HOME": str(tmp_path_factory.mktemp("hf-home")),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with mock.patch.dict(os.environ, environment):
            os.environ.pop("HF_TOKEN", None)
            pool.submit(os.getpid).result()
        yield lambda function, *arguments, **keywords: pool.submit(function, *arguments, **keywords).result()


@pytest.fixture
def run_folder(published_models, tmp_path) -> Path:
    """A finished run, with all that a run leaves behind."""
    folder = tmp_path / "faces-vae"
    shutil.copytree(published_models / "faces-vae", folder)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n\n# faces-vae\n")
    for name in ("checkpoint-6/optimizer.bin", "checkpoint-6/model.safetensors", "previews/1.png", "logs/events.1"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not for others")
    for name in ("log.jsonl", "notes.json", "own.py"):
        (folder / name).write_text("{}")
    return folder


def run_program(main: Callable[[], None], *arguments: str) -> str:
    """What a program prints, to wherever."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        sys.argv = ["program", *arguments]
        main()
    return printed.getvalue()


def push_without_waiting(*arguments: Any, **keywords: Any) -> str:
    """`hub.push`, without the seconds that the client waits before it tries again."""
    with mock.patch("time.sleep"):
        return hub.push(*arguments, **keywords)


def push_space_without_waiting(*arguments: Any, **keywords: Any) -> str:
    """The same for `push_space`."""
    with mock.patch("time.sleep"):
        return push_space(*arguments, **keywords)


def pull(repo_id: str, cache: Path, **keywords: Any) -> dict[str, torch.Tensor]:
    """The weights of a model on the Hub."""
    return AutoGenerator.from_pretrained(repo_id, cache_dir=cache, **keywords).state_dict()


def complaints_about(repo_id: str, cache: Path) -> list[str]:
    """What is said when a model is pulled: warnings, and the lines of the libraries' loggers."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    for library in ("diffusers", "huggingface_hub"):
        logging.getLogger(library).addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pull(repo_id, cache)
    return [*map(str, caught), *lines.getvalue().splitlines()]


def assert_equal_weights(pulled: dict[str, torch.Tensor], folder: Path) -> None:
    expected = AutoGenerator.from_pretrained(folder).state_dict()
    assert pulled.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(pulled[name], value), name


def files(server: Hub, repo_id: str, revision: str = "main") -> dict[str, bytes]:
    repository = server.repositories[repo_id]
    return repository.commits[repository.resolve(revision)]


def test_what_is_pushed_is_the_published_folder_and_what_is_pulled_is_the_same(loopback, client, run_folder, tmp_path):
    address = client(hub.push, run_folder, "faces", token=MINE)
    assert address.startswith(f"{loopback.url}/me/faces/commit/")
    assert set(files(loopback, "me/faces")) == PUBLISHED | {".gitattributes"}
    assert len(loopback.repositories["me/faces"].commits) == 2  # that of an empty repository, and one
    assert_equal_weights(client(pull, "me/faces", tmp_path / "cache"), run_folder)
    assert client(complaints_about, "me/faces", tmp_path / "another cache") == []


CARD = """---
license: cc0-1.0
---

# faces-vae

model = AutoGenerator.from_pretrained("{model}")  # faces-vae
pipe = ImagePipeline.from_pretrained("{model}")
other = AutoGenerator.from_pretrained("runs/other-faces-vae")

accelerate launch train_accelerate.py vae --output_dir runs/faces-vae
hf-vae evaluate {model} --train_data_dir data/faces-vae
hf-vae directions {model}
hf-vae evaluate other --train_data_dir data/faces-vae
The folder faces-vae, and `hf-vae evaluate faces-vae`.
"""


@pytest.mark.parametrize("written", ["faces-vae", "runs/faces-vae", "~/my-runs/faces-vae", "./faces-vae/"])
def test_a_pushed_card_names_the_repository_and_the_one_at_home_the_folder(loopback, client, run_folder, written):
    card = CARD.format(model=written).replace("\n", "\r\n").encode()
    (run_folder / "README.md").write_bytes(card)
    client(hub.push, run_folder, "faces-of-card", token=MINE)
    pushed = files(loopback, "me/faces-of-card")["README.md"]
    assert pushed == CARD.format(model="me/faces-of-card").replace("\n", "\r\n").encode()
    assert (run_folder / "README.md").read_bytes() == card


def test_a_folder_with_a_space_in_its_name_is_replaced_with_its_quotes():
    card = "hf-vae evaluate 'my runs/cats a' --json\nhf-vae evaluate x 'cats a'\nfrom_pretrained(\"cats\")\n"
    changed = card.replace("'my runs/cats a'", "me/cats")
    assert hub.card_for_repository(card, "cats a", "me/cats") == changed


def test_pointers_of_git_lfs_are_not_pushed(client, run_folder):
    (run_folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match="safetensors is a Git LFS pointer, not the file: run `git lfs pull`"):
        client(hub.push, run_folder, "me/pointers", token=MINE)


def test_an_upload_that_breaks_off_goes_on(loopback, client, run_folder, tmp_path):
    loopback.dropped_uploads = 1
    client(push_without_waiting, run_folder, "dropped", token=MINE)
    assert_equal_weights(client(pull, "me/dropped", tmp_path / "cache"), run_folder)


def test_an_upload_that_breaks_off_for_good_publishes_nothing(loopback, client, run_folder):
    (run_folder / WEIGHTS).write_bytes((run_folder / WEIGHTS).read_bytes() + b"longer than what the Hub has already")
    loopback.dropped_uploads = 6  # one try, and five more
    with pytest.raises(ValueError, match="^me/broken was not published: the connection to the Hub failed") as refusal:
        client(push_without_waiting, run_folder, "broken", token=MINE)
    assert "\n" not in str(refusal.value) and loopback.dropped_uploads == 0
    assert set(files(loopback, "me/broken")) == {".gitattributes"}
    client(hub.push, run_folder, "broken", token=MINE)
    assert files(loopback, "me/broken")[WEIGHTS] == (run_folder / WEIGHTS).read_bytes()


def test_an_existing_repository_is_updated_by_what_has_changed(loopback, client, run_folder):
    client(hub.push, run_folder, "updated", token=MINE)
    calls = len(loopback.calls)
    (run_folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Another card\n")
    client(hub.push, run_folder, "updated", token=MINE)
    assert b"Another card" in files(loopback, "me/updated")["README.md"]
    assert set(files(loopback, "me/updated")) == PUBLISHED | {".gitattributes"}
    assert not [call for call in loopback.calls[calls:] if call.startswith("PUT")]


def test_a_download_that_breaks_off_goes_on_where_it_was(loopback, client, run_folder, tmp_path):
    client(hub.push, run_folder, "half", token=MINE)
    loopback.dropped_downloads = 2  # the configuration, and the weights
    assert_equal_weights(client(pull, "me/half", tmp_path / "cache"), run_folder)
    assert loopback.dropped_downloads == 0


def test_a_private_repository_is_for_its_owner(loopback, client, run_folder, tmp_path):
    client(hub.push, run_folder, "secret", private=True, token=MINE)
    assert loopback.repositories["me/secret"].private
    assert_equal_weights(client(pull, "me/secret", tmp_path / "mine", token=MINE), run_folder)
    for token in (SOMEBODY_ELSES, None):
        with pytest.raises(ValueError, match="me/secret is neither a model folder here nor a model on the Hub"):
            client(pull, "me/secret", tmp_path / "theirs", token=token)


def test_what_is_public_is_not_taken_for_private(loopback, client, run_folder):
    client(hub.push, run_folder, "public", token=MINE)
    (run_folder / "README.md").write_text("# Not for everybody\n")
    with pytest.raises(ValueError, match="me/public exists and is public"):
        client(hub.push, run_folder, "public", private=True, token=MINE)
    assert b"Not for everybody" not in files(loopback, "me/public")["README.md"]


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "needs a token with write access: log in with `hf auth login`, set HF_TOKEN, or pass --token.$"),
        (UNKNOWN, "does not know the token; create one with write access"),
        (SOMEBODY_ELSES, "says that this token is read-only; it needs write access"),
    ],
)
def test_a_token_that_does_not_do_is_one_clear_sentence(token, message, loopback, client, run_folder):
    with pytest.raises(ValueError, match=message) as refusal:
        client(hub.push, run_folder, "me/refused", token=token)
    assert "\n" not in str(refusal.value) and "me/refused" not in loopback.repositories
    assert token is None or token not in str(refusal.value)


def test_a_pull_request_leaves_main_alone(loopback, client, run_folder, tmp_path):
    client(hub.push, run_folder, "reviewed", token=MINE)
    before = dict(files(loopback, "me/reviewed"))
    (run_folder / "README.md").write_text("# A better card\n")
    address = client(hub.push, run_folder, "me/reviewed", create_pr=True, token=SOMEBODY_ELSES)
    assert address == f"{loopback.url}/me/reviewed/discussions/1"
    assert files(loopback, "me/reviewed") == before
    assert files(loopback, "me/reviewed", "refs/pr/1")["README.md"] == b"# A better card\n"
    with pytest.raises(ValueError, match="pull request goes to main"):
        client(hub.push, run_folder, "me/reviewed", create_pr=True, tag="v2", token=MINE)


def test_a_branch_and_a_tag_pin_what_was_pushed(loopback, client, run_folder, published_models, tmp_path):
    client(hub.push, run_folder, "pinned", tag="v1", token=MINE)
    model = AutoGenerator.from_pretrained(run_folder)
    torch.nn.init.ones_(model.decoder.head.bias)
    model.save_pretrained(run_folder)
    client(hub.push, run_folder, "pinned", revision="brighter", token=MINE)
    assert_equal_weights(client(pull, "me/pinned", tmp_path / "cache", revision="brighter"), run_folder)
    for revision in ("v1", "main"):
        assert_equal_weights(
            client(pull, "me/pinned", tmp_path / "cache", revision=revision), published_models / "faces-vae"
        )
    with pytest.raises(ValueError, match="me/pinned already has a tag 'v1'"):
        client(hub.push, run_folder, "pinned", tag="v1", token=MINE)
    with pytest.raises(ValueError, match="Invalid rev id: v3"):
        client(pull, "me/pinned", tmp_path / "cache", revision="v3")


def test_a_tag_that_cannot_be_made_does_not_hide_that_the_files_are_there(loopback, client, run_folder):
    with pytest.raises(ValueError, match=r"^me/tagged is published, but has no tag 'v1\.\.2': the Hub answered 400"):
        client(hub.push, run_folder, "tagged", tag="v1..2", token=MINE)
    assert "config.json" in files(loopback, "me/tagged")


def test_the_command_pushes_and_refuses_in_one_line(loopback, client, run_folder):
    flags = ["--repo_id", "me/typed", "--private", "--tag", "v1.0", "--commit_message", "First", "--token", MINE]
    printed = client(run_program, main.main, "push", str(run_folder), *flags)
    assert f"{loopback.url}/me/typed/commit/" in printed and MINE not in printed
    assert loopback.repositories["me/typed"].private and loopback.repositories["me/typed"].messages[-1] == "First"
    assert set(files(loopback, "me/typed", "v1.0")) == PUBLISHED | {".gitattributes"}
    with pytest.raises(SystemExit, match="^Error: The Hub needs a token") as refusal:
        client(run_program, main.main, "push", str(run_folder), "--repo_id", "me/typed")
    assert "\n" not in refusal.value.code


def run_snippets(page: Path) -> dict[str, Any]:
    """Runs the Python of a page, top to bottom, and returns the shapes of the tensors that it leaves behind."""
    names = {"token": MINE, "images": torch.zeros(2, 3, 28, 28)}
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(snippet, names)
    return {name: tuple(value.shape) for name, value in names.items() if isinstance(value, torch.Tensor)}


def test_the_python_of_the_documentation_runs(client, run_folder):
    client(hub.push, run_folder, "cats-vae", tag="v1.0", token=MINE)
    shapes = client(run_snippets, REPOSITORY / "docs" / "hub.md")
    assert shapes["samples"] == (16, 3, 28, 28) and shapes["morph"] == (8, 3, 28, 28)
    assert shapes["reconstructions"] == shapes["images"] == (2, 3, 28, 28)


def push_model(folder: Path, repo_id: str, token: str) -> None:
    """What a user of diffusers would write."""
    AutoGenerator.from_pretrained(folder).push_to_hub(repo_id, token=token)


def test_a_model_pushes_itself(loopback, client, run_folder, tmp_path):
    client(push_model, run_folder, "me/itself", MINE)
    code = {"vae.py", "model_index.json"}
    assert set(files(loopback, "me/itself")) == {"README.md", "config.json", WEIGHTS, ".gitattributes", *code}
    assert_equal_weights(client(pull, "me/itself", tmp_path / "cache"), run_folder)


def sample_in_the_space(repo_id: str) -> tuple[int, bool]:
    """Opens a model as the Space does, and draws two pictures."""
    with mock.patch.dict(os.environ, {"HF_VAE_MODELS": repo_id}):
        import app

        model = published.open_models(app.find_models()).models[Path(repo_id).name]
    return len(model.pipeline.sample(2, seed=0).images), model.has_encoder


def test_the_space_shows_a_model_of_the_hub(client, run_folder):
    client(hub.push, run_folder, "shown-vae", token=MINE)
    assert client(sample_in_the_space, "me/shown-vae") == (2, True)


SPACE_PAGE = {"app.py", "README.md", "requirements.txt", "hf_vae/__init__.py", "tabs/generate.py"}


def push_both(folder: Path, *flags: str, repo_id: str = "me/leaves-vae", token: str = MINE) -> list[str]:
    """The lines that `hf-vae push` prints."""
    printed = run_program(main.main, "push", str(folder), "--repo_id", repo_id, "--token", token, *flags)
    return [line for line in printed.splitlines() if line.startswith("http")]


def test_one_command_publishes_a_model_and_a_space_that_starts(loopback, client, run_folder, tmp_path):
    """The Space holds the model: nothing is told about the Hub to the process that starts it."""
    (run_folder / "README.md").write_text('---\nlicense: mit\n---\n\nfrom_pretrained("runs/faces-vae")\n')
    model, page = client(push_both, run_folder, "--space", "leaves")
    assert model.startswith(f"{loopback.url}/me/leaves-vae/commit/") and page == f"{loopback.url}/spaces/me/leaves"
    assert set(files(loopback, "me/leaves-vae")) == PUBLISHED | {".gitattributes"}
    assert len(loopback.repositories["spaces/me/leaves"].commits) == 2  # that of an empty repository, and one
    uploaded = files(loopback, "spaces/me/leaves")
    assert set(uploaded) > SPACE_PAGE and not [path for path in uploaded if "__pycache__" in path]
    assert {path for path in uploaded if path.startswith("model_cards/")} == {
        f"model_cards/leaves-vae/{name}" for name in PUBLISHED
    }
    assert b'from_pretrained("me/leaves-vae")' in uploaded["model_cards/leaves-vae/README.md"]
    card = SpaceCard(uploaded["README.md"].decode())
    assert (card.data.title, card.data.models) == ("leaves-vae, a small image generator", ["me/leaves-vae"])
    assert (card.data.sdk, card.data.suggested_hardware) == ("gradio", "cpu-basic")
    assert 'Client("me/leaves")' in card.text and 'model="leaves-vae"' in card.text
    assert f"gradio=={card.data.sdk_version}" in (REPOSITORY / "constraints.txt").read_text()
    assert uploaded["requirements.txt"] == (REPOSITORY / "space" / "requirements.txt").read_bytes()

    for path, content in uploaded.items():
        (tmp_path / "space" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "space" / path).write_bytes(content)
    with running_space(tmp_path / "cache", tmp_path / "space" / "app.py") as (address, _):
        visitor = Client(address, verbose=False)
        assert visitor.config["title"] == "leaves-vae, a small image generator"
        settings = {"model": "leaves-vae", "count": 3, "seed": 1, "temperature": 1, "prior": "own"}
        assert len(visitor.predict(**settings, api_name="/sample")) == 3


def test_a_second_push_replaces_the_model_of_a_space_and_leaves_what_is_not_of_the_package(
    loopback, client, run_folder
):
    client(push_both, run_folder, "--space", "twice")
    repository = loopback.repositories["spaces/me/twice"]
    changed = files(loopback, "spaces/me/twice") | {
        "hf_vae/old.py": b"",
        "notes/mine.md": b"mine",
        "mine.txt": b"mine",
    }
    repository.commit(changed, "by hand", "refs/heads/main")
    client(push_both, run_folder, "--space", "twice", repo_id="me/faces-second-vae")
    uploaded = files(loopback, "spaces/me/twice")
    models = {path.split("/")[1] for path in uploaded if path.startswith("model_cards/")}
    assert models == {"faces-second-vae"} and "hf_vae/old.py" not in uploaded
    assert uploaded["notes/mine.md"] == uploaded["mine.txt"] == b"mine" and ".gitattributes" in uploaded
    assert b"faces-second-vae" in uploaded["README.md"]


def test_the_space_of_a_private_model_is_private(loopback, client, run_folder):
    client(push_both, run_folder, "--private", "--space", "hidden", repo_id="me/hidden-vae")
    assert loopback.repositories["me/hidden-vae"].private and loopback.repositories["spaces/me/hidden"].private
    client(push_both, run_folder, "--space", "also-hidden", repo_id="me/hidden-vae")  # it exists, and is private
    assert loopback.repositories["spaces/me/also-hidden"].private
    loopback.add("spaces/me/shown", {".gitattributes": b""})
    with pytest.raises(SystemExit, match="The model me/hidden-vae is published, .* me/shown exists and is public"):
        client(push_both, run_folder, "--space", "me/shown", repo_id="me/hidden-vae")
    assert set(files(loopback, "spaces/me/shown")) == {".gitattributes"}


def test_a_space_that_fails_does_not_hide_that_the_model_is_published(loopback, client, run_folder):
    loopback.refused_spaces.add("refused")
    loopback.add("spaces/me/game", {".gitattributes": b"", "app.py": b"print('my game')"})
    for name, reason in {
        "refused": "refused was not published: the Hub answered 402: You need a plan for this Space",
        "game": "me/game exists and shows another app; choose another name",
        "somebody/theirs": "somebody/theirs was not published: the Hub says that this token is read-only",
    }.items():
        with pytest.raises(SystemExit) as refusal:
            client(push_both, run_folder, "--space", name, repo_id=f"me/beside-{name.split('/')[-1]}")
        model = f"me/beside-{name.split('/')[-1]}"
        assert re.match(f"Error: The model {model} is published, but its Space is not. .*{reason}", refusal.value.code)
        assert "\n" not in refusal.value.code and MINE not in refusal.value.code
        assert "config.json" in files(loopback, model)
    assert files(loopback, "spaces/me/game") == {".gitattributes": b"", "app.py": b"print('my game')"}


def test_what_cannot_be_a_space_is_refused_before_the_model_is_published(loopback, client, run_folder):
    (run_folder / "metrics.json").unlink()
    with pytest.raises(SystemExit, match=r"has no metrics\.json, which a Space shows; run `hf-vae evaluate"):
        client(push_both, run_folder, "--space", "me/unmeasured", repo_id="me/unmeasured-vae")
    assert not {"me/unmeasured-vae", "spaces/me/unmeasured"} & loopback.repositories.keys()


def test_a_space_whose_upload_breaks_off_is_whole_or_not_there(loopback, client, run_folder):
    client(hub.push, run_folder, "halfway-vae", token=MINE)
    (run_folder / "samples.png").write_bytes((run_folder / "samples.png").read_bytes() + b"not on the Hub yet")
    loopback.dropped_uploads = 6  # one try, and five more
    with pytest.raises(ValueError, match="^me/halfway was not published: the connection to the Hub failed"):
        client(push_space_without_waiting, run_folder, "halfway-vae", "halfway", token=MINE)
    assert set(files(loopback, "spaces/me/halfway")) == {".gitattributes"} and loopback.dropped_uploads == 0
    assert client(push_space, run_folder, "halfway-vae", "halfway", token=MINE) == f"{loopback.url}/spaces/me/halfway"
    assert "app.py" in files(loopback, "spaces/me/halfway")


def test_a_training_pushes_its_model_and_keeps_its_token_to_itself(loopback, client, picture_folder, tmp_path):
    folder = tmp_path / "faces"
    sizes = "--image_size 28 --latent_dim 8 --latent_size 1 --width 8 --max_width 16 --train_batch_size 4"
    steps = "--max_train_steps 2 --checkpointing_steps 1 --preview_steps 1 --prior_steps 2 --report_to tensorboard"
    push = f"--push_to_hub --hub_model_id me/trained --hub_private_repo --hub_token {MINE}"
    arguments = [*f"vae {sizes} {steps}".split(), "--train_data_dir", str(picture_folder), "--output_dir", str(folder)]
    with pytest.raises(SystemExit, match="does not know the token"):
        client(run_program, train_accelerate.main, *arguments, "--push_to_hub", "--hub_token", UNKNOWN)
    assert not folder.exists()  # it was said before hours of training

    printed = client(run_program, train_accelerate.main, *arguments, *push.split())
    assert f"{loopback.url}/me/trained/commit/" in printed and MINE not in printed
    assert loopback.repositories["me/trained"].private
    pushed = files(loopback, "me/trained")
    assert PUBLISHED | {"train_config.json", "training.json", "timelapse.webp"} <= set(pushed)
    assert not [name for name in pushed if "checkpoint" in name or "log" in name or "/" in name]
    assert "hub_model_id" not in json.loads(pushed["train_config.json"])["train"]
    assert_equal_weights(client(pull, "me/trained", tmp_path / "cache", token=MINE), folder)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("events.") for path in written) and any("checkpoint-" in str(p) for p in written)
    assert not [path for path in written if MINE.encode() in path.read_bytes()]


def run_card(repo_id: str, folder: Path) -> dict[str, Any]:
    """Runs the Python of the card of a repository in a `folder` with two photos, as a visitor of its page would."""
    card = Path(hf_hub_download(repo_id, "README.md", token=MINE))
    os.chdir(folder)
    for number, name in enumerate(("photo.jpg", "other_photo.jpg")):
        draw_picture(number).save(name)
    names: dict[str, Any] = {}
    snippets = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
    for snippet in snippets:
        assert f'from_pretrained("{repo_id}"' in snippet
        exec(snippet, names)
    return {"count": len(snippets), "images": tuple(names["images"].shape), "pipe": type(names["pipe"]).__name__}


def test_the_snippets_of_a_card_run_against_its_repository(client, picture_folder, tmp_path):
    steps = "--train_batch_size 4 --max_train_steps 2 --preview_steps 0 --prior_steps 2"
    places = ["--train_data_dir", str(picture_folder), "--output_dir", str(tmp_path / "carded-vae")]
    push = f"--push_to_hub --hub_model_id me/carded-vae --hub_token {MINE}"
    client(run_program, train_accelerate.main, "vae", *tiny_flags("vae"), *steps.split(), *places, *push.split())
    found = client(run_card, "me/carded-vae", tmp_path)
    assert found == {"count": 2, "images": (16, 3, 28, 28), "pipe": "ImageGenerationPipeline"}


def serve_data_set(loopback: Hub, preset: Preset) -> None:
    """Puts twenty grey pictures on the Hub, as that preset's data set: of each the number is its grey and, modulo
    two, all of its labels; what the preset's crop leaves out is red."""
    columns: dict[str, list] = {preset.image_column: [], **{label: [] for label in preset.labels}}
    for number in range(20):
        picture = Image.new("RGB", (250, 250), "red")
        picture.paste((10 * number,) * 3, preset.crop_box or (0, 0, 250, 250))
        picture.save(encoded := io.BytesIO(), "PNG")
        columns[preset.image_column].append({"bytes": encoded.getvalue(), "path": None})
        for label in preset.labels:
            columns[label].append(number % 2)
    table = datasets.Dataset.from_dict(columns).cast_column(preset.image_column, datasets.Image())
    table.to_parquet(parquet := io.BytesIO())
    repo_id = f"datasets/{preset.dataset_name}"
    loopback.add(repo_id, {"data/train-00000-of-00001.parquet": parquet.getvalue()})
    repository = loopback.repositories[repo_id]
    repository.refs[preset.revision] = repository.resolve("main")


def pictures_and_labels(name: str) -> tuple[np.ndarray, dict[str, list]]:
    """The pictures of a preset, and their labels of each kind."""
    data = DataConfig(dataset_name=name)
    splits = load_images(data, 28, 3)
    return splits.train.images.numpy().copy(), {
        label: load_labels(data, label, splits) for label in PRESETS[name].labels
    }


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_finds_the_pictures_and_labels_of_its_data_set_on_the_hub(name, loopback, client):
    serve_data_set(loopback, PRESETS[name])
    images, labels = client(pictures_and_labels, name)
    greys = images[:, 0, 0, 0]
    assert greys.tolist() == list(range(0, 200, 10))
    assert (images == greys[:, None, None, None]).all()
    assert labels == dict.fromkeys(PRESETS[name].labels, [number % 2 for number in range(20)])


def pictures_of(name: str) -> np.ndarray:
    """The pictures of a dataset on the Hub."""
    return load_images(DataConfig(dataset_name=name), 28, 3).train.images.numpy().copy()


def test_picture_files_of_a_data_set_on_the_hub_are_read_from_where_they_were_downloaded(loopback, client):
    files = {}
    for number in range(6):
        Image.new("RGB", (40, 40), (40 * number,) * 3).save(encoded := io.BytesIO(), "PNG")
        files[f"train/{number}.png"] = encoded.getvalue()
    loopback.add("datasets/me/files", files)
    assert client(pictures_of, "me/files")[:, 0, 0, 0].tolist() == list(range(0, 240, 40))


def test_a_preset_can_be_trained_on_as_a_stream(loopback, client, tmp_path):
    serve_data_set(loopback, PRESETS["utkface"])
    flags = [*tiny_flags("vae"), "--dataset_name", "utkface", "--streaming", "--output_dir", str(tmp_path)]
    short = ["--max_train_steps", "1", "--train_batch_size", "4", "--prior_steps", "2"]
    client(run_program, train_accelerate.main, "vae", *flags, *short)
    assert PRESETS["utkface"].data_notes.split(".")[0] in (tmp_path / "README.md").read_text()
