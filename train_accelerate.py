"""Trains a model, evaluates it, writes its card and, with --push_to_hub, pushes it to the Hub.

accelerate launch train_accelerate.py vae --dataset_name cats --output_dir runs/cats-vae
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hf_vae.commands.training_arguments import parse_arguments
from hf_vae.config import RunConfig


if TYPE_CHECKING:
    from hf_vae.data.cached import DataSplits
    from hf_vae.models import ImageGenerator
    from hf_vae.training.length import Afterwards, Clock
    from hf_vae.training.loop import Training

Finish = Callable[["Training", "Clock"], Path]


def finish_as_planned(training: "Training", clock: "Clock") -> Path:
    """Makes all updates of a run and publishes its model; returns the run folder."""
    return training.finish()


def run_training(run: RunConfig, finish: Finish = finish_as_planned) -> None:
    """Trains as `run` says, evaluates on the held-out images, writes the card, and pushes if asked to. The time of
    `max_train_minutes` counts from the start of this process. `finish` makes the updates and publishes the model."""
    # imported here, so that --help is quick
    from accelerate import PartialState

    from hf_vae.evaluation import evaluate, faces, features
    from hf_vae.publishing import cards, hub
    from hf_vae.training import dry_run, length, loop

    clock = length.Clock.of_process()

    def time_afterwards(model: "ImageGenerator", images: "DataSplits") -> "Afterwards":
        seconds, heldout_image = evaluate.estimate_seconds(model, images, clock.now)
        of_card = cards.estimate_seconds(model, clock.now)
        return length.Afterwards(seconds + of_card, heldout_image, len(images.heldout))

    # if the evaluation lacks a package, fail now and not after hours of training
    features.open_networks()
    faces.open_cascades()
    if run.train.dry_run:
        print(dry_run.describe(run))
        return
    repo_id = run.train.hub_model_id or Path(run.train.output_dir).resolve().name
    if run.train.push_to_hub and os.environ.get("RANK", "0") == "0":  # the same for what the Hub refuses
        hub.create_repository(repo_id, run.train.hub_private_repo, run.train.hub_token)
    try:
        training = loop.Training.start(run, clock, time_afterwards)
        output_dir, images = finish(training, clock), training.data
        num_heldout = training.length.num_heldout if training.length else None
    except loop.TrainingInterrupted as interruption:
        print(f"{interruption} To resume, run the same command with --resume_from_checkpoint latest.", file=sys.stderr)
        sys.exit(interruption.exit_code)
    del training  # frees the memory of its networks and optimizers
    if not PartialState().is_main_process:
        return
    try:
        evaluate.evaluate_folder(output_dir, run.data, splits=images, num_heldout=num_heldout)
        cards.write_card(output_dir)
        print(f"Wrote the model to {output_dir}: see samples.png and README.md there.")
        if run.train.push_to_hub:
            print(hub.push(output_dir, repo_id, run.train.hub_private_repo, run.train.hub_token))
    except KeyboardInterrupt:
        _stop_at_once(
            f"The model is in {output_dir}. To finish, run `hf-vae evaluate {output_dir} --save`, then "
            f"`hf-vae card {output_dir}`."
        )


def _stop_at_once(what_is_left: str) -> NoReturn:
    print(f"Stopped at once. {what_is_left}", file=sys.stderr)
    sys.exit(128 + signal.SIGINT)


def main(finish: Finish = finish_as_planned) -> None:
    """Runs the command line. An error is one line on stderr and exit code 1; a usage error is 2; an interruption is
    130 or 143."""
    try:
        run_training(parse_arguments(sys.argv[1:]), finish)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {str(error).removeprefix('Error ')}")  # which messages in diffusers' words begin with
    except ModuleNotFoundError as error:
        sys.exit(
            f"Error: {error}. Training needs the extra [train]: run `make install` and `source .venv/bin/activate`, "
            "or `pip install -e '.[train]'`."
        )
    except KeyboardInterrupt:
        _stop_at_once("What was trained since the last checkpoint is lost.")


if __name__ == "__main__":
    main()
