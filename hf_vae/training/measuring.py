"""What the parts of a run cost on this machine: measured before its first update, on copies that are thrown away."""

import statistics
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import torch
from accelerate import Accelerator

from ..config import TrainConfig
from ..data.cached import ImageSet
from ..data.streaming import ImageStream
from ..latents.fit_detail import fit_detail
from ..latents.fit_prior import draw_latents, fit_prior
from ..models import ImageGenerator
from ..models.priors.base import PriorTraining
from ..models.priors.code import CODE_SHARE
from ..models.priors.flow import CALIBRATION_SAMPLES
from .fitting import FIT_IMAGES, prior_settings, trains_prior
from .length import Clock


FIT_SAMPLE = 256  # images that the fitting is measured with
PRIOR_UPDATES = 20  # updates of the prior that are measured
CALIBRATION_MEASURED = 128  # of the samples that the prior is calibrated with at its end


def same_random_numbers(device: torch.device) -> AbstractContextManager[None]:
    """A context that leaves the random numbers of the CPU and of `device` as they are."""
    return torch.random.fork_rng(devices=[device] if device.type != "cpu" else [], device_type=device.type)


@contextmanager
def leaving_no_trace(accelerator: Accelerator) -> Iterator[None]:
    """A context for training copies. Afterwards the random numbers and the accelerator are as they were before."""
    scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
    with same_random_numbers(accelerator.device):
        yield
    accelerator.free_memory()  # forgets the networks and optimizers that it prepared
    if scaler is not None:
        accelerator.scaler.load_state_dict(scaler)


def measure_fitting(
    model: ImageGenerator, images: ImageSet | ImageStream, config: TrainConfig, in_bfloat16: bool, clock: Clock
) -> tuple[float, float, float]:
    """Fits a model that is thrown away to a few of the training images.

    Returns:
        The seconds of an update of the prior, 0 if none is learned; of fitting the residual latents to all images, 0
        if there are none; and of all else that fitting the prior to all images takes.
    """
    num_images = min(FIT_IMAGES, len(images)) if isinstance(images, ImageSet) else FIT_IMAGES
    scale = num_images / min(FIT_SAMPLE, num_images)
    details = 0.0
    if getattr(model, "detail", None) is not None:
        begin = clock.seconds
        fit_detail(model, images.batches(FIT_SAMPLE))  # type: ignore[arg-type]  # one with `detail` has the methods
        details = scale * (clock.seconds - begin)
    if config.keeps_prior:
        return 0.0, details, 0.0
    if not trains_prior(model, config):
        begin = clock.seconds
        fit_prior(model, images.batches(FIT_SAMPLE), PRIOR_UPDATES, config.seed)
        return 0.0, details, scale * (clock.seconds - begin)
    begin = clock.seconds
    latents = draw_latents(model, images.batches(FIT_SAMPLE), config.seed, config.prior_draws)
    model.latent_prior.fit_priors(latents, config.seed)  # those that are not learned
    fitting = scale * (clock.seconds - begin)
    stamps = [clock.seconds]

    def note(training: PriorTraining) -> None:
        training.losses[-1].item()  # waits for the device
        stamps.append(clock.seconds)
        if len(training.losses) == PRIOR_UPDATES:
            raise _Measured

    with suppress(_Measured):
        fit_prior(
            model,
            images.batches(FIT_SAMPLE),
            PRIOR_UPDATES,
            config.seed,
            after_update=note,
            in_bfloat16=in_bfloat16,
            **prior_settings(config),
        )
    durations = [after - before for before, after in zip(stamps, stamps[1:], strict=False)]
    # the first update of the code, and that of the flow, come with what prepares them
    num_of_code = round(CODE_SHARE * PRIOR_UPDATES)
    code, flow = statistics.fmean(durations[1:num_of_code]), statistics.fmean(durations[num_of_code + 1 :])
    fitting += max(0.0, durations[0] - code) + scale * max(0.0, durations[num_of_code] - flow)
    begin = clock.seconds
    model.eval()
    model.latent_prior.sample(CALIBRATION_MEASURED, model.config.prior, torch.Generator().manual_seed(config.seed))
    fitting += CALIBRATION_SAMPLES / CALIBRATION_MEASURED * (clock.seconds - begin)
    return CODE_SHARE * code + (1 - CODE_SHARE) * flow, details, fitting


class _Measured(Exception):  # noqa: N818, it is not an error
    """Ends the training of a prior that is measured, before its calibration, which takes longer than the updates."""
