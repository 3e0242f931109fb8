"""The trackers of `--report_to`, beside `log.jsonl`. Each is imported when it is asked for, and not before."""

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
        ValueError: If it is not installed, or none is.
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
    """Begins a run in each tracker, or goes on with the one of that name where a tracker can."""
    settings = {
        "trackio": {"name": run_name, "resume": "allow" if config.resume_from_checkpoint else "never"},
        "wandb": {"name": run_name, "dir": config.output_dir},
    }
    accelerator.init_trackers(PROJECT, init_kwargs=settings)


def track_picture(accelerator: Accelerator, name: str, picture: Image.Image, step: int) -> None:
    """Hands a picture to every tracker."""
    picture = picture.convert("RGB")
    for tracker in accelerator.trackers:
        if tracker.name == "trackio":  # accelerate has no `log_images` for it
            import trackio

            tracker.log({name: trackio.Image(picture)}, step=step)
        elif tracker.name == "tensorboard":
            tracker.log_images({name: np.asarray(picture)[None]}, step=step, dataformats="NHWC")  # (1, H, W, 3)
        else:
            tracker.log_images({name: [picture]}, step=step)
