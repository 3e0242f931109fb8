"""The one training loop. It knows networks, steps and batches, and no family's name."""

import dataclasses
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator, PartialState
from accelerate.utils import ProjectConfiguration, set_seed
from PIL import Image
from tqdm import tqdm

from .batch_size import largest_batch_size
from .batches import Batch
from .checkpoints import Progress, find_checkpoint, load_checkpoint, save_checkpoint
from .config import RunConfig
from .datasets import load_images
from .details import fit_detail
from .dry_run import num_parameters
from .families import new_model
from .forecast import Forecast
from .interruptions import StopSignals, TrainingInterrupted
from .logs import Meter, drop_log_after, write_facts, write_log, write_picture
from .machine import Choices, choose, choose_precision, prepare_backends, use_cpu
from .models import ImageGenerator
from .preflight import recorded_run, refuse_impossible
from .previews import draw_preview, draw_reconstructions, drop_previews_after, preview_name, save_timelapse
from .priors import fit_prior
from .streaming import open_stream
from .trackers import start_trackers, tracker_names
from .trainees import follow, prepare, update
from .transforms import AUGMENT_CHANCES, augment, to_float
from .validation import note_validation, validation_loss


DECODING_TIME = timedelta(hours=6)  # how long the other ranks wait for the first one to download and decode
RECONSTRUCTION_IMAGES = 8
PREVIEW_FIT_IMAGES = 1024  # enough for a stable Gaussian over a few hundred latents, and cheap to encode
PRIOR_FIT_IMAGES = 50_000  # enough for one over a thousand latents


def train(run: RunConfig) -> Path:
    """Trains as `run` says and writes the snapshot, with its prior fitted, to `run.train.output_dir`, which is
    returned.

    Raises:
        ValueError: If a count is below 1, the data cannot be used, a size cannot be made, the checkpoint does not
            exist or belongs to another run, or a loss is no longer finite.
        OSError: If the disk takes no more. The checkpoints that were there stay.
        TrainingInterrupted: After SIGTERM or Ctrl-C, once a checkpoint is written.
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
        recorded = recorded_run(run, self.output_dir)
        prepare_backends(state.device, run.train.allow_tf32)
        set_seed(run.train.seed)
        model = new_model(run)
        open_images = open_stream if run.data.streaming else load_images
        with state.main_process_first():
            self.data = open_images(run.data, model.config.image_size, model.config.image_channels)
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
        self.trainees = prepare(accelerator, model, run.objective, run.train, choices, self.num_steps)
        self.progress, meter_state = self._resume()
        self.meter = Meter(accelerator, self.progress, meter_state)
        if accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            run.save(self.output_dir / "train_config.json")
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
            StopSignals() as stop,
            tqdm(total=self.num_steps, initial=progress.step, unit="step", disable=not is_main) as bar,
        ):
            forecast = Forecast(progress.step, self.num_steps)
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
                if _is_due(progress.step, config.preview_steps, is_last):
                    self._preview()
                if _is_due(progress.step, config.reconstruction_steps, is_last):
                    self._reconstruct()
                if _is_due(progress.step, config.checkpointing_steps, is_last) or stopped_by:
                    self._save_checkpoint()
                if stopped_by and not is_last:
                    raise TrainingInterrupted(stopped_by, f"checkpoint-{progress.step}")

    def publish(self) -> Path:
        """Fits details and prior of the trained model and writes the snapshot to the run folder, which is returned."""
        if self.accelerator.is_main_process:
            published = self.trainees.published.eval().requires_grad_(False)
            if published.detail is not None:
                fit_detail(published, self.images.batches(PRIOR_FIT_IMAGES))
            if not self.run.train.keeps_prior:
                batches = self.images.batches(PRIOR_FIT_IMAGES)
                fit_prior(published, batches, self.run.train.prior_steps, self.run.train.seed, progress=True)
            if self.run.train.save_precision == "fp16":
                published.half()
            published.save_pretrained(self.output_dir)
            save_timelapse(self.output_dir / "previews", self.output_dir / self.run.train.timelapse_file)
            write_facts(self.accelerator, self.progress, self.meter.seconds, self.data.facts, self.output_dir)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.output_dir

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
        return {name: f"{value:.4g}" for name, value in logs.items() if name != "step"}

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
        save_checkpoint(
            self.accelerator,
            self.output_dir,
            self.run.to_dict(),
            self.progress,
            self.meter.state(),
            self.trainees.averaged,
            self.run.train.checkpoints_total_limit,
        )

    def _resume(self) -> tuple[Progress, dict | None]:
        """Loads the checkpoint that the configuration names, and removes what will be logged and drawn again."""
        wanted, accelerator = self.run.train.resume_from_checkpoint, self.accelerator
        if not wanted:
            return Progress(), None
        checkpoint = find_checkpoint(wanted, self.output_dir, self.run.to_dict(), warn=accelerator.print)
        progress, meter_state = Progress(), None
        if checkpoint:
            progress, meter_state = load_checkpoint(accelerator, checkpoint, self.trainees.averaged)
            self.trainees.resume_at(progress.step, self.run.train)
        if accelerator.is_main_process:
            drop_log_after(progress.step, self.output_dir)
            drop_previews_after(self._preview_name(progress), self.output_dir / "previews")
        return progress, meter_state

    def _plan(self, choices: Choices) -> str:
        accelerator, facts = self.accelerator, self.data.facts
        parameters = ", ".join(f"{name} {num_parameters(net):,}" for name, net in self.trainees.bare.items())
        epochs = self.num_steps * self.images_per_step / facts["train"] if "train" in facts else None
        processes = f"{accelerator.num_processes} process{'es' if accelerator.num_processes > 1 else ''}"
        return "\n".join(
            [
                f"***** Training {self.run.family} *****",
                f"  pictures: {', '.join(f'{name} {count:,}' for name, count in facts.items())}",
                f"  parameters: {parameters}",
                f"  steps {self.progress.step:,} to {self.num_steps:,} of {self.images_per_step:,} images "
                f"({self.run.train.train_batch_size} a process"
                f"{f'; {epochs:.1f} epochs' if epochs else ''})",
                f"  {processes} on {accelerator.device}: {choices}",
            ]
        )


def _is_due(step: int, every: int, is_last: bool) -> bool:
    return every > 0 and (step % every == 0 or is_last)
