"""Fits the prior of a model to the latents of a training set, once its networks are trained."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..hardware import computes_in_bfloat16
from ..models import ImageGenerator
from ..models.principal_components import principal_components
from ..models.priors import CODE, PRIORS
from ..models.priors.base import LEARNING_BATCH, Learning, PriorTraining
from ..objectives.perceptual import image_error
from .encoding import encode_all


def learns_prior(model: ImageGenerator) -> bool:
    """Whether `fit_prior` makes training updates: if the model's own prior takes them, and there are encoded images
    to learn from."""
    return model.has_encoder and model.config.prior in PRIORS and PRIORS[model.config.prior].is_learned


def fit_prior(
    model: ImageGenerator,
    batches: Iterable[torch.Tensor],
    num_updates: int,
    seed: int = 0,
    progress: bool = False,
    state: dict[str, Any] | None = None,
    after_update: Callable[[PriorTraining], None] | None = None,
    in_bfloat16: bool | None = None,
    heldout: torch.Tensor | None = None,
    batch_size: int = LEARNING_BATCH,
    dropout: float = 0.0,
    draws: int = 1,
) -> None:
    """Fits the principal components and all priors of a model, in place. Without an encoder only the components are
    fitted, see `fit_components`.

    Args:
        model: A model whose networks are trained.
        batches: Images of the training set, each batch `(B, C, H, W)` in [-1, 1].
        num_updates: Number of training updates, of a prior that takes them.
        seed: Seed of all randomness.
        progress: Show a progress bar of these updates.
        state: What `PriorTraining.state` gave after an update of the same training, which resumes from there.
        after_update: Is called after each update.
        in_bfloat16: Whether the prior's network computes in bf16; if None, where the hardware does.
        heldout: Images `(M, C, H, W)` in [-1, 1] that the model was not trained on. The prior keeps the weights that
            suit them best.
        batch_size: As in `Learning`.
        dropout: As in `Learning`.
        draws: Number of draws from the posterior of each training image and of its mirror image.

    Raises:
        ValueError: If there are fewer than two images. If the prior has a code, and the package with the network that
            it is learned with is not installed.
    """
    if not model.has_encoder:
        fit_components(model, batches, seed)
        return
    error = image_error(model) if learns_prior(model) and model.config.prior == CODE else None
    latents, prior = draw_latents(model, batches, seed, draws), model.latent_prior
    if not learns_prior(model):
        prior.fit_priors(latents, seed)
        return
    done = 0 if state is None else len(state["losses"])
    with tqdm(desc="learning the prior", initial=done, total=num_updates, disable=not progress) as bar:

        def count(training: PriorTraining) -> None:
            bar.update()
            if len(training.losses) % 100 == 0:
                bar.set_postfix(loss=f"{torch.stack(training.losses[-100:]).mean().item():.4f}")
            if after_update is not None:
                after_update(training)

        in_bfloat16 = computes_in_bfloat16(prior.mean.device) if in_bfloat16 is None else in_bfloat16
        known = None if heldout is None else draw_latents(model, [heldout], seed)
        learning = Learning(num_updates, in_bfloat16, state, count, error, known, batch_size, dropout)
        prior.fit_priors(latents, seed, learning)


@torch.no_grad()
def fit_components(model: ImageGenerator, batches: Iterable[torch.Tensor], seed: int = 0) -> None:
    """Fits the principal components of a model's latents, in place, in seconds.

    With an encoder they are those of the latents of `batches`, see `draw_latents`. Without one, latents are N(0, I),
    in which every direction is alike. The directions are then those along which the decoder's first layer changes
    most, its right singular vectors (SeFa, Shen and Zhou 2021).
    """
    if model.has_encoder:
        model.latent_prior.fit(draw_latents(model, batches, seed))
        return
    first = next(layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear))
    weight = first.weight.cpu().double()  # (features, Z)
    _, directions = principal_components(weight.T @ weight)
    ones = directions.new_ones(len(directions))
    model.latent_prior.set_directions(directions, ones, ones)


@torch.no_grad()
def draw_latents(
    model: ImageGenerator, batches: Iterable[torch.Tensor], seed: int = 0, draws: int = 1
) -> torch.Tensor:
    """Draws from the posterior of each image of `batches`, each `(B, C, H, W)` in [-1, 1], and of its mirror image:
    `(N, Z)`, without residual latents. A family without a posterior has one latent for each of them, however many
    `draws` are asked for."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [encode_all(model, torch.cat([batch, batch.flip(3)]), generator, draws) for batch in batches]
    return torch.cat(drawn)[:, : model.config.latent_dim]


def has_other_preview_prior(model: ImageGenerator) -> bool:
    """Whether previews during a training are drawn from another prior than the model's own, see `fit_for_preview`."""
    return model.has_encoder and PRIORS[model.config.prior].preview_kind != model.config.prior


def fit_for_preview(model: ImageGenerator, batches: Iterable[torch.Tensor]) -> str:
    """The prior that a preview of a training draws from: one that is fitted in seconds, and is fitted here to the
    images of `batches`, or the model's own where nothing can be fitted."""
    kind = model.config.prior
    if not model.has_encoder:
        return kind
    kind = PRIORS[kind].preview_kind
    if PRIORS[kind].is_fitted:
        fit_components(model, batches)
    return kind
