"""The one training loop. It knows networks, steps and batches, and no family's name."""

import json
import math
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from .checkpoints import checkpoint_step, find_checkpoint, save_checkpoint
from .config import RunConfig, TrainConfig, differences
from .datasets import ImageSet, load_images
from .dry_run import num_parameters
from .families import FAMILIES
from .latents import fit_prior
from .logs import LOG_FILE, Meter, drop_log_after, refuse_non_finite, write_facts, write_log
from .models import ImageGenerator
from .objectives import Logs, Objective
from .previews import draw_preview, drop_previews_after, preview_file, save_timelapse
from .transforms import augment, to_float


DECODING_TIME = timedelta(hours=6)  # how long the other ranks wait for the first one to download and decode
PREVIEW_FIT_IMAGES = 1024  # enough for a stable Gaussian over a few hundred latents, and cheap to encode
PRIOR_FIT_IMAGES = 50_000  # enough for one over a thousand latents


@dataclass
class Trainees:
    """The networks of a run, bare and prepared for distribution, and what moves them.

    Args:
        bare: The modules themselves; what a step's frozen partners are called through.
        prepared: The same, wrapped where there is more than one process; what the trained network is called through.
        optimizers: One for each network.
        schedulers: One for each network.
        averaged: The running average of the model, or None without EMA.
    """

    bare: dict[str, nn.Module]
    prepared: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    schedulers: dict[str, torch.optim.lr_scheduler.LRScheduler]
    averaged: AveragedModel | None

    @property
    def published(self) -> ImageGenerator:
        """The model that previews and the snapshot show: the running average where there is one."""
        return self.averaged.module if self.averaged else self.bare["model"]


def train(run: RunConfig) -> Path:
    """Trains as `run` says and writes the snapshot, with its prior fitted, to `run.train.output_dir`, which is
    returned.

    Raises:
        ValueError: If a count is below 1, the data cannot be used, a size cannot be made, the checkpoint does not
            exist or belongs to another run, or the loss is no longer finite.
    """
    config, output_dir = run.train, Path(run.train.output_dir)
    for name in ("train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "logging_steps"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} is not possible; it must be at least 1.")
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=None if config.report_to == "none" else config.report_to,
        project_config=ProjectConfiguration(project_dir=str(output_dir), logging_dir=str(output_dir / "logs")),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=DECODING_TIME)],
    )
    checkpoint = find_checkpoint(config.resume_from_checkpoint, output_dir) if config.resume_from_checkpoint else None
    if accelerator.is_main_process:
        _open_run_folder(run, output_dir)
    set_seed(config.seed)
    model = FAMILIES[run.family].model(**run.model)
    with accelerator.main_process_first():
        splits = load_images(run.data, model.config.image_size, model.config.image_channels)
    images = splits.train.to(accelerator.device)
    num_steps = config.max_train_steps or _steps_for_epochs(config, len(images), accelerator.num_processes)
    trainees = _prepare(accelerator, model, run.objective, config, num_steps)
    set_seed(config.seed, device_specific=True)  # all ranks start from the same weights and go on with their own noise

    first_step, seconds_before = 0, 0.0
    if checkpoint:
        accelerator.load_state(str(checkpoint))
        first_step = checkpoint_step(checkpoint)
    if config.resume_from_checkpoint and accelerator.is_main_process:
        seconds_before = drop_log_after(first_step, output_dir)
        drop_previews_after(first_step, output_dir / "previews")
    _print_plan(run, accelerator, trainees, splits.facts, first_step, num_steps)
    if accelerator.log_with:
        accelerator.init_trackers("hf_vae")
    meter = Meter(accelerator, _images_per_step(config, accelerator.num_processes), first_step, seconds_before)
    _loop(accelerator, run, trainees, images, meter, first_step, num_steps)

    if accelerator.is_main_process:
        published = trainees.published.eval().requires_grad_(False)
        fit_prior(published, images.batches(PRIOR_FIT_IMAGES))
        published.save_pretrained(output_dir)
        save_timelapse(output_dir / "previews", output_dir / "timelapse.webp")
        write_facts(accelerator, _images_per_step(config, accelerator.num_processes), splits.facts, output_dir)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return output_dir


def _loop(
    accelerator: Accelerator,
    run: RunConfig,
    trainees: Trainees,
    images: ImageSet,
    meter: Meter,
    first_step: int,
    num_steps: int,
) -> None:
    config, output_dir = run.train, Path(run.train.output_dir)
    progress = tqdm(total=num_steps, initial=first_step, unit="step", disable=not accelerator.is_main_process)
    for network in trainees.bare.values():
        network.train()
    for step in range(first_step + 1, num_steps + 1):
        for micro_step in range(config.gradient_accumulation_steps):
            batch_number = (step - 1) * config.gradient_accumulation_steps + micro_step
            rows = batch_positions(batch_number, len(images), config, accelerator)
            batch = to_float(images[rows].to(accelerator.device))
            batch = augment(batch, run.data.flip, run.data.color_jitter)
            with accelerator.accumulate(*trainees.prepared.values()):
                meter.add(update(accelerator, trainees, run.objective, batch, config))
        for scheduler in trainees.schedulers.values():
            scheduler.step()
        if trainees.averaged:
            trainees.averaged.update_parameters(trainees.bare["model"])
        progress.update()

        is_last = step == num_steps
        checkpoint_is_due = _is_due(step, config.checkpointing_steps, is_last)
        if _is_due(step, config.logging_steps, is_last) or checkpoint_is_due or is_last:  # no unseen NaN is kept
            logs = meter.read(step) | {"learning_rate": trainees.schedulers["model"].get_last_lr()[0]}
            progress.set_postfix({name: f"{value:.4g}" for name, value in logs.items() if name != "step"})
            refuse_non_finite(logs, output_dir)
            write_log(accelerator, logs, output_dir)
        if _is_due(step, config.preview_steps, is_last) and accelerator.is_main_process:
            _write_preview(accelerator, trainees.published, images, output_dir, step)
        if checkpoint_is_due:
            save_checkpoint(accelerator, output_dir, step, config.checkpoints_total_limit)
    progress.close()


def update(
    accelerator: Accelerator, trainees: Trainees, objective: Objective, images: torch.Tensor, config: TrainConfig
) -> Logs:
    """Takes one batch `(B, C, H, W)` in [-1, 1] through the objective's steps. In each, only the trained network may
    be wrapped: its partners are bare and frozen, so that no gradient is computed or averaged that nobody uses."""
    logs: Logs = {}
    for name, step in objective.steps.items():
        trained = trainees.prepared[name]
        for partner, network in trainees.bare.items():
            network.requires_grad_(partner == name)
        loss, step_logs = step({**trainees.bare, name: trained}, images)
        accelerator.backward(loss)
        if accelerator.sync_gradients and config.max_grad_norm:
            # not accelerate's own clipping, which unscales the other optimizers' half-gathered fp16 gradients, too
            accelerator.unscale_gradients(trainees.optimizers[name])
            nn.utils.clip_grad_norm_(trained.parameters(), config.max_grad_norm)
        trainees.optimizers[name].step()
        trainees.optimizers[name].zero_grad()
        logs |= step_logs
    return logs


def batch_positions(batch_number: int, num_images: int, config: TrainConfig, accelerator: Accelerator) -> torch.Tensor:
    """Which pictures are in this rank's share of a batch: `(B,)` positions in the training set.

    All batches of all ranks are consecutive pieces of one endless row of permutations, one for each epoch, seeded by
    run and epoch. So every picture is seen once an epoch whatever the sizes are, and where a run is follows from its
    step alone.
    """
    first = (batch_number * accelerator.num_processes + accelerator.process_index) * config.train_batch_size
    places = torch.arange(first, first + config.train_batch_size)
    positions = torch.empty_like(places)
    for epoch in range(first // num_images, (first + config.train_batch_size - 1) // num_images + 1):
        generator = torch.Generator().manual_seed(config.seed + 1_000_003 * (epoch + 1))
        in_epoch = places // num_images == epoch
        positions[in_epoch] = torch.randperm(num_images, generator=generator)[places[in_epoch] % num_images]
    return positions


def _prepare(
    accelerator: Accelerator, model: ImageGenerator, objective: Objective, config: TrainConfig, num_steps: int
) -> Trainees:
    networks = objective.networks(model)
    averaged = None
    if config.use_ema:
        average = _exponential_average(config.ema_decay)
        averaged = AveragedModel(model, device=accelerator.device, multi_avg_fn=average, use_buffers=True)
        accelerator.register_for_checkpointing(averaged)
    prepared, optimizers, schedulers = {}, {}, {}
    for name, network in networks.items():
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            fused=True,
        )
        # Not prepared: accelerate would step it once for each process, and we count updates.
        schedulers[name] = get_scheduler(
            config.lr_scheduler, optimizer, num_warmup_steps=config.lr_warmup_steps, num_training_steps=num_steps
        )
        accelerator.register_for_checkpointing(schedulers[name])
        prepared[name], optimizers[name] = accelerator.prepare(network, optimizer)
    return Trainees(networks, prepared, optimizers, schedulers, averaged)


def _exponential_average(decay: float):
    """The rule for `AveragedModel`: weights and buffers move by 1 - decay, faster in the first updates."""

    @torch.no_grad()
    def average(averaged: list[torch.Tensor], current: list[torch.Tensor], num_averaged: torch.Tensor) -> None:
        if averaged[0].is_floating_point():
            updates = num_averaged.item()
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + updates) / (10 + updates)))
        else:  # BatchNorm's counter of batches
            torch._foreach_copy_(averaged, current)

    return average


def _open_run_folder(run: RunConfig, output_dir: Path) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    recorded = output_dir / "train_config.json"
    if run.train.resume_from_checkpoint and recorded.is_file():
        if changed := differences(run.to_dict(), json.loads(recorded.read_text())):
            raise ValueError(
                f"{output_dir} was trained differently, so it cannot be resumed. Changed: {'; '.join(changed)}."
            )
    elif (output_dir / LOG_FILE).is_file():
        raise ValueError(
            f"{output_dir} holds another run: choose another --output_dir, or --resume_from_checkpoint latest."
        )
    run.save(recorded)


def _steps_for_epochs(config: TrainConfig, num_images: int, num_processes: int) -> int:
    return math.ceil(config.num_train_epochs * num_images / _images_per_step(config, num_processes))


def _images_per_step(config: TrainConfig, num_processes: int) -> int:
    return config.train_batch_size * config.gradient_accumulation_steps * num_processes


def _is_due(step: int, every: int, is_last: bool) -> bool:
    return every > 0 and (step % every == 0 or is_last)


def _print_plan(
    run: RunConfig,
    accelerator: Accelerator,
    trainees: Trainees,
    pictures: dict[str, int],
    first_step: int,
    num_steps: int,
) -> None:
    batch = _images_per_step(run.train, accelerator.num_processes)
    parameters = ", ".join(f"{name} {num_parameters(network):,}" for name, network in trainees.bare.items())
    epochs = num_steps * batch / pictures["train"]
    processes = f"{accelerator.num_processes} process{'es' if accelerator.num_processes > 1 else ''}"
    accelerator.print(f"***** Training {run.family} *****")
    accelerator.print(f"  pictures: {', '.join(f'{name} {count:,}' for name, count in pictures.items())}")
    accelerator.print(f"  parameters: {parameters}")
    accelerator.print(f"  steps {first_step:,} to {num_steps:,} of {batch:,} images ({epochs:.1f} epochs)")
    accelerator.print(f"  {processes} on {accelerator.device}, precision {accelerator.mixed_precision}")


def _write_preview(
    accelerator: Accelerator, model: ImageGenerator, images: ImageSet, output_dir: Path, step: int
) -> None:
    was_training = model.training
    grid = draw_preview(model, images.batches(PREVIEW_FIT_IMAGES))
    model.train(was_training)
    folder = output_dir / "previews"
    folder.mkdir(exist_ok=True)
    grid.save(preview_file(folder, step))
    for tracker in accelerator.trackers:
        tracker.log_images({"samples": np.asarray(grid.convert("RGB"))[None]}, step=step, dataformats="NHWC")
