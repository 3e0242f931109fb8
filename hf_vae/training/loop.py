"""The training loop of every family. It knows networks, steps and batches, and no family by name."""

import copy
import dataclasses
import math
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, ProjectConfiguration, broadcast_object_list, set_seed
from PIL import Image
from tqdm import tqdm

from ..config import RunConfig, TrainConfig
from ..data.cached import DataSplits, ImageSet, load_images
from ..data.listing import as_text
from ..data.streaming import ImageStream, open_stream
from ..families import new_model
from ..hardware import choose, choose_precision, computes_in_bfloat16, device_name, prepare_backends, use_cpu
from ..latents.fit_prior import has_other_preview_prior
from ..models import ImageGenerator
from ..objectives.augmentation import AUGMENT_CHANCES, MOVE_CHANCES, augment, move
from ..objectives.batch import Batch
from ..pictures import to_float
from ..run_folder import CHECKPOINT_PREFIX, CLOCK_FILE, PREVIEWS, RECONSTRUCTION_SHEETS, TRACKER_LOGS
from ..sheets import draw_reconstructions
from .batch_size import choose_batch_size
from .checkpoints import changed_settings, find_checkpoint, load_checkpoint, save_checkpoint
from .early_stopping import note_validation, validation_loss
from .fitting import Fitting, trains_prior
from .interruptions import StopSignals, TrainingInterrupted
from .length import (
    Afterwards,
    Clock,
    Costs,
    Length,
    as_minutes,
    default_prior_steps,
    estimate,
    fit_into,
    num_updates,
    recorded_length,
)
from .logs import Meter, drop_log_after, save_whole, write_facts, write_log, write_picture
from .measuring import leaving_no_trace, measure_fitting, same_random_numbers
from .preflight import recorded_run, recorded_splits, refuse_impossible
from .previews import draw_preview, drop_previews_after, name_with_prior, preview_name, save_timelapse
from .state import Progress, follow, num_parameters, prepare, update
from .trackers import start_trackers, tracker_names


DECODING_TIME = timedelta(hours=6)  # how long the other ranks wait while the first one downloads and decodes
RECONSTRUCTION_IMAGES = 8
PREVIEW_FIT_IMAGES = 1024  # enough for a stable Gaussian of a few hundred latents, and quick to encode
MEASURED_SHARE = 0.02  # of the minutes of a run by the clock, for measuring an update
NEWEST_UPDATES = 32  # that say how fast the machine is when the networks are trained: as many, or half of a short run
FEWEST_NEWEST = 4  # fewer say nothing about it
MEASURED_UPDATES = 16  # at least, and a multiple: a gradient penalty is due every 16th by default
FEW_UPDATES, LEAN_WIDTH, LEAN_MAX_WIDTH = 1000, 16, 64  # what so few updates teach best: docs/benchmarks.md
FIRST_PREVIEW = 25  # updates: an early look at whether the run learns the right images
SHOWN = ("loss", "mse", "g_loss", "d_loss", "validation_loss")  # of all logged values, those in the progress bar
# tqdm's share of the newest update in its mean speed: low enough that a preview does not disturb the remaining time,
# high enough that the slow first updates are soon forgotten
BAR_SMOOTHING = 0.05
ENDLESS = 1000  # updates of a run that is only measured; too few for the gain of torch.compile
# The time that the caller will still need for the published model: from the model and its images
Aftermath = Callable[[ImageGenerator, DataSplits], Afterwards]
# Process groups that live until the process ends. Otherwise the networks of a run hold the last reference to theirs.
# When it goes, gloo waits for its thread while PyTorch holds Python's lock, and that thread may wait for the lock.
KEPT_GROUPS: list[Any] = []


def train(run: RunConfig) -> Path:
    """Trains as `run` says, and publishes the model into `run.train.output_dir`, which is returned.

    Raises:
        ValueError: As `Training.start` and `Training.advance` do.
        OSError: If the disk is full. Earlier checkpoints stay.
        TrainingInterrupted: After SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    return Training.start(run).finish()


class Training:
    """A run in progress. `Training.start` makes one.

    Args:
        run: The configuration. Its `train_batch_size` and `prior_steps` are numbers.
        accelerator: Prepares and runs the networks.
        model: The model to train.
        data: The images of the run.
        images: The training images of `data`, on the device if they fit there.
        knows_start_split: Whether the model that the run starts from recorded which images it was trained on.
        length: The length that was fixed for a run by the clock.
        clock: The time since the start of the command; since this call if None.
        aftermath: What `start` takes. After its first updates, the run prints how long everything will take. With
            None, it does not.
    """

    def __init__(
        self,
        run: RunConfig,
        accelerator: Accelerator,
        model: ImageGenerator,
        data: DataSplits,
        images: ImageSet | ImageStream,
        knows_start_split: bool = False,
        length: Length | None = None,
        clock: Clock | None = None,
        aftermath: Aftermath | None = None,
    ):
        self.run, self.accelerator, self.data, self.images = run, accelerator, data, images
        self.knows_start_split, self.length = knows_start_split, length
        self.output_dir = Path(run.train.output_dir)
        self.images_per_step, self.num_steps = _sizes(run, accelerator, images)
        is_sharded = accelerator.distributed_type == DistributedType.FSDP
        self.choices = choose(run.train, accelerator.device, self.num_steps, model, is_sharded)
        self.trainees = prepare(accelerator, model, run.objective, run.train, self.choices, self.num_steps)
        self.progress = Progress()
        self.clock, self.aftermath = clock or Clock.from_now(), aftermath
        self.meter = Meter(accelerator, self.progress, now=self.clock.now)
        self.stop = StopSignals()
        self._timed: list[float] = []  # seconds of the first updates, for the estimate
        self._newest: deque[float] = deque(maxlen=2 * NEWEST_UPDATES)  # seconds of the newest updates
        self._newest_checkpoint: Path | None = None

    @classmethod
    def start(cls, run: RunConfig, clock: Clock | None = None, aftermath: Aftermath | None = None) -> "Training":
        """Starts or resumes a run: decodes its images, builds its networks, loads its checkpoint, and writes the first
        files of the run folder. A run by the clock first measures itself and fixes its length.

        Args:
            run: The configuration.
            clock: The time that counts for `max_train_minutes`; since this call if None.
            aftermath: Estimates the time that the caller will still need for the published model, from a model of
                the same size and the images; none if None. With it, a run that is not by the clock prints an estimate.

        Raises:
            ValueError: If a setting is not possible, the data cannot be used, a size is not supported, or the
                checkpoint does not exist or belongs to another run. If `max_train_minutes` are too few.
            OSError: If a file cannot be read or written.
        """
        clock = clock or Clock.from_now()
        refuse_impossible(run)
        on_cpu = use_cpu()
        state = PartialState(cpu=on_cpu, timeout=DECODING_TIME)
        precision = choose_precision(run.train, state.device)
        output_dir = Path(run.train.output_dir)
        recorded, splits = recorded_run(run, output_dir), recorded_splits(run, output_dir)
        length = recorded_length(run)
        prepare_backends(state.device, run.train.allow_tf32)
        set_seed(run.train.seed)
        model = new_model(run)
        open_images = open_stream if run.data.streaming else load_images
        with state.main_process_first():
            data = open_images(run.data, model.config.image_size, model.config.image_channels, **splits)
        images = data.train.to(state.device)
        accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision=precision,
            gradient_accumulation_steps=run.train.gradient_accumulation_steps,
            log_with=tracker_names(run.train.report_to) or None,
            project_config=ProjectConfiguration(str(output_dir), logging_dir=str(output_dir / TRACKER_LOGS)),
        )
        if run.train.train_batch_size == "auto":
            size = recorded["train"]["train_batch_size"] if recorded else None
            size = size or choose_batch_size(accelerator, model, run.objective, len(images))
            run = _with_settings(run, train_batch_size=size)
        if run.train.max_train_minutes is not None:
            length = length or cls._fix_length(run, accelerator, model, data, images, clock, aftermath)
            accelerator.print(f"{length.sentence(trains_prior(model, run.train))}.")
            run = _with_settings(run, **length.applied_to(run.train))
        elif run.train.prior_steps == "auto":
            steps = recorded["train"].get("prior_steps") if recorded else None
            if not (isinstance(steps, int) and steps > 0):
                steps = default_prior_steps(_sizes(run, accelerator, images)[1])
            run = _with_settings(run, prior_steps=steps)
        knows_start_split = splits.get("known") is not None
        unknown = None if length else aftermath  # a run by the clock has printed how long it takes
        training = cls(run, accelerator, model, data, images, knows_start_split, length, clock, unknown)
        training._resume()
        training._write_start()
        return training

    @classmethod
    def _fix_length(
        cls,
        run: RunConfig,
        accelerator: Accelerator,
        model: ImageGenerator,
        data: DataSplits,
        images: ImageSet | ImageStream,
        clock: Clock,
        aftermath: Aftermath | None,
    ) -> Length:
        """The length of a run by the clock, the same on all ranks. It is computed from updates of copies of the
        networks and of the prior, before the run makes its first update, so that the run itself is the same as one
        with these numbers.

        Raises:
            ValueError: If the minutes are too few.
        """
        config = run.train
        assert config.max_train_minutes is not None
        again = " again, as the stopped run had fixed no number of updates" if config.resume_from_checkpoint else ""
        accelerator.print(
            f"***** {as_minutes(config.max_train_minutes)} for the whole run, which first measures itself{again} *****"
        )
        measured = _with_settings(run, max_train_steps=ENDLESS, max_train_minutes=None, prior_steps=1)
        costs: list[Costs | None] = [None]
        with leaving_no_trace(accelerator):
            trial = cls(measured, accelerator, copy.deepcopy(model), data, images)
            seconds = 60 * config.max_train_minutes * MEASURED_SHARE
            trial.progress.batches = run.objective.settled_after
            updates = trial._measure_updates(seconds, clock)
            if trial._num_early >= MEASURED_UPDATES + 2:
                trial.progress.batches = 0
                early = trial._measure_updates(seconds, clock, trial._num_early - 2)
                updates = dataclasses.replace(updates, early_update=early.update, num_early=trial._num_early)
            if accelerator.is_main_process:
                costs = [trial._measure_rest(trial.trainees.published, updates, config, clock, aftermath)]
            broadcast_object_list(costs)  # the other ranks wait here
            del trial
        assert costs[0] is not None
        return fit_into(config, costs[0])

    def _measure_updates(self, seconds: float, clock: Clock, most: int = ENDLESS) -> Costs:
        """Makes two updates, then as many as take about `seconds`, at most `most`. Returns their costs: the mean of
        all but the first two, and how much longer the first took. All ranks must call it."""

        def time_of(num_steps: int) -> float:
            begin = clock.seconds
            for _ in range(num_steps):
                self._step(batches)
            self.meter.settle()  # waits for the device
            return clock.seconds - begin

        with closing(self._batches()) as batches:
            first, second = time_of(1), time_of(1)
            rounds = int(seconds / (MEASURED_UPDATES * second)) if second > 0 else 1
            count = [MEASURED_UPDATES * max(1, min(rounds, most // MEASURED_UPDATES))]
            broadcast_object_list(count)
            mean = time_of(count[0]) / count[0]
        return Costs(before=0.0, update=mean, first_update=max(0.0, first - mean))

    def _measure_rest(
        self,
        model: ImageGenerator,
        updates: Costs,
        config: TrainConfig,
        clock: Clock,
        aftermath: Aftermath | None,
    ) -> Costs:
        """The costs of the run, given those of its updates. The `model` is changed, and thrown away afterwards."""
        validation = 0.0
        if config.early_stopping_patience:
            begin, heldout = clock.seconds, self.data.heldout[:]
            networks = {**self.trainees.bare, "model": model}
            validation_loss(self.accelerator, self.run.objective, networks, heldout, config.seed).item()
            validation = (clock.seconds - begin) * self.images_per_step / self._images_per_epoch
        model.eval().requires_grad_(False)
        begin = clock.seconds
        if config.preview_steps:
            self._draw_preview(model)
        preview = clock.seconds - begin
        in_bfloat16 = self.accelerator.mixed_precision == "bf16"
        prior_update, details, fitting = measure_fitting(model, self.images, config, in_bfloat16, clock)
        after = aftermath(model, self.data) if aftermath else Afterwards()
        return dataclasses.replace(
            updates,
            before=clock.seconds,
            prior_update=prior_update,
            evaluation=after.seconds,
            preview=preview,
            details=details,
            fitting=fitting,
            heldout_image=after.heldout_image,
            num_heldout=after.num_heldout,
            validation=validation,
        )

    def _print_estimate(self, first: float, others: list[float]) -> None:
        """Prints how long the command will take in all, and each of its phases, given the seconds of the updates that
        it has made. All ranks must call it."""
        clock, config = self.clock, self.run.train
        begin = clock.seconds
        self.meter.settle()  # waits for the device
        waited = clock.seconds - begin
        update = (sum(others) + waited) / len(others) if others else first + waited
        if not self.accelerator.is_main_process:
            return
        updates = Costs(before=0.0, update=update, first_update=max(0.0, first - update))
        with same_random_numbers(self.accelerator.device):
            model = copy.deepcopy(self.trainees.published)
            costs = self._measure_rest(model, updates, config, clock, self.aftermath)
        num_done = 1 + len(others)
        before = clock.seconds - updates.first_update - num_done * (update + costs.validation)
        num_steps = num_done + self.num_steps - self.progress.step  # of this launch
        every = config.preview_steps
        previews = num_steps // every + 2 if every else 0
        phases = dataclasses.replace(costs, before=before).phases(num_steps, int(config.prior_steps), previews)
        grows = self.progress.step < min(self._num_early, self.num_steps)
        note = f"; updates take longer from number {self._num_early:,} on, which it does not count" if grows else ""
        tqdm.write(f"  {estimate(phases)}{note}")  # above the progress bar

    def finish(self) -> Path:
        """Makes the remaining updates and publishes the model; returns the run folder. Raises what `advance` and
        `publish` raise."""
        self.advance(self.num_steps)
        return self.publish()

    def advance(self, last_step: int) -> None:
        """Trains until `last_step` updates have been made since the beginning of the run.

        Raises:
            ValueError: If a loss is no longer finite.
            OSError: If the disk is full.
            TrainingInterrupted: After SIGTERM or Ctrl-C, once a checkpoint is written.
        """
        config, progress = self.run.train, self.progress
        with closing(self._batches()) as batches, self.stop as stop, self._progress_bar() as bar:
            while progress.step < last_step and not self.has_stopped_early:
                begin = self.clock.seconds
                self._step(batches)
                taken = self.clock.seconds - begin
                if self.aftermath:
                    self._timed.append(taken)
                if progress.step > self._num_early + 1:
                    self._newest.append(taken)
                bar.update()
                if config.early_stopping_patience:
                    self._validate()
                is_last = progress.step == self.num_steps or self.has_stopped_early
                if self.aftermath and (is_last or len(self._timed) > MEASURED_UPDATES):
                    self._print_estimate(self._timed[0], self._timed[1:])
                    self.aftermath = None  # once is enough
                stopped_by = stop.agreed(self.accelerator, progress.step)
                if _is_due(progress.step, config.logging_steps, is_last):
                    bar.set_postfix(self._log())
                if self._is_preview_due(is_last):
                    self._preview()
                if _is_due(progress.step, config.reconstruction_steps, is_last):
                    self._reconstruct()
                if is_last:
                    self._give_rest_to_prior()
                if _is_due(progress.step, config.checkpointing_steps, is_last) or stopped_by:
                    self._save_checkpoint()
                if stopped_by:
                    raise TrainingInterrupted(stopped_by, self._checkpoint.name)

    def shorten(self, num_steps: int) -> None:
        """Makes a run by the clock end earlier than planned, after so many updates of the networks, more than it has
        made. The files of the run folder then say so, and a recipe trains the same model but for its learning rate,
        which followed the plan."""
        assert self.length is not None and num_steps > self.progress.step
        prior_steps = math.ceil(self.length.prior_steps * num_steps / self.length.steps)
        if self.length.is_prior_final:
            prior_steps = self.length.prior_steps
        self._fix(dataclasses.replace(self.length, steps=num_steps, prior_steps=prior_steps))

    def _give_rest_to_prior(self) -> None:
        """Once the networks are trained, fixes the updates of the prior of a run by the clock. All ranks must call
        it."""
        if self.length is None or self.length.is_prior_final:
            return
        newest = list(self._newest)[len(self._newest) // 2 :]
        update = sum(newest) / len(newest) if len(newest) >= FEWEST_NEWEST else None
        planned, lengths = self.length, [self.length.with_rest_for_prior(self.meter.seconds, update)]
        broadcast_object_list(lengths)
        self._fix(lengths[0])
        if lengths[0].prior_steps != planned.prior_steps and self.accelerator.is_main_process:
            enough = f"the rest of the time is enough for {lengths[0].prior_steps:,} updates of the prior"
            tqdm.write(f"  {enough} ({planned.prior_steps:,} were planned)")  # above the progress bar

    def _fix(self, length: Length) -> None:
        """Changes the length of a run by the clock, also in the files of its folder."""
        self.length = length
        self.run, self.num_steps = _with_settings(self.run, **length.applied_to(self.run.train)), length.steps
        if self.accelerator.is_main_process:
            self.run.save(self.output_dir)
            length.save(self.output_dir)

    def publish(self) -> Path:
        """Fits details and prior to the trained networks and writes the model to the run folder, which is returned.

        Raises:
            OSError: If the disk is full.
            TrainingInterrupted: After SIGTERM or Ctrl-C, once the state of the prior is written.
        """
        seconds = self.meter.seconds  # without those of the prior, which are counted separately
        if self._newest_checkpoint != self._checkpoint:  # the prior may take longer than the networks did
            self._save_checkpoint()
        interruption: list[TrainingInterrupted | None] = [None]
        with self.stop:
            if self.accelerator.is_main_process:
                try:
                    self._publish(seconds)
                except TrainingInterrupted as caught:
                    interruption = [caught]
            broadcast_object_list(interruption)  # the other ranks wait here
        if interruption[0]:
            raise interruption[0]
        if torch.distributed.is_initialized():
            KEPT_GROUPS.append(torch.distributed.group.WORLD)
        self.accelerator.end_training()
        return self.output_dir

    def _publish(self, seconds: float) -> None:
        """Does the work of `publish` on one rank. The networks were trained for `seconds`."""
        config, model = self.run.train, self.trainees.published.eval().requires_grad_(False)
        fitting = Fitting(self.accelerator, model, self.images, self.data.heldout, config, self._checkpoint, self.stop)
        fitting.fit()
        if config.preview_steps and not config.keeps_prior and has_other_preview_prior(model):
            path = self.output_dir / PREVIEWS / name_with_prior(self._preview_name(self.progress))
            save_whole(draw_preview(model, None, config.preview_images, config.preview_columns), path)
        if config.save_precision == "fp16":
            model.half()
        model.save_pretrained(self.output_dir)
        save_timelapse(self.output_dir / PREVIEWS, self.output_dir / config.timelapse_file)
        images = self.data.facts | ({"start_recorded_no_split": True} if self.may_hold_out_known_images else {})
        write_facts(
            self.accelerator, self.progress, seconds, fitting.prior_facts, images, self.output_dir, self.length
        )
        fitting.remove_checkpoint()
        if config.checkpointing_steps == 0:
            shutil.rmtree(self._checkpoint)

    @property
    def has_stopped_early(self) -> bool:
        """Whether the validation loss has not fallen for `early_stopping_patience` epochs."""
        patience = self.run.train.early_stopping_patience
        return patience is not None and self.progress.epochs_since >= patience

    @property
    def may_hold_out_known_images(self) -> bool:
        """Whether held-out images may be training images of the model that the run started from."""
        return self.run.train.pretrained_model_name_or_path is not None and not self.knows_start_split

    @property
    def _checkpoint(self) -> Path:
        """The folder of a checkpoint at this step, whether it exists or not."""
        return self.output_dir / f"{CHECKPOINT_PREFIX}{self.progress.step}"

    @property
    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run that resumes from it."""
        return self.run.to_dict() | {"split": self.data.split.fingerprint}

    @property
    def _num_early(self) -> int:
        """How many updates have other work than those that follow."""
        return math.ceil(self.run.objective.settled_after / self.run.train.gradient_accumulation_steps)

    @property
    def _images_per_epoch(self) -> int:
        return len(self.images)  # type: ignore[arg-type]  # not asked for of a stream: see `refuse_impossible`

    def _progress_bar(self) -> tqdm:
        is_main = self.accelerator.is_main_process
        shape = {"total": self.num_steps, "initial": self.progress.step, "unit": "step"}
        return tqdm(**shape, smoothing=BAR_SMOOTHING, disable=not is_main)

    def _batches(self) -> Generator[Batch, None, None]:
        """This rank's augmented batches, from the progress of the run on."""
        ranks, data = self.accelerator.state, self.run.data
        place = {"rank": ranks.process_index, "num_ranks": ranks.num_processes}
        seed, number = self.run.train.seed, self.progress.batches
        size = int(self.run.train.train_batch_size)  # it is not "auto" any more
        # closed together with this generator, as a stream has threads that read ahead
        with closing(self.images.training_batches(size, seed, self.progress.images, **place)) as batches:
            for images in batches:
                batch = Batch(to_float(images.to(self.accelerator.device)), seed, number, **place)
                batch.images = augment(batch.images, batch.uniform(AUGMENT_CHANCES), data.flip, data.color_jitter)
                if data.random_shift or data.random_zoom:
                    chances = batch.uniform(MOVE_CHANCES)
                    batch.images = move(batch.images, chances, data.random_shift, data.random_zoom)
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

    def _validate(self) -> None:
        """At the end of an epoch, computes the validation loss of the model that would be published."""
        progress, passed = self.progress, self.progress.images // self._images_per_epoch
        if passed > (progress.images - self.images_per_step) // self._images_per_epoch:
            networks = {**self.trainees.bare, "model": self.trainees.published}
            heldout, seed = self.data.heldout[:], self.run.train.seed
            loss = validation_loss(self.accelerator, self.run.objective, networks, heldout, seed)
            self.meter.add(progress.step, {"validation_loss": loss})
            note_validation(progress, loss.item())

    def _log(self) -> dict[str, str]:
        """Writes a line of the log; returns what the progress bar shows of it."""
        logs = self.meter.read(self.progress) | {"learning_rate": self.trainees.learning_rate}
        write_log(self.accelerator, logs, self.output_dir)
        shown = {name: logs[name] for name in SHOWN if name in logs} | {"images/s": logs["images_per_second"]}
        return {name: f"{value:.4g}" for name, value in shown.items()}

    def _is_preview_due(self, is_last: bool) -> bool:
        step, every = self.progress.step, self.run.train.preview_steps
        if self.length is not None and every == TrainConfig.preview_steps:
            return self.length.is_preview_due(step) or is_last
        return _is_due(step, every, is_last) or step == FIRST_PREVIEW < every

    def _preview(self) -> None:
        self.meter.settle()  # raises an error for a NaN before anything is drawn
        if self.accelerator.is_main_process:
            path = self.output_dir / PREVIEWS / self._preview_name(self.progress)
            self._write_picture(self._draw_preview, path)

    def _draw_preview(self, model: ImageGenerator) -> Image.Image:
        config = self.run.train
        batches = None if config.keeps_prior else self.images.batches(PREVIEW_FIT_IMAGES)
        return draw_preview(model, batches, config.preview_images, config.preview_columns)

    def _reconstruct(self) -> None:
        self.meter.settle()
        if self.accelerator.is_main_process:
            images = to_float(self.data.heldout[:RECONSTRUCTION_IMAGES])
            path = self.output_dir / RECONSTRUCTION_SHEETS / f"step_{self.progress.step:07d}.png"
            self._write_picture(lambda model: draw_reconstructions(model, images), path)

    def _write_picture(self, draw: Callable[[ImageGenerator], Image.Image], path: Path) -> None:
        write_picture(self.accelerator, self.trainees.published, draw, path, self.progress.step)

    def _preview_name(self, progress: Progress) -> str:
        images_per_epoch = None if self.run.data.streaming else self._images_per_epoch
        pattern = self.run.train.preview_file
        return preview_name(pattern, progress.step, progress.images, self.images_per_step, images_per_epoch)

    def _save_checkpoint(self) -> None:
        self.meter.settle()  # raises an error for a NaN before anything is saved
        self._newest_checkpoint = self._checkpoint
        save_checkpoint(
            self.accelerator,
            self.output_dir,
            self._identity,
            self.progress,
            self.meter.state(),
            self.trainees.averaged,
            self.run.train.checkpoints_total_limit,
        )

    def _resume(self) -> None:
        """Loads the checkpoint that the configuration names, and removes the logs and previews after it."""
        wanted, accelerator, run = self.run.train.resume_from_checkpoint, self.accelerator, self._identity
        checkpoint = find_checkpoint(wanted, self.output_dir, run, warn=accelerator.print) if wanted else None
        meter_state, changed = None, []
        if checkpoint:
            self.progress, meter_state = load_checkpoint(accelerator, checkpoint, self.trainees.averaged)
            self.trainees.resume_at(self.progress.step, self.run.train)
            changed = changed_settings(checkpoint, run)
            self._newest_checkpoint = checkpoint
        launch = {"from_step": self.progress.step, "device": device_name(accelerator.device)}
        self.progress.launches.append(launch | {"num_processes": accelerator.num_processes, "changed": changed})
        if wanted and accelerator.is_main_process:
            drop_log_after(self.progress.step, self.output_dir)
            drop_previews_after(self._preview_name(self.progress), self.output_dir / PREVIEWS)
        self.meter = Meter(accelerator, self.progress, meter_state, self.clock.now)

    def _write_start(self) -> None:
        """Writes the configuration and the split to the run folder, prints the plan and starts the trackers."""
        accelerator = self.accelerator
        if accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self.run.save(self.output_dir)
            self.data.split.save(self.output_dir)
            if self.length:
                self.length.save(self.output_dir)
            else:  # a run that is resumed with a number of updates is no longer one by the clock
                (self.output_dir / CLOCK_FILE).unlink(missing_ok=True)
        accelerator.print(self._plan())
        if accelerator.log_with:
            start_trackers(accelerator, self.output_dir.resolve().name, self.run.train)

    def _plan(self) -> str:
        """What the run prints when it starts."""
        accelerator, facts, config = self.accelerator, self.data.facts, self.run.train
        parameters = ", ".join(f"{name} {num_parameters(net):,}" for name, net in self.trainees.bare.items())
        epochs = self.num_steps * self.images_per_step / facts["train"] if "train" in facts else None
        done, num_steps = self.progress.step, self.num_steps
        steps = f"steps {done:,} to {num_steps:,}" if done < num_steps else f"all {done:,} steps are done,"
        processes = f"{accelerator.num_processes} process{'es' if accelerator.num_processes > 1 else ''}"
        has_prior_to_train = trains_prior(self.trainees.published, config)
        prior = f"{config.prior_steps:,} updates of the prior, then " if has_prior_to_train else ""
        return "\n".join(
            [
                f"***** Training {self.run.family} *****",
                f"  images: {', '.join(f'{name} {n:,}' for name, n in facts.items() if name != 'left_out')}",
                *([f"  left out: {as_text(facts['left_out'])}"] if "left_out" in facts else []),
                *self._plan_of_split(),
                f"  parameters: {parameters}",
                f"  {steps} of {self.images_per_step:,} images "
                f"({config.train_batch_size} a process"
                f"{f'; {epochs:.1f} epochs' if epochs else ''})"
                f"{f', fixed for {as_minutes(self.length.minutes)}' if self.length else ''}",
                f"  after these steps: {prior}the evaluation; progress bars show the remaining time",
                f"  {processes} on {accelerator.device}: {self.choices}",
                *self._plan_of_precision(),
                *self._plan_of_width(),
                *([f"  {self.run.objective.legend}"] if self.run.objective.legend else []),
            ]
        )

    def _plan_of_precision(self) -> list[str]:
        device = self.accelerator.device
        if device.type == "cpu" and self.choices.precision == "bf16" and not computes_in_bfloat16(device):
            return ["  this CPU has no bf16 instructions: updates are several times faster with --mixed_precision no"]
        return []

    def _plan_of_width(self) -> list[str]:
        """Advice for a run by the clock that makes few updates of a new network."""
        model, start = self.trainees.published, self.run.train.pretrained_model_name_or_path
        config = model.config
        if self.length is None or self.num_steps >= FEW_UPDATES or start or not model.has_encoder:
            return []
        if config.get("block") != "residual" or config.get("encoder_layers") or config.get("width", 0) <= LEAN_WIDTH:
            return []  # a family of someone else need not have any of them
        lean = f"--width {LEAN_WIDTH} --max_width {LEAN_MAX_WIDTH}"
        return [f"  these are few updates for a network of width {config.width}: with {lean}, there is time for more"]

    def _plan_of_split(self) -> list[str]:
        start = self.run.train.pretrained_model_name_or_path
        if self.may_hold_out_known_images:
            return [f"  split: {start} recorded no split, so images that it was trained on may be held out here"]
        return [f"  split: images that {start} trained on or held out stay on their side"] if start else []


def _sizes(run: RunConfig, accelerator: Accelerator, images: ImageSet | ImageStream) -> tuple[int, int]:
    """Images in an update, on all ranks together, and number of updates of the networks."""
    config = run.train
    per_step = int(config.train_batch_size) * config.gradient_accumulation_steps * accelerator.num_processes
    num_images = len(images) if isinstance(images, ImageSet) else None
    return per_step, num_updates(config, per_step, num_images)


def _with_settings(run: RunConfig, **settings: Any) -> RunConfig:
    """The run with other settings of its `train` section."""
    return dataclasses.replace(run, train=dataclasses.replace(run.train, **settings))


def _is_due(step: int, every: int, is_last: bool) -> bool:
    return every > 0 and (step % every == 0 or is_last)
