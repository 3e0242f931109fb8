"""Pushing a finished run folder to the Hub."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from ..config import without_paths
from ..models.auto import AutoGenerator
from ..models.loading import refuse_lfs_pointer
from ..run_folder import CARD_FILE, CONFIG_FILE, published_files, read_json


NO_ORIGIN = "The origin and licence of the training images were not recorded."


def create_repository(
    repo_id: str, private: bool = False, token: str | None = None, repo_type: Literal["model", "space"] = "model"
) -> str:
    """Creates a repository, and returns its id with the owner. The visibility of an existing one is not changed.

    Args:
        repo_id: owner/name, or a name in the account of the token.
        private: Create it as a private repository.
        token: Token with write access (default: that of the account that is logged in).
        repo_type: What it is for: a model, or a Space that runs Gradio.

    Raises:
        ValueError: If there is no token, the token is wrong or lacks write access, `private` is set and the repository
            is public, or the Hub cannot be reached.
    """
    if not (token or get_token()):
        raise ValueError(
            "The Hub needs a token with write access: log in with `hf auth login`, set HF_TOKEN, or pass --token."
        )
    api = HfApi(token=token)
    sdk = "gradio" if repo_type == "space" else None
    with one_sentence(repo_id):
        created = api.create_repo(repo_id, private=private, repo_type=repo_type, space_sdk=sdk, exist_ok=True)
        repo_id = created.repo_id
        if private and not api.repo_info(repo_id, repo_type=repo_type).private:
            raise ValueError(
                f"{repo_id} exists and is public; make it private in its settings, or choose another name."
            )
    return repo_id


def push(
    folder: Path,
    repo_id: str,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    commit_message: str = "Upload model with hf_vae",
) -> str:
    """Uploads the published files of a run folder (no checkpoints, logs or previews) in one commit, so that either all
    of them are visible or none. Files that the Hub has already are not sent again. In the uploaded card, code and
    commands name the repository instead of the folder. The card in the folder does not change.

    Args:
        folder: Folder of a trained model with its card.
        repo_id: owner/name, or a name in the account of the token. The repository is created if it does not exist.
        private: Create it as a private repository.
        token: Token with write access (default: that of the account that is logged in).
        revision: Branch to push to (default: main). It is created if it does not exist.
        create_pr: Open a pull request against main instead.
        tag: Tag of the commit, for others to pin.
        commit_message: First line of the commit message, or title of the pull request.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        ValueError: If the folder has no finished model or no card, or has Git LFS pointers; if `create_pr` is combined
            with `revision` or `tag`; if the tag exists; or as `create_repository` does.
    """
    folder = folder.expanduser()
    model_class = AutoGenerator.class_of(folder)  # raises an error that explains what else the folder is
    if not (folder / CARD_FILE).is_file():
        raise ValueError(f"{folder} has no {CARD_FILE}; write it with `hf-vae card {folder}` first.")
    if create_pr and (revision or tag):
        raise ValueError("A pull request goes to main and has no tag: pass --create_pr without --revision and --tag.")
    model_class.save_source(folder)  # an earlier version may have written it
    for path in published_files(folder):
        refuse_lfs_pointer(path, "file")
    repo_id = create_repository(repo_id, private, token)
    api = HfApi(token=token)
    files = [CommitOperationAdd(name, content) for name, content in published_contents(folder, repo_id).items()]
    with one_sentence(repo_id):
        if tag in [known.name for known in api.list_repo_refs(repo_id).tags]:
            raise ValueError(f"{repo_id} already has a tag {tag!r}, which others may have pinned; choose another one.")
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        # upload_folder may split a folder into several commits
        commit = api.create_commit(
            repo_id, files, commit_message=commit_message, revision=revision, create_pr=create_pr
        )
    if tag:
        with one_sentence(repo_id, f"is published, but has no tag {tag!r}"):
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
    return commit.pr_url or commit.commit_url


def published_contents(folder: Path, repo_id: str | None = None) -> dict[str, bytes | Path]:
    """What others get of a run folder: the path of each published file, or its content where that differs from the
    file.

    Args:
        folder: Folder of a trained model.
        repo_id: Repository that code and commands in the card name instead of the folder (default: none).

    Raises:
        ValueError: If a file is a Git LFS pointer, or the card names a path of this machine.
    """
    paths = published_files(folder)
    for path in paths:
        refuse_lfs_pointer(path, "file")
    card = (folder / CARD_FILE).read_bytes().decode() if (folder / CARD_FILE).is_file() else ""
    if repo_id:
        card = card_for_repository(card, folder.resolve().name, repo_id)
    contents = {CARD_FILE: card.encode()} | _config_without_paths(folder, card)
    return {path.name: contents.get(path.name, path) for path in paths}


def lacks_origin(folder: Path) -> bool:
    """Whether the card in a folder says that the origin of the training images was not recorded."""
    card = folder.expanduser() / CARD_FILE
    return card.is_file() and NO_ORIGIN in card.read_text()


def _config_without_paths(folder: Path, card: str) -> dict[str, bytes]:
    """The `train_config.json` of a run folder without paths of this machine; earlier versions recorded them.

    Raises:
        ValueError: If the `card` repeats such a path.
    """
    if not (folder / CONFIG_FILE).is_file():
        return {}
    sections = read_json(folder, CONFIG_FILE)
    published = without_paths(sections)
    for section in ("data", "train"):
        for name, value in sections[section].items():
            if value != published[section][name] and f"{value}" in card and Path(value).is_absolute():
                raise ValueError(
                    f"{CARD_FILE} in {folder} names {value}, a path of this machine; regenerate it with `hf-vae card "
                    f"{folder} --overwrite`."
                )
    return {CONFIG_FILE: f"{json.dumps(published, indent=2)}\n".encode()}


def card_for_repository(card: str, name: str, repo_id: str) -> str:
    """A card for the repository `repo_id`: where `from_pretrained("...")` and `hf-vae COMMAND ...` name a folder
    called `name`, they name the repository instead."""
    name = re.escape(name)
    in_quotes = rf"""(?P<quote>["'])(?:[^"'\n]*/)?{name}/?(?P=quote)"""
    as_word = rf"""(?:[^\s"']*/)?{name}/?(?=\s|$)"""
    card = re.sub(rf"(?<=from_pretrained\(){in_quotes}", f'"{repo_id}"', card)
    return re.sub(rf"^(hf-vae \w+ )(?:{in_quotes}|{as_word})", rf"\g<1>{repo_id}", card, flags=re.MULTILINE)


@contextmanager
def one_sentence(repo_id: str, outcome: str = "was not published") -> Iterator[None]:
    """Turns an error of the Hub or the network into one sentence that begins with the `outcome`."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        reasons = {
            401: "does not know the token; create one with write access in your settings there, and log in again",
            403: "says that this token is read-only; it needs write access to the repository's owner",
        }
        reason = reasons.get(status, f"answered {status}: {error.server_message or 'no reason given'}")
        raise ValueError(f"{repo_id} {outcome}: the Hub {reason}.") from error
    except (HTTPError, RuntimeError) as error:  # the client raises RuntimeError when an upload breaks off
        raise ValueError(
            f"{repo_id} {outcome}: the connection to the Hub failed ({error.__cause__ or error}). No file is "
            "visible there unless all are. Run `hf-vae push` again; it sends only what is missing."
        ) from error
