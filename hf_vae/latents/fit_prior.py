"""Fitting what latents are drawn from: to the latents of a training set, once the model is trained."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from ..hardware import computes_in_bfloat16
from ..models import ImageGenerator
from ..models.flow import LatentFlow
from ..models.prior import NUM_COMPONENTS, LatentPrior
from .encoding import encode_all


MIXTURE_HELDOUT = 0.1  # the share of the latents that the number of Gaussians is chosen on
FLOW_BATCH = 128
FLOW_LEARNING_RATE = 1e-3
FLOW_EMA_DECAY = 0.999
FLOW_CALIBRATION = 2048  # samples that its mean and standard deviation are taken from


@torch.no_grad()
def fit_gaussian(model: ImageGenerator, batches: Iterable[torch.Tensor], seed: int = 0) -> torch.Tensor | None:
    """Fits the Gaussian and the principal components of the model's prior, in place, in seconds.

    With an encoder: to one posterior draw of each image of `batches`, each `(B, C, H, W)` in [-1, 1], and of its
    mirror image; these latents `(N, Z)` are returned. Without one the prior stays N(0, I), in which every direction is
    alike; the directions are then those along which the decoder's first layer changes most, its right singular vectors
    (SeFa, Shen and Zhou 2021).
    """
    if model.has_encoder:
        generator = torch.Generator().manual_seed(seed)
        drawn = [encode_all(model, torch.cat([batch, batch.flip(3)]), generator) for batch in batches]
        latents = torch.cat(drawn)[:, : model.config.latent_dim]
        model.latent_prior.fit(latents)
        return latents
    first = next(layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear))
    weight = first.weight.cpu().double()  # (features, Z)
    directions = torch.linalg.eigh(weight.T @ weight).eigenvectors.flip(1).T
    ones = directions.new_ones(len(directions))
    model.latent_prior.set_directions(directions, ones, ones)
    return None


def learns_flow(model: ImageGenerator) -> bool:
    """Whether `fit_prior` learns a flow: where `config.prior` is "flow" and there are latents to learn it from."""
    return model.has_encoder and model.config.prior == "flow"


def fit_prior(
    model: ImageGenerator,
    batches: Iterable[torch.Tensor],
    flow_steps: int,
    seed: int = 0,
    progress: bool = False,
    state: dict[str, Any] | None = None,
    after_update: Callable[["FlowTraining"], None] | None = None,
    in_bfloat16: bool | None = None,
) -> None:
    """Fits all of the model's prior, in place: what `fit_gaussian` fits, the mixture and, where `learns_flow`, the
    flow, in `flow_steps` updates, as `fit_flow`."""
    latents = fit_gaussian(model, batches, seed)
    if latents is not None:
        fit_mixture(model.latent_prior, latents, seed)
    if learns_flow(model):
        fit_flow(model.latent_prior, latents, flow_steps, seed, progress, state, after_update, in_bfloat16)


def fit_mixture(prior: LatentPrior, latents: torch.Tensor, seed: int = 0) -> None:
    """Fits mixtures of 1, 2, 4, 8 and 16 Gaussians with diagonal covariances to the coordinates of `latents` (N, Z)
    along the directions, and keeps the one under which a tenth that none of them saw is likeliest."""
    coordinates = prior.coordinates(latents).cpu().double().numpy()
    order = np.random.default_rng(seed).permutation(len(coordinates))
    heldout, fitted = np.split(coordinates[order], [max(1, round(MIXTURE_HELDOUT * len(order)))])
    sizes = [size for size in (1, 2, 4, 8, NUM_COMPONENTS) if size <= len(fitted)]
    mixtures = [GaussianMixture(size, covariance_type="diag", random_state=seed).fit(fitted) for size in sizes]
    best = max(mixtures, key=lambda mixture: mixture.score(heldout))
    weights, means, variances = (torch.from_numpy(v) for v in (best.weights_, best.means_, best.covariances_))
    prior.set_mixture(weights, means, variances.sqrt())


def fit_flow(
    prior: LatentPrior,
    latents: torch.Tensor,
    num_steps: int,
    seed: int = 0,
    progress: bool = False,
    state: dict[str, Any] | None = None,
    after_update: Callable[["FlowTraining"], None] | None = None,
    in_bfloat16: bool | None = None,
) -> list[float]:
    """Trains a flow on `latents` (N, Z), to which the Gaussian of `prior` was fitted, calibrates it, and puts it
    into `prior`. Returns the mean loss of each tenth.

    Args:
        prior: Whose flow it becomes.
        latents: What it learns to draw.
        num_steps: Updates in all.
        seed: Of its first weights and of all its noise.
        progress: Whether to show a bar.
        state: What `FlowTraining.state` gave after an update of the same training, which then goes on from there.
        after_update: Is called after each update.
        in_bfloat16: Whether the network computes in bf16; where the hardware does, if None.
    """
    normalised = prior.normalised(latents.to(prior.mean.device))
    training = FlowTraining(normalised, prior.latent_size, num_steps, seed, in_bfloat16)
    if state is None:
        training.flow.start_from(normalised)
    else:
        training.restore(state)
    steps = range(len(training.losses), num_steps)
    shown = {"desc": "learning the prior", "initial": steps.start, "total": num_steps, "disable": not progress}
    for _ in (bar := tqdm(steps, **shown)):
        training.update()
        if len(training.losses) % 100 == 0:
            bar.set_postfix(loss=f"{torch.stack(training.losses[-100:]).mean().item():.4f}")
        if after_update:
            after_update(training)
    prior.flow = training.averaged.module.eval().requires_grad_(False)
    prior.flow.calibrate(training.noise(FLOW_CALIBRATION))
    return [part.mean().item() for part in torch.stack(training.losses).tensor_split(min(10, num_steps))]


def seconds_per_update(prior: LatentPrior, in_bfloat16: bool | None = None, num_updates: int = 3) -> float:
    """How long an update of `fit_flow` takes here, measured on a flow of the same size that is thrown away. Neither
    `prior` nor a global random state is touched."""
    latents = torch.randn(FLOW_BATCH, prior.latent_dim, generator=torch.Generator().manual_seed(0))
    latents = latents.to(prior.mean.device)
    training = FlowTraining(latents, prior.latent_size, num_steps=1 + num_updates, in_bfloat16=in_bfloat16)
    training.update()  # the first one allocates memory and chooses kernels
    training.losses[-1].item()  # waits for the device
    started = time.perf_counter()
    for _ in range(num_updates):
        training.update()
    training.losses[-1].item()
    return (time.perf_counter() - started) / num_updates


class FlowTraining:
    """A flow that learns, and what moves it.

    The loss is the squared error of the velocity, averaged over latents (Lipman et al. 2023, equation 23), at times
    drawn from the logistic of N(0, 1) (Esser et al. 2024, section 3.1) and shifted.

    Args:
        latents: Normalised, `(N, Z)`, on the device on which it learns.
        latent_size: Edge of the grid that they lie on, 1 for those without a place.
        num_steps: Updates in all, which the learning rate follows.
        seed: Of the first weights and of all noise.
        in_bfloat16: Whether the network computes in bf16; where the hardware does, if None.
    """

    def __init__(
        self,
        latents: torch.Tensor,
        latent_size: int,
        num_steps: int,
        seed: int = 0,
        in_bfloat16: bool | None = None,
    ):
        self._latents, device = latents, latents.device
        self._in_bfloat16 = computes_in_bfloat16(device) if in_bfloat16 is None else in_bfloat16
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            self.flow = LatentFlow(latents.shape[1], latent_size).to(device).train()
        self.averaged = AveragedModel(self.flow, multi_avg_fn=_follow)
        self._optimizer = torch.optim.AdamW(
            self.flow.parameters(), lr=FLOW_LEARNING_RATE, betas=(0.9, 0.99), fused=True
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, num_steps)
        self._generator = torch.Generator(device).manual_seed(seed)
        self.losses: list[torch.Tensor] = []  # of each update, still on the device

    def update(self) -> None:
        """One update of the weights, and of their running average."""
        device, flow = self._latents.device, self.flow
        chosen = torch.randint(len(self._latents), (FLOW_BATCH,), generator=self._generator, device=device)
        latents, noise = self._latents[chosen], self.noise(FLOW_BATCH)
        times = flow.shifted(torch.randn(FLOW_BATCH, generator=self._generator, device=device).sigmoid())
        points = torch.lerp(latents, noise, times[:, None])
        with torch.autocast(device.type, torch.bfloat16, enabled=self._in_bfloat16):
            added = flow.added_velocity(points, times)
        velocity = flow.gaussian_velocity(points, times) + added.float()
        loss = (velocity - (noise - latents)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        self.averaged.update_parameters(flow)
        self.losses.append(loss.detach())

    def noise(self, rows: int) -> torch.Tensor:
        """The next `(rows, Z)` of N(0, I)."""
        return torch.randn(rows, self._latents.shape[1], generator=self._generator, device=self._latents.device)

    def state(self) -> dict[str, Any]:
        """Everything that the next updates follow from, but for the latents: tensors and plain values."""
        return {name: part.state_dict() for name, part in self._parts.items()} | {
            "generator": self._generator.get_state(),
            "losses": torch.stack(self.losses),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self._generator.set_state(state["generator"])
        self.losses = list(state["losses"].to(self._latents.device))

    @property
    def _parts(self) -> dict[str, Any]:
        return {
            "flow": self.flow,
            "averaged": self.averaged,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
        }


def _follow(averaged: list[torch.Tensor], values: list[torch.Tensor], num_updates: torch.Tensor) -> None:
    """A running average that moves faster in its first updates, as that of a training does."""
    decay = min(FLOW_EMA_DECAY, (1 + num_updates.item()) / (10 + num_updates.item()))
    torch._foreach_lerp_(averaged, values, 1 - decay)
