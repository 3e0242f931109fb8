"""A finished run folder to the Hub."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from ..config import without_paths
from ..models.auto import AutoGenerator
from ..models.loading import refuse_lfs_pointer
from ..run_folder import CARD_FILE, CONFIG_FILE, published_files, read_json


NO_ORIGIN = "The origin and licence of the training images were not recorded."


def create_repository(repo_id: str, private: bool = False, token: str | None = None) -> str:
    """Creates a model repository unless it exists, whose visibility then stays, and returns its id with the owner.

    Args:
        repo_id: As owner/name, or a name in the account of the token.
        private: Create it as a private one.
        token: Of an account that may write there; the one that is logged in if None.

    Raises:
        ValueError: If there is no token, it is wrong or may not write there, a public repository of that name exists
            where a private one is asked for, or the Hub cannot be reached.
    """
    if not (token or get_token()):
        raise ValueError(
            "The Hub needs a token with write access: log in with `hf auth login`, set HF_TOKEN, or give --token."
        )
    api = HfApi(token=token)
    with _one_sentence(repo_id):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
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
    """Uploads what is published of a run folder (no checkpoints, logs or previews) as one commit: all of it is there,
    or nothing. Files that the Hub has already are not sent again. Where the card's code and commands name the folder,
    the card that is uploaded names the repository; that in the folder stays as it is.

    Args:
        folder: Folder of a trained model with its card.
        repo_id: As owner/name, or a name in the account of the token; created if it does not exist.
        private: Create it as a private one.
        token: Of an account that may write there; the one that is logged in if None.
        revision: Branch to push to, created if it does not exist; main if None.
        create_pr: Open a pull request against main instead.
        tag: Name to give to the commit, for others to pin.
        commit_message: Its first line, and the title of a pull request.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        ValueError: If the folder holds no finished model, Git LFS pointers in place of files, or no card yet, a pull
            request is to go to a branch or get a tag, the tag exists, or as in `create_repository`.
    """
    folder = folder.expanduser()
    model_class = AutoGenerator.class_of(folder)  # which says of a checkpoint what it is
    if not (folder / CARD_FILE).is_file():
        raise ValueError(f"{folder} has no {CARD_FILE}; write it with `hf-vae card {folder}` first.")
    if create_pr and (revision or tag):
        raise ValueError("A pull request is made against main, and has no tag before it is merged; choose one.")
    model_class.save_source(folder)  # that of this version, where an earlier one wrote the folder
    for path in published_files(folder):
        refuse_lfs_pointer(path, "file")
    repo_id = create_repository(repo_id, private, token)
    api = HfApi(token=token)
    card = card_for_repository((folder / CARD_FILE).read_bytes().decode(), folder.resolve().name, repo_id)
    contents = {CARD_FILE: card.encode()} | _config_without_paths(folder, card)
    files = [CommitOperationAdd(path.name, contents.get(path.name, path)) for path in published_files(folder)]
    with _one_sentence(repo_id):
        if tag in [known.name for known in api.list_repo_refs(repo_id).tags]:
            raise ValueError(f"{repo_id} has a tag {tag!r}, which others may have pinned; choose another one.")
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        # not upload_folder, which may make several commits of one folder
        commit = api.create_commit(
            repo_id, files, commit_message=commit_message, revision=revision, create_pr=create_pr
        )
    if tag:
        with _one_sentence(repo_id, f"is published, but has no tag {tag!r}"):
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
    return commit.pr_url or commit.commit_url


def lacks_origin(folder: Path) -> bool:
    """Whether the card in a folder says that the origin of the training images was not recorded."""
    card = folder.expanduser() / CARD_FILE
    return card.is_file() and NO_ORIGIN in card.read_text()


def _config_without_paths(folder: Path, card: str) -> dict[str, bytes]:
    """The `train_config.json` of a run folder without the paths that one of an earlier version may hold.

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
                    f"{CARD_FILE} in {folder} names {value}, a path of this machine; write it anew with `hf-vae card "
                    f"{folder} --overwrite`."
                )
    return {CONFIG_FILE: f"{json.dumps(published, indent=2)}\n".encode()}


def card_for_repository(card: str, name: str, repo_id: str) -> str:
    """A card whose code and commands load a model from a folder called `name`, wherever it lies, for the reader of the
    repository `repo_id`: `from_pretrained("...")` and `hf-vae COMMAND ...` name that one instead."""
    name = re.escape(name)
    in_quotes = rf"""(?P<quote>["'])(?:[^"'\n]*/)?{name}/?(?P=quote)"""
    as_word = rf"""(?:[^\s"']*/)?{name}/?(?=\s|$)"""
    card = re.sub(rf"(?<=from_pretrained\(){in_quotes}", f'"{repo_id}"', card)
    return re.sub(rf"^(hf-vae \w+ )(?:{in_quotes}|{as_word})", rf"\g<1>{repo_id}", card, flags=re.MULTILINE)


@contextmanager
def _one_sentence(repo_id: str, outcome: str = "was not published") -> Iterator[None]:
    """Turns what the Hub or the network refuses into one sentence, which begins with the `outcome`."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        reasons = {
            401: "does not know the token; make one with write access in your settings there, and log in again",
            403: "lets this token read only; it needs write access to the repository's owner",
        }
        reason = reasons.get(status, f"answered {status}: {error.server_message or 'no reason given'}")
        raise ValueError(f"{repo_id} {outcome}: the Hub {reason}.") from error
    except (HTTPError, RuntimeError) as error:  # the client raises the latter for an upload that broke off
        raise ValueError(
            f"{repo_id} {outcome}: the connection to the Hub broke off ({error.__cause__ or error}). Files are "
            "visible there all together or not at all; `hf-vae push` tries again, and sends only what is missing."
        ) from error
