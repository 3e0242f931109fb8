"""Images to latents, for a model that has no encoder."""

from collections.abc import Callable

import torch

from ..models import ImageGenerator


NUM_DRAWS = 256
NUM_STEPS = 150
LEARNING_RATE = 0.1
LENGTH_WEIGHT = 0.01


@torch.enable_grad()
def invert(
    model: ImageGenerator,
    images: torch.Tensor,
    seed: int = 0,
    report: Callable[[float], None] | None = None,
) -> torch.Tensor:
    """Searches for latents that decode to images near the given ones (Zhu et al. 2016). The search starts from the
    nearest of 256 samples and follows the gradient of the mean squared error. Latents that are longer than samples are
    penalised, so that those found stay where the model generates well, and can be interpolated.

    Args:
        model: Any model.
        images: Images `(N, C, H, W)` in [-1, 1].
        seed: Seed of the samples.
        report: Is called with the share that is done, from 0 to 1, after each of 150 steps.

    Returns:
        Latents `(N, Z)`.
    """
    model.eval()
    images = images.to(model.device)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        draws = model.latent_prior.sample(NUM_DRAWS, model.config.prior, generator)  # (D, Z)
        drawn = torch.cat([model.decode(some).sample.float() for some in draws.split(64)])
        nearest = torch.cdist(images.flatten(1), drawn.flatten(1)).argmin(1)
    latents = draws[nearest].clone().requires_grad_()
    optimizer = torch.optim.Adam([latents], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_STEPS)
    for step in range(NUM_STEPS):
        error = (model.decode(latents).sample.float() - images).square().flatten(1).mean(1)
        length = model.latent_prior.normalised(latents).square().mean(1)  # 1 for a typical draw
        loss = (error + LENGTH_WEIGHT * (length - 1).clamp(min=0)).sum()
        (latents.grad,) = torch.autograd.grad(loss, [latents])
        optimizer.step()
        schedule.step()
        if report is not None:
            report((step + 1) / NUM_STEPS)
    return latents.detach()
