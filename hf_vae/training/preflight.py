"""Checks before a run starts: whether its settings are possible, and whether the folder holds the run to resume."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..config import RunConfig, TrainConfig, differences
from ..data.licenses import check_license
from ..data.split import read_split
from ..families import FAMILIES
from ..flags import run_flags_type, with_defaults
from ..models.loading import find_folder
from ..pictures import picture_mode, refuse_crop_box
from ..ranges import refuse_out_of_range
from ..run_folder import CONFIG_FILE, LOG_FILE, MODEL_CONFIG_FILE, SPLIT_FILE, TIMELAPSES
from .checkpoints import list_checkpoints
from .previews import preview_name
from .trackers import tracker_names


def refuse_impossible(run: RunConfig) -> None:
    """Refuses settings that cannot work, before any image is decoded.

    Raises:
        ValueError: If a number is out of its range, a licence, tracker or file name is not allowed, or two settings
            contradict each other.
    """
    _refuse_out_of_range(run)
    _refuse_contradictions(run)
    if run.data.data_license is not None:
        check_license(run.data.data_license)
    tracker_names(run.train.report_to)
    preview_name(run.train.preview_file, 0, 0, 1, None)


def recorded_run(run: RunConfig, output_dir: Path) -> dict | None:
    """The recorded configuration of the run to resume in `output_dir`; None for a new run.

    Raises:
        ValueError: If the folder holds another run.
    """
    recorded = output_dir / CONFIG_FILE
    if run.train.resume_from_checkpoint and recorded.is_file():
        try:
            sections = json.loads(recorded.read_text())
        except ValueError as error:
            raise ValueError(
                f"{recorded} cannot be read: {error}. Restore it, or start a new run with another --output_dir."
            ) from error
        if changed := differences(with_defaults(run.to_dict()), with_defaults(sections)):
            raise ValueError(
                f"{output_dir} was trained with other settings and cannot be resumed. Changed: {'; '.join(changed)}."
            )
        return sections
    if (output_dir / LOG_FILE).is_file() and not run.train.resume_from_checkpoint:
        raise ValueError(
            f"{output_dir} holds another run; choose another --output_dir, or pass --resume_from_checkpoint latest."
        )
    return None


def recorded_splits(run: RunConfig, output_dir: Path) -> dict[str, Any]:
    """The splits that a run has to keep, as arguments of `load_images` and `open_stream`: the split of the run that it
    resumes, and the split of the model that it starts from.

    Raises:
        ValueError: If the run to resume recorded no split, or if a split or the model to start from cannot be read.
    """
    kept: dict[str, Any] = {}
    if start := run.train.pretrained_model_name_or_path:
        kept["known"] = read_split(find_folder(start, [MODEL_CONFIG_FILE, SPLIT_FILE]))
    if wanted := run.train.resume_from_checkpoint:
        folders = [output_dir] if wanted == "latest" else [output_dir, Path(wanted).parent]
        split = next((split for split in map(read_split, folders) if split), None)
        if split:
            return kept | {"split": split, "exact": True}
        if list_checkpoints(output_dir):
            raise ValueError(
                f"{output_dir} has no {SPLIT_FILE}, so it is not known which images the run held out. Restore the "
                "file, or start a new run with another --output_dir."
            )
    return kept


def _refuse_out_of_range(run: RunConfig) -> None:
    family, sections = FAMILIES[run.family], run.to_dict()
    for section in dataclasses.fields(run_flags_type(run.family, family.model, family.objective)):
        arguments: Any = section.type  # a dataclass
        refuse_out_of_range(arguments, sections[section.name])
    picture_mode(run.model.get("image_channels", 3))
    refuse_crop_box(run.data.crop_box)


def _refuse_contradictions(run: RunConfig) -> None:
    if run.train.prior_steps == 0 and not run.train.keeps_prior:
        raise ValueError(
            "prior_steps=0 keeps the prior of --pretrained_model_name_or_path, but that flag was not passed. Pass it, "
            "or --prior_steps of at least 1."
        )
    if run.train.timelapse_file not in TIMELAPSES:
        raise ValueError(f"timelapse_file={run.train.timelapse_file} must be {' or '.join(TIMELAPSES)}.")
    _refuse_two_lengths(run.train)
    if run.data.streaming and not (run.train.max_train_steps or run.train.max_train_minutes):
        raise ValueError(
            "With --streaming the length of an epoch is unknown; pass --max_train_steps or --max_train_minutes."
        )
    if run.train.reconstruction_steps and not FAMILIES[run.family].model.has_encoder:
        raise ValueError(f"--reconstruction_steps needs an encoder, and {run.family} has no encoder; leave it out.")
    if run.data.streaming and run.train.early_stopping_patience:
        raise ValueError("With --streaming the length of an epoch is unknown; leave out --early_stopping_patience.")
    if run.data.streaming and run.train.train_batch_size == "auto":
        raise ValueError("With --streaming the number of images is unknown; pass --train_batch_size as a number.")


def _refuse_two_lengths(config: TrainConfig) -> None:
    if config.max_train_minutes is None:
        return
    minutes = f"--max_train_minutes {config.max_train_minutes:g}"
    if config.max_train_steps is not None:
        raise ValueError(
            f"{minutes} and --max_train_steps {config.max_train_steps} both set the length of the run. Leave one out. "
            "To train a recipe by the clock, pass --max_train_steps None too."
        )
    if config.num_train_epochs != TrainConfig.num_train_epochs:
        raise ValueError(
            f"{minutes} and --num_train_epochs {config.num_train_epochs} both set the length of the run. Leave one "
            f"out. To train a recipe by the clock, pass --num_train_epochs {TrainConfig.num_train_epochs} too."
        )
