"""The run folder: the name of every file in it, and how its JSON files are read and written.

A run writes into one folder, and part of that folder is published. Code that travels with the weights cannot import
this module: `models/loading.py` repeats the names that it needs, and a test compares them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.utils import CONFIG_NAME

from .atomic import write_text_whole


# written when a run starts
CONFIG_FILE = "train_config.json"  # the run as a recipe
PATHS_FILE = "paths.json"  # where the data is on this machine; never published
SPLIT_FILE = "split.json"  # which images are trained on and which are held out
CLOCK_FILE = "clock.json"  # the length that `--max_train_minutes` was found to stand for; never published

# written during a run
LOG_FILE = "log.jsonl"
PREVIEWS = "previews"
RECONSTRUCTION_SHEETS = "reconstructions"
TRACKER_LOGS = "logs"
CHECKPOINT_PREFIX = "checkpoint-"  # followed by the number of updates
MANIFEST = "manifest.json"
AVERAGED = "averaged.safetensors"
PRIOR_CHECKPOINT = "prior-checkpoint.pt"
UNFINISHED = ".writing-"  # in front of a name, until the file or folder is complete

# written at the end of a run, and published
MODEL_CONFIG_FILE = CONFIG_NAME  # config.json
PIPELINE_CONFIG_FILE = "model_index.json"
FACTS_FILE = "training.json"
METRICS_FILE = "metrics.json"
CARD_FILE = "README.md"
SAMPLES_FILE = "samples.png"
RECONSTRUCTIONS_FILE = "reconstructions.png"
TIMELAPSES = ("timelapse.webp", "timelapse.gif")
DIRECTIONS_FILE = "directions.safetensors"
SLIDERS_FILE = "sliders.safetensors"
SWEEP_FILE = "sweep.webp"
PUBLISHED = (
    *(CARD_FILE, MODEL_CONFIG_FILE, PIPELINE_CONFIG_FILE, CONFIG_FILE, SPLIT_FILE, FACTS_FILE, METRICS_FILE),
    *(SAMPLES_FILE, RECONSTRUCTIONS_FILE, SWEEP_FILE, *TIMELAPSES),
)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The content of a JSON file of a finished run.

    Raises:
        ValueError: If the folder has no such file.
    """
    if not (folder / name).is_file():
        raise ValueError(f"{folder} has no {name}: it is not a finished run of train_accelerate.py.")
    return json.loads((folder / name).read_text())


def write_json(folder: Path, name: str, content: Any) -> None:
    """Writes a JSON file of a run folder. A file of that name is replaced as a whole or stays as it is."""
    write_text_whole(folder / name, json.dumps(content, indent=2) + "\n")


def rounded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with six significant digits, as they are published."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in metrics.items()}


def save_metrics(metrics: Mapping[str, Any], folder: Path) -> None:
    """Writes `metrics.json`, rounded."""
    write_json(folder, METRICS_FILE, rounded(metrics))


def published_files(folder: Path) -> list[Path]:
    """The files of a run folder that are published: card, configuration, measurements, images, weights (with their
    index if they are in several files), and the code that `config.json` names."""
    code = read_json(folder, MODEL_CONFIG_FILE).get("auto_map", {}).values()
    names = [*PUBLISHED, *(f"{place.split('.')[0]}.py" for place in code)]
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index*.json")]
    return [folder / name for name in names if (folder / name).is_file()] + sorted(weights)
