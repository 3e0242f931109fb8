"""What is fitted to the trained networks of a run before its model is published: residual latents and prior."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..config import TrainConfig
from ..data.cached import ImageSet
from ..data.streaming import ImageStream
from ..hardware import device_name
from ..latents.fit_detail import fit_detail
from ..latents.fit_prior import fit_prior, learns_prior
from ..models import ImageGenerator
from ..models.priors.base import PriorTraining
from ..pictures import to_float
from .checkpoints import PriorCheckpoint
from .interruptions import StopSignals


FIT_IMAGES = 50_000  # enough for a stable Gaussian of a thousand latents
HELDOUT_IMAGES = 256  # that the prior is measured on while it learns, each beside its mirror image


def trains_prior(model: ImageGenerator, config: TrainConfig) -> bool:
    """Whether the prior of `model` is a network that is trained after the others."""
    return learns_prior(model) and not config.keeps_prior


def prior_settings(config: TrainConfig) -> dict[str, Any]:
    """What a run says of how a prior learns, as arguments of `fit_prior`."""
    return {"batch_size": config.prior_batch_size, "dropout": config.prior_dropout, "draws": config.prior_draws}


class Fitting:
    """Fits residual latents and prior, on one rank.

    Args:
        accelerator: The run's accelerator.
        model: The model, whose networks are trained.
        images: The training images.
        heldout: The held-out images.
        config: The settings of the run.
        checkpoint: The checkpoint of the trained networks, in the run folder.
        stop: Tells when to stop.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: ImageGenerator,
        images: ImageSet | ImageStream,
        heldout: ImageSet,
        config: TrainConfig,
        checkpoint: Path,
        stop: StopSignals,
    ):
        self._model, self._images, self._config = model, images, config
        self._heldout = to_float(heldout[:HELDOUT_IMAGES])
        self._accelerator, self._checkpoint, self._stop = accelerator, checkpoint, stop
        self._prior_steps = int(config.prior_steps)  # it is not "auto" any more
        self._prior_checkpoint: PriorCheckpoint | None = None
        self.prior_facts: dict[str, Any] | None = None  # of a prior that was trained: updates, seconds and device

    def fit(self) -> None:
        """Fits the model in place. A prior whose training was interrupted is resumed.

        Raises:
            OSError: If the disk is full.
            TrainingInterrupted: After SIGTERM or Ctrl-C, once the state of the prior is written.
        """
        if self._model.detail is not None:
            fit_detail(self._model, self._batches())  # type: ignore[arg-type]  # one with `detail` has the methods
        config, run_folder = self._config, self._checkpoint.parent
        self._prior_checkpoint = PriorCheckpoint(
            run_folder,
            self._model,
            self._prior_steps,
            config.seed,
            prior_settings(config) | {"early_stopping": config.prior_early_stopping},
        )
        if not config.keeps_prior:
            self._fit_prior(self._prior_checkpoint)
        self._stop.raise_if_received(self._checkpoint.name)

    def remove_checkpoint(self) -> None:
        """Removes the checkpoint of the prior, once the model is published."""
        if self._prior_checkpoint:
            self._prior_checkpoint.remove()

    def _fit_prior(self, kept: PriorCheckpoint) -> None:
        config = self._config
        state = kept.load(self._accelerator.print)
        trainings: list[PriorTraining] = []
        if state:
            done = len(state["losses"])
            self._accelerator.print(f"  the prior resumes after {done:,} of its {self._prior_steps:,} updates")

        def after_update(training: PriorTraining) -> None:
            trainings[:] = [training]
            if self._stop.received or kept.is_due():
                kept.save(training.state())
            self._stop.raise_if_received(
                f"{kept.path.name} at update {len(training.losses):,} of {self._prior_steps:,} of the prior"
            )

        # without a gradient scaler, fp16 is not for the prior
        in_bfloat16 = self._accelerator.mixed_precision == "bf16"
        fit_prior(
            self._model,
            self._batches(),
            self._prior_steps,
            config.seed,
            progress=True,
            state=state,
            after_update=after_update,
            in_bfloat16=in_bfloat16,
            heldout=self._heldout if config.prior_early_stopping else None,
            **prior_settings(config),
        )
        if trains_prior(self._model, config):
            device = device_name(self._accelerator.device)
            best = trainings[0].kept if trainings else None
            facts: dict[str, Any] = {"steps": self._prior_steps, "kept": self._prior_steps if best is None else best}
            facts |= {"seconds": round(kept.seconds), "device": device, "num_processes": 1}
            self.prior_facts = facts | {"precision": "bf16" if in_bfloat16 else "no"}

    def _batches(self) -> Iterator[torch.Tensor]:
        """Batches of training images, until the run is told to stop."""
        for images in self._images.batches(FIT_IMAGES):
            self._stop.raise_if_received(self._checkpoint.name)
            yield images
