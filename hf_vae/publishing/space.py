"""Writing a Space, a folder with the demo, the package and some models that is ready to upload; and uploading it."""

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceCard, constants
from huggingface_hub.utils import validate_repo_id

from ..families import FAMILIES, split_name, title_of
from ..models.auto import AutoGenerator
from ..models.loading import refuse_lfs_pointer
from ..run_folder import CARD_FILE, METRICS_FILE, MODEL_CONFIG_FILE, published_files
from .hub import create_repository, one_sentence, published_contents


CLONE = Path(__file__).resolve().parents[2]  # the demo is in the repository and not in the package
PAGE, SCRIPT, MODELS = "space", "train_accelerate.py", "model_cards"
PACKAGE = "hf_vae"
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")
COMMIT_MESSAGE = "Upload Space with hf_vae"
CREATED_BY_THE_HUB = {".gitattributes", CARD_FILE}  # in a new Space
MOST_IN_A_MORPH = 4  # models


@dataclass
class SpaceModel:
    """A model for a Space to show.

    Args:
        folder: Folder of a trained and evaluated model.
        repo_id: Its repository on the Hub, as owner/name, if it has one. The Space links to it, and code in the card
            names it.
    """

    folder: Path
    repo_id: str | None = None

    def __post_init__(self) -> None:
        self.folder = self.folder.expanduser()

    @property
    def name(self) -> str:
        """The name that visitors see: that of the repository, or that of the folder."""
        return self.repo_id.split("/")[-1] if self.repo_id else self.folder.resolve().name


def write_space(target: Path, models: Sequence[SpaceModel] = (), space_id: str = "OWNER/SPACE") -> Path:
    """Writes a Space. It holds the page, the package, the training script, the pinned requirements and the models, so
    that it starts without any setting. `python target/app.py` starts it here.

    The models are copied into it rather than named by their ids on the Hub. A Space can load a private model only with
    a token among its secrets, and a model that its owner renames or deletes would stop it. A copy needs neither and
    also pins the version that was tried. The weights are small, so that the second copy costs little.

    Args:
        target: Folder to write to, new or empty.
        models: What it shows (default: the models in `model_cards/`, and the README of the demo as it is). For these,
            the README gets a title, tags, links and examples of its own.
        space_id: Id of the Space, for the examples in its README.

    Returns:
        The folder.

    Raises:
        ValueError: As `check_space` does, or if the folder is not empty or the card of a model names a path of this
            machine.
    """
    target = target.expanduser()
    check_space(models)
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{target} is not empty; choose another folder, or delete it.")
    shown = models or _shipped_models()
    contents = {model.name: published_contents(model.folder, model.repo_id) for model in shown}
    shutil.copytree(CLONE / PAGE, target, ignore=LEFT_OUT, dirs_exist_ok=True)
    shutil.copytree(CLONE / PACKAGE, target / PACKAGE, ignore=LEFT_OUT)
    shutil.copy(CLONE / SCRIPT, target)
    if models:
        (target / CARD_FILE).write_text(_card(models, space_id), encoding="utf-8")
    for name, files in contents.items():
        (target / MODELS / name).mkdir(parents=True)
        for file, content in files.items():
            if isinstance(content, bytes):
                (target / MODELS / name / file).write_bytes(content)
            else:
                shutil.copy(content, target / MODELS / name / file)
    return target


def check_space(models: Sequence[SpaceModel] = (), space_id: str = "OWNER/SPACE") -> None:
    """Checks what can be checked before anything is written or uploaded.

    Raises:
        ValueError: If `space_id` is not possible, if the demo is not part of this installation, if two models have the
            same name, or if a folder has no finished model, no measurements or Git LFS pointers.
    """
    validate_repo_id(space_id)
    if not all((CLONE / needed).exists() for needed in (f"{PAGE}/app.py", SCRIPT)):
        raise ValueError(
            f"A Space needs the folder {PAGE} and {SCRIPT}, which are in the repository of hf_vae and not in the "
            f"installed package ({CLONE} has none). Clone the repository and run `pip install -e .` in it."
        )
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"Two models have the same name in {', '.join(names)}; rename one of the folders.")
    for folder in (model.folder for model in models):
        AutoGenerator.class_of(folder)  # raises an error that explains what else the folder is
        if not (folder / METRICS_FILE).is_file():
            raise ValueError(
                f"{folder} has no {METRICS_FILE}, which a Space shows; run `hf-vae evaluate {folder} --save` first."
            )
        for path in published_files(folder):
            refuse_lfs_pointer(path, "file")


def push_space(folder: Path, repo_id: str, space_id: str, private: bool = False, token: str | None = None) -> str:
    """Uploads a Space that shows one model, in one commit. The Space is created if it does not exist. It is private if
    its model is, since it holds the weights.

    In an existing Space, other models and files of an earlier version in the folders of the package are deleted. Its
    other files, settings and visibility stay.

    Args:
        folder: Folder of a trained and evaluated model.
        repo_id: Repository of that model on the Hub, as owner/name, or a name in the account of the token. The Space
            links to it.
        space_id: Id of the Space, in the same form.
        private: Create it as a private Space, also if the model is public.
        token: Token with write access (default: that of the account that is logged in).

    Returns:
        The address of the Space.

    Raises:
        ValueError: As `write_space` does; if the Space exists and shows another app, or is public and should be
            private; if there is no token, it lacks write access, or the Hub cannot be reached.
    """
    check_space([SpaceModel(folder)], space_id)
    api = HfApi(token=token)
    repo_id = create_repository(repo_id, token=token)  # its id with the owner
    with one_sentence(space_id):
        private = private or bool(api.model_info(repo_id).private)
    space_id = create_repository(space_id, private, token, repo_type="space")
    with tempfile.TemporaryDirectory() as scratch:
        space = write_space(Path(scratch) / PAGE, [SpaceModel(folder, repo_id)], space_id)
        files = {path.relative_to(space).as_posix(): path for path in sorted(space.rglob("*")) if path.is_file()}
        with one_sentence(space_id):
            present = set(api.list_repo_files(space_id, repo_type="space"))
            if present - CREATED_BY_THE_HUB and f"{PACKAGE}/__init__.py" not in present:
                raise ValueError(f"{space_id} exists and shows another app; choose another name for the Space.")
            written = tuple({f"{path.split('/')[0]}/" for path in files if "/" in path})
            stale = [path for path in sorted(present - files.keys()) if path.startswith(written)]
            added = [CommitOperationAdd(path, file) for path, file in files.items()]
            deleted = [CommitOperationDelete(path) for path in stale]
            api.create_commit(space_id, [*added, *deleted], commit_message=COMMIT_MESSAGE, repo_type="space")
    return f"{api.endpoint}/{constants.REPO_TYPES_URL_PREFIXES['space']}{space_id}"


def _shipped_models() -> list[SpaceModel]:
    return [SpaceModel(config.parent) for config in sorted((CLONE / MODELS).glob(f"*/{MODEL_CONFIG_FILE}"))]


def _card(models: Sequence[SpaceModel], space_id: str) -> str:
    """The README of the demo for other models: the title, the tags, the links, and the names in the examples."""
    card = SpaceCard.load(CLONE / PAGE / CARD_FILE)
    names = [model.name for model in models]
    classes = {AutoGenerator.class_of(model.folder) for model in models}
    card.data.title = title_of(names)
    card.data.emoji = "🖼️"
    card.data.short_description = "Sample from a small image generator and morph images"
    families = [name for name, family in FAMILIES.items() if family.model in classes]
    card.data.tags = ["hf_vae", *families, "latent-space", "image-generation"]
    card.data.models = [model.repo_id for model in models if model.repo_id] or None
    links = [
        f"[{each.repo_id}]({constants.ENDPOINT}/{each.repo_id})" if each.repo_id else each.name for each in models
    ]
    heading = (
        f"# {card.data.title}\n\nModels: {', '.join(links)}. This Space holds a copy of the weights. They have the "
        "licence that the model card states; the code has the licence Apache 2.0."
    )
    text = re.sub(r"^# .*", lambda _: heading, card.text, count=1, flags=re.MULTILINE)
    for shipped, own in {
        '["cats-vae", "cats-dcgan"]': json.dumps(names[:MOST_IN_A_MORPH]),
        "cats-vae": names[0],
        'data_set="cats"': f'data_set="{split_name(names[0])[0]}"',
        "OWNER/SPACE": space_id,
    }.items():
        text = text.replace(shipped, own)
    card.text = text
    return card.content
