"""The trackers of `--report_to`. Each is imported only if a run uses it."""

from importlib.util import find_spec

import numpy as np
from accelerate import Accelerator
from PIL import Image

from ..config import TrainConfig


TRACKERS = ("tensorboard", "trackio", "wandb")
PROJECT = "hf_vae"


def tracker_names(report_to: str) -> list[str]:
    """The trackers that `report_to` stands for: "none", the name of one, or "all" that are installed.

    Raises:
        ValueError: If the tracker is not installed, or "all" finds none.
    """
    if report_to == "none":
        return []
    installed = [name for name in TRACKERS if find_spec(name)]
    wanted = installed if report_to == "all" else [report_to]
    if not wanted or not set(wanted) <= set(installed):
        missing = report_to if report_to != "all" else TRACKERS[0]
        raise ValueError(
            f"report_to={report_to} needs a package that is not installed: pip install {missing}, or choose another "
            f"tracker. Installed here: {', '.join(installed) or 'none'}."
        )
    return wanted


def start_trackers(accelerator: Accelerator, run_name: str, config: TrainConfig) -> None:
    """Starts a run in each tracker. Trackio resumes the run of that name if the training is resumed."""
    settings = {
        "trackio": {"name": run_name, "resume": "allow" if config.resume_from_checkpoint else "never"},
        "wandb": {"name": run_name, "dir": config.output_dir},
    }
    accelerator.init_trackers(PROJECT, init_kwargs=settings)


def track_picture(accelerator: Accelerator, name: str, picture: Image.Image, step: int) -> None:
    """Logs an image to every tracker."""
    picture = picture.convert("RGB")
    for tracker in accelerator.trackers:
        if tracker.name == "trackio":  # accelerate has no `log_images` for it
            import trackio

            tracker.log({name: trackio.Image(picture)}, step=step)
        elif tracker.name == "tensorboard":
            tracker.log_images({name: np.asarray(picture)[None]}, step=step, dataformats="NHWC")  # (1, H, W, 3)
        else:
            tracker.log_images({name: [picture]}, step=step)
