"""The one training loop. It knows networks, steps and batches, and no family's name."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import ProjectConfiguration, broadcast_object_list, set_seed
from PIL import Image
from tqdm import tqdm

from ..config import RunConfig
from ..data.cached import load_images
from ..data.listing import as_text
from ..data.streaming import open_stream
from ..families import new_model
from ..hardware import Choices, choose, choose_precision, prepare_backends, use_cpu
from ..latents.fit_detail import fit_detail
from ..latents.fit_prior import fit_prior, learns_prior, seconds_per_update
from ..models import ImageGenerator
from ..models.priors.base import PriorTraining
from ..objectives.augmentation import AUGMENT_CHANCES, augment
from ..objectives.batch import Batch
from ..pictures import to_float
from .batch_size import largest_batch_size
from .checkpoints import (
    PREFIX,
    PriorCheckpoint,
    Progress,
    changed_settings,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from .dry_run import num_parameters
from .early_stopping import note_validation, validation_loss
from .forecast import Forecast
from .interruptions import StopSignals, TrainingInterrupted
from .logs import Meter, device_name, drop_log_after, write_facts, write_log, write_picture
from .preflight import recorded_run, recorded_splits, refuse_impossible
from .previews import draw_preview, draw_reconstructions, drop_previews_after, preview_name, save_timelapse
from .state import follow, prepare, update
from .trackers import start_trackers, tracker_names


DECODING_TIME = timedelta(hours=6)  # how long the other ranks wait for the first one to download and decode
RECONSTRUCTION_IMAGES = 8
PREVIEW_FIT_IMAGES = 1024  # enough for a stable Gaussian over a few hundred latents, and cheap to encode
PRIOR_FIT_IMAGES = 50_000  # enough for one over a thousand latents
FIRST_PREVIEW = 25  # updates: within the first minute, to see that it is the right pictures that are learned
SHOWN = ("loss", "mse", "g_loss", "d_loss", "validation_loss")  # behind the bar, of all that is logged


def train(run: RunConfig) -> Path:
    """Trains as `run` says and writes the snapshot, with its prior fitted, to `run.train.output_dir`, which is
    returned.

    Raises:
        ValueError: If a count is below 1, the data cannot be used, a size cannot be made, the checkpoint does not
            exist or belongs to another run, or a loss is no longer finite.
        OSError: If the disk takes no more. The checkpoints that were there stay.
        TrainingInterrupted: After SIGTERM or Ctrl-C, once a checkpoint, or the state of the prior, is written.
    """
    training = Training(run)
    training.advance(training.num_steps)
    return training.publish()


class Training:
    """A run that is under way: its data, its networks, and how far it is.

    Args:
        run: What to train, and on what.

    Raises:
        ValueError: As `train` does.
    """

    def __init__(self, run: RunConfig):
        refuse_impossible(run)
        trackers = tracker_names(run.train.report_to)
        on_cpu = use_cpu()
        state = PartialState(cpu=on_cpu, timeout=DECODING_TIME)
        precision = choose_precision(run.train, state.device)
        self.output_dir = Path(run.train.output_dir)
        recorded, splits = recorded_run(run, self.output_dir), recorded_splits(run, self.output_dir)
        prepare_backends(state.device, run.train.allow_tf32)
        set_seed(run.train.seed)
        model = new_model(run)
        open_images = open_stream if run.data.streaming else load_images
        self._known_split = splits.get("known")
        with state.main_process_first():
            self.data = open_images(run.data, model.config.image_size, model.config.image_channels, **splits)
        self.images = self.data.train.to(state.device)

        self.accelerator = accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision=precision,
            gradient_accumulation_steps=run.train.gradient_accumulation_steps,
            log_with=trackers or None,
            project_config=ProjectConfiguration(str(self.output_dir), logging_dir=str(self.output_dir / "logs")),
        )
        if run.train.train_batch_size == "auto":
            size = recorded["train"]["train_batch_size"] if recorded else None
            size = size or largest_batch_size(accelerator, model, run.objective, len(self.images))
            run = dataclasses.replace(run, train=dataclasses.replace(run.train, train_batch_size=size))
        self.run = run
        self.images_per_step = (
            run.train.train_batch_size * run.train.gradient_accumulation_steps * accelerator.num_processes
        )
        self.num_steps = run.train.max_train_steps or math.ceil(
            run.train.num_train_epochs * len(self.images) / self.images_per_step
        )
        choices = choose(run.train, state.device, self.num_steps, model)
        self._kept: Path | None = None  # the newest checkpoint
        self.trainees = prepare(accelerator, model, run.objective, run.train, choices, self.num_steps)
        self.progress, meter_state = self._resume()
        self.meter = Meter(accelerator, self.progress, meter_state)
        self.stop = StopSignals()
        if accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            run.save(self.output_dir)
            self.data.split.save(self.output_dir)
        accelerator.print(self._plan(choices))
        if accelerator.log_with:
            start_trackers(accelerator, self.output_dir.resolve().name, run.train)

    def advance(self, last_step: int) -> None:
        """Trains on until `last_step` updates have been made since the beginning of the run.

        Raises:
            ValueError: If a loss is no longer finite.
            OSError: If the disk takes no more.
            TrainingInterrupted: After SIGTERM or Ctrl-C, once a checkpoint is written.
        """
        config, progress = self.run.train, self.progress
        is_main = self.accelerator.is_main_process
        with (
            closing(self._batches()) as batches,
            self.stop as stop,
            tqdm(total=self.num_steps, initial=progress.step, unit="step", disable=not is_main) as bar,
        ):
            forecast = self._forecast()
            while progress.step < last_step and not self.has_stopped_early:
                self._step(batches)
                bar.update()
                if is_main and (outlook := forecast.after(progress.step)):
                    bar.write(outlook)
                if config.early_stopping_patience:
                    self._validate()
                is_last = progress.step == self.num_steps or self.has_stopped_early
                stopped_by = stop.agreed(self.accelerator, progress.step)
                if _is_due(progress.step, config.logging_steps, is_last):
                    bar.set_postfix(self._log())
                with forecast.paused():
                    is_first = progress.step == FIRST_PREVIEW < config.preview_steps
                    if _is_due(progress.step, config.preview_steps, is_last) or is_first:
                        self._preview()
                    if _is_due(progress.step, config.reconstruction_steps, is_last):
                        self._reconstruct()
                    if _is_due(progress.step, config.checkpointing_steps, is_last) or stopped_by:
                        self._save_checkpoint()
                if stopped_by:
                    raise TrainingInterrupted(stopped_by, self._checkpoint.name)

    def publish(self) -> Path:
        """Fits details and prior of the trained model and writes the snapshot to the run folder, which is returned.

        Raises:
            OSError: If the disk takes no more.
            TrainingInterrupted: After SIGTERM or Ctrl-C while something is fitted, once its state is written.
        """
        seconds = self.meter.seconds  # before the prior, whose time is its own
        if self._kept != self._checkpoint:  # it may take longer to learn the prior than it took to get here
            self._save_checkpoint()
        interruption = [None]
        with self.stop:
            if self.accelerator.is_main_process:
                try:
                    self._publish(seconds)
                except TrainingInterrupted as caught:
                    interruption = [caught]
            broadcast_object_list(interruption)  # for which the other ranks wait
        if interruption[0]:
            raise interruption[0]
        self.accelerator.end_training()
        return self.output_dir

    def _publish(self, seconds: float) -> None:
        """Does on one rank what `publish` says, with the networks trained for `seconds`."""
        config, model = self.run.train, self.trainees.published.eval().requires_grad_(False)
        if model.detail is not None:
            fit_detail(model, self._batches_to_fit())
        prior = PriorCheckpoint(self.output_dir, model, config.prior_steps, config.seed)
        facts = None if config.keeps_prior else self._fit_prior(model, prior)
        self.stop.raise_if_received(self._checkpoint.name)
        if config.save_precision == "fp16":
            model.half()
        model.save_pretrained(self.output_dir)
        save_timelapse(self.output_dir / "previews", self.output_dir / config.timelapse_file)
        images = self.data.facts | ({"start_recorded_no_split": True} if self._may_hold_out_known_images else {})
        write_facts(self.accelerator, self.progress, seconds, facts, images, self.output_dir)
        prior.remove()
        if config.checkpointing_steps == 0:
            shutil.rmtree(self._checkpoint)

    def _fit_prior(self, model: ImageGenerator, kept: PriorCheckpoint) -> dict[str, Any] | None:
        """Fits the prior of `model`, on from where it was `kept`; returns how that was done, if it learned."""
        config = self.run.train
        state = kept.load(self.accelerator.print)
        if state:
            done = len(state["losses"])
            self.accelerator.print(f"  the prior goes on after {done:,} of its {config.prior_steps:,} updates")

        def after_update(training: PriorTraining) -> None:
            if self.stop.received or kept.is_due():
                kept.save(training.state())
            self.stop.raise_if_received(
                f"{kept.path.name} at update {len(training.losses):,} of {config.prior_steps:,} of the prior"
            )

        batches = self._batches_to_fit()
        fit_prior(model, batches, config.prior_steps, config.seed, True, state, after_update, self._in_bfloat16)
        if not learns_prior(model):
            return None
        device = device_name(self.accelerator.device)
        facts = {"steps": config.prior_steps, "seconds": round(kept.seconds), "device": device, "num_processes": 1}
        return facts | {"precision": "bf16" if self._in_bfloat16 else "no"}

    def _batches_to_fit(self) -> Iterator[torch.Tensor]:
        """Batches of pictures that are fitted to, until the run is told to stop."""
        for images in self.images.batches(PRIOR_FIT_IMAGES):
            self.stop.raise_if_received(self._checkpoint.name)
            yield images

    @property
    def _in_bfloat16(self) -> bool:
        """Whether the prior is learned in bf16, as the networks are; without a gradient scaler, fp16 is not for it."""
        return self.accelerator.mixed_precision == "bf16"

    @property
    def _checkpoint(self) -> Path:
        """The folder of a checkpoint of where the run is."""
        return self.output_dir / f"{PREFIX}{self.progress.step}"

    def _forecast(self) -> Forecast:
        config, model = self.run.train, self.trainees.published
        prior_steps = config.prior_steps if learns_prior(model) and not config.keeps_prior else 0
        return Forecast(
            self.progress.step,
            self.num_steps,
            prior_steps,
            lambda: seconds_per_update(model, self._in_bfloat16),
        )

    def _batches(self) -> Generator[Batch, None, None]:
        """This rank's batches from where the run is, augmented."""
        ranks, data = self.accelerator.state, self.run.data
        place = {"rank": ranks.process_index, "num_ranks": ranks.num_processes}
        seed, number = self.run.train.seed, self.progress.batches
        size = self.run.train.train_batch_size
        # closed with this generator, as a stream has threads that read ahead
        with closing(self.images.training_batches(size, seed, self.progress.images, **place)) as batches:
            for images in batches:
                batch = Batch(to_float(images.to(self.accelerator.device)), seed, number, **place)
                batch.images = augment(batch.images, batch.uniform(AUGMENT_CHANCES), data.flip, data.color_jitter)
                yield batch
                number += 1

    def _step(self, batches: Iterator[Batch]) -> None:
        """One update of every network, and of the running average."""
        config, trainees, progress = self.run.train, self.trainees, self.progress
        for _ in range(config.gradient_accumulation_steps):
            with self.accelerator.accumulate(*trainees.prepared.values()):
                logs = update(self.accelerator, trainees, self.run.objective, next(batches), config)
            self.meter.add(progress.step + 1, logs)
        for scheduler in trainees.schedulers.values():
            scheduler.step()
        if trainees.averaged:
            follow(trainees.averaged, trainees.bare["model"], progress.step, config.ema_decay)
        progress.step += 1
        progress.batches += config.gradient_accumulation_steps
        progress.images += self.images_per_step

    @property
    def has_stopped_early(self) -> bool:
        """Whether the validation loss has not fallen for as long as the run was told to wait."""
        patience = self.run.train.early_stopping_patience
        return patience is not None and self.progress.epochs_since >= patience

    def _validate(self) -> None:
        """Measures what would be published on the held-out pictures, once a pass over the training pictures ends."""
        progress, passed = self.progress, self.progress.images // len(self.images)
        if passed > (progress.images - self.images_per_step) // len(self.images):
            networks = {**self.trainees.bare, "model": self.trainees.published}
            heldout, seed = self.data.heldout[:], self.run.train.seed
            loss = validation_loss(self.accelerator, self.run.objective, networks, heldout, seed)
            self.meter.add(progress.step, {"validation_loss": loss})
            note_validation(progress, loss.item())

    def _log(self) -> dict[str, str]:
        logs = self.meter.read(self.progress) | {"learning_rate": self.trainees.learning_rate}
        write_log(self.accelerator, logs, self.output_dir)
        shown = {name: logs[name] for name in SHOWN if name in logs} | {"images/s": logs["images_per_second"]}
        return {name: f"{value:.4g}" for name, value in shown.items()}

    def _preview(self) -> None:
        self.meter.settle()  # no unseen NaN is drawn
        config = self.run.train
        if self.accelerator.is_main_process:
            batches = None if config.keeps_prior else self.images.batches(PREVIEW_FIT_IMAGES)
            shape = {"num_images": config.preview_images, "columns": config.preview_columns}
            path = self.output_dir / "previews" / self._preview_name(self.progress)
            self._write_picture(lambda model: draw_preview(model, batches, **shape), path)

    def _reconstruct(self) -> None:
        self.meter.settle()
        if self.accelerator.is_main_process:
            images = to_float(self.data.heldout[:RECONSTRUCTION_IMAGES])
            path = self.output_dir / "reconstructions" / f"step_{self.progress.step:07d}.png"
            self._write_picture(lambda model: draw_reconstructions(model, images), path)

    def _write_picture(self, draw: Callable[[ImageGenerator], Image.Image], path: Path) -> None:
        write_picture(self.accelerator, self.trainees.published, draw, path, self.progress.step)

    def _preview_name(self, progress: Progress) -> str:
        images_per_epoch = None if self.run.data.streaming else len(self.images)
        pattern = self.run.train.preview_file
        return preview_name(pattern, progress.step, progress.images, self.images_per_step, images_per_epoch)

    def _save_checkpoint(self) -> None:
        self.meter.settle()  # no unseen NaN is kept
        self._kept = self._checkpoint
        save_checkpoint(
            self.accelerator,
            self.output_dir,
            self._identity,
            self.progress,
            self.meter.state(),
            self.trainees.averaged,
            self.run.train.checkpoints_total_limit,
        )

    @property
    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run that is resumed from it."""
        return self.run.to_dict() | {"split": self.data.split.fingerprint}

    def _resume(self) -> tuple[Progress, dict | None]:
        """Loads the checkpoint that the configuration names, and removes what will be logged and drawn again."""
        wanted, accelerator, run = self.run.train.resume_from_checkpoint, self.accelerator, self._identity
        checkpoint = find_checkpoint(wanted, self.output_dir, run, warn=accelerator.print) if wanted else None
        progress, meter_state, changed = Progress(), None, []
        if checkpoint:
            progress, meter_state = load_checkpoint(accelerator, checkpoint, self.trainees.averaged)
            self.trainees.resume_at(progress.step, self.run.train)
            changed = changed_settings(checkpoint, run)
            self._kept = checkpoint
        launch = {"from_step": progress.step, "device": device_name(accelerator.device)}
        progress.launches.append(launch | {"num_processes": accelerator.num_processes, "changed": changed})
        if wanted and accelerator.is_main_process:
            drop_log_after(progress.step, self.output_dir)
            drop_previews_after(self._preview_name(progress), self.output_dir / "previews")
        return progress, meter_state

    def _plan(self, choices: Choices) -> str:
        accelerator, facts = self.accelerator, self.data.facts
        parameters = ", ".join(f"{name} {num_parameters(net):,}" for name, net in self.trainees.bare.items())
        epochs = self.num_steps * self.images_per_step / facts["train"] if "train" in facts else None
        done, num_steps = self.progress.step, self.num_steps
        steps = f"steps {done:,} to {num_steps:,}" if done < num_steps else f"all {done:,} steps are done,"
        processes = f"{accelerator.num_processes} process{'es' if accelerator.num_processes > 1 else ''}"
        return "\n".join(
            [
                f"***** Training {self.run.family} *****",
                f"  pictures: {', '.join(f'{name} {n:,}' for name, n in facts.items() if name != 'left_out')}",
                *([f"  left out: {as_text(facts['left_out'])}"] if "left_out" in facts else []),
                *self._plan_of_split(),
                f"  parameters: {parameters}",
                f"  {steps} of {self.images_per_step:,} images "
                f"({self.run.train.train_batch_size} a process"
                f"{f'; {epochs:.1f} epochs' if epochs else ''})",
                f"  {processes} on {accelerator.device}: {choices}",
                *([f"  {self.run.objective.legend}"] if self.run.objective.legend else []),
            ]
        )

    @property
    def _may_hold_out_known_images(self) -> bool:
        """Whether the model that the run started from may have been trained on what the run holds out."""
        return self.run.train.pretrained_model_name_or_path is not None and self._known_split is None

    def _plan_of_split(self) -> list[str]:
        start = self.run.train.pretrained_model_name_or_path
        if self._may_hold_out_known_images:
            return [f"  split: {start} recorded none, so images that it was trained on may be held out here"]
        return [f"  split: images that {start} trained on or held out stay on their side"] if start else []


def _is_due(step: int, every: int, is_last: bool) -> bool:
    return every > 0 and (step % every == 0 or is_last)
