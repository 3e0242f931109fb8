"""Fitting what latents are drawn from: to the latents of a training set, once the model is trained."""

from collections.abc import Iterable

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm import trange

from .latents import encode_all
from .machine import computes_in_bfloat16
from .models import ImageGenerator
from .models.flow import LatentFlow
from .models.prior import NUM_COMPONENTS, LatentPrior


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


def fit_prior(
    model: ImageGenerator, batches: Iterable[torch.Tensor], flow_steps: int, seed: int = 0, progress: bool = False
) -> None:
    """Fits all of the model's prior, in place: what `fit_gaussian` fits, the mixture and, where `config.prior` is
    "flow", the flow, in `flow_steps` updates, with a bar if `progress`."""
    latents = fit_gaussian(model, batches, seed)
    if latents is not None:
        fit_mixture(model.latent_prior, latents, seed)
        if model.config.prior == "flow":
            fit_flow(model.latent_prior, latents, flow_steps, seed, progress)


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
    prior: LatentPrior, latents: torch.Tensor, num_steps: int, seed: int = 0, progress: bool = False
) -> list[float]:
    """Trains a new flow on `latents` (N, Z), which the prior's Gaussian was fitted to before, in `num_steps` updates
    (AdamW, cosine to 0, running average of the weights) from where their Gaussian takes it, calibrates it, and puts it
    into `prior`. Returns the mean loss of each tenth.

    The loss is the squared error of the velocity, averaged over latents (Lipman et al. 2023, equation 23), at times
    drawn from the logistic of N(0, 1) (Esser et al. 2024, section 3.1) and shifted.
    """
    device = prior.mean.device
    normalised = prior.normalised(latents.to(device))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        flow = LatentFlow(prior.latent_dim, prior.latent_size).to(device).train()
    flow.start_from(normalised)
    averaged = AveragedModel(flow, multi_avg_fn=_follow)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=FLOW_LEARNING_RATE, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    generator = torch.Generator(device).manual_seed(seed)
    losses = []
    for _ in (bar := trange(num_steps, desc="learning the prior", disable=not progress)):
        chosen = torch.randint(len(normalised), (FLOW_BATCH,), generator=generator, device=device)
        noise = torch.randn(FLOW_BATCH, prior.latent_dim, generator=generator, device=device)
        times = flow.shifted(torch.randn(FLOW_BATCH, generator=generator, device=device).sigmoid())
        points = torch.lerp(normalised[chosen], noise, times[:, None])
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bfloat16(device)):
            added = flow.added_velocity(points, times)
        velocity = flow.gaussian_velocity(points, times) + added.float()
        loss = (velocity - (noise - normalised[chosen])).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        averaged.update_parameters(flow)
        losses.append(loss.detach())
        if len(losses) % 100 == 0:
            bar.set_postfix(loss=f"{torch.stack(losses[-100:]).mean().item():.4f}")
    prior.flow = averaged.module.eval().requires_grad_(False)
    noise = torch.randn(FLOW_CALIBRATION, prior.latent_dim, generator=generator, device=device)
    prior.flow.calibrate(noise)
    return [part.mean().item() for part in torch.stack(losses).tensor_split(min(10, num_steps))]


def _follow(averaged: list[torch.Tensor], values: list[torch.Tensor], num_updates: torch.Tensor) -> None:
    """A running average that moves faster in its first updates, as that of a training does."""
    decay = min(FLOW_EMA_DECAY, (1 + num_updates.item()) / (10 + num_updates.item()))
    torch._foreach_lerp_(averaged, values, 1 - decay)
