"""What is done in latent space: pictures to latents, and paths between them."""

import math

import torch

from .models import ImageGenerator


ENCODE_BATCH = 256


@torch.no_grad()
def encode_all(model: ImageGenerator, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Encodes images `(N, C, H, W)` in [-1, 1] in batches to latents `(N, Z)`; with a `generator`, draws each from its
    posterior where the family has one, and gives the posterior's mean otherwise."""
    latents = []
    for batch in images.split(ENCODE_BATCH):
        output = model.encode(batch.to(model.device))
        noise = 0.0
        if generator is not None and output.logvar is not None:
            noise = torch.randn(output.latents.shape, generator=generator).to(model.device)
            noise = noise * torch.exp(0.5 * output.logvar)
        latents.append(output.latents + noise)
    return torch.cat(latents)


def path(start: torch.Tensor, end: torch.Tensor, num_points: int, kind: str = "lerp") -> torch.Tensor:
    """Points from `start` (Z,) to `end` (Z,), both included: `(num_points, Z)`, evenly spaced on the line ("lerp") or
    on the great circle ("slerp", Shoemake 1985), which keeps the length that a Gaussian latent typically has.

    Raises:
        ValueError: If `kind` is unknown, or fewer than two points are asked for.
    """
    if num_points < 2:
        raise ValueError(f"A path needs at least 2 points; got {num_points}.")
    weights = torch.linspace(0, 1, num_points, device=start.device)[:, None]  # (num_points, 1)
    if kind == "lerp":
        return torch.lerp(start, end, weights)
    if kind != "slerp":
        raise ValueError(f"Interpolation {kind!r} is unknown; choose lerp or slerp.")
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=0).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if angle < 1e-3 or angle > math.pi - 1e-3:  # on one line, as far as float32 can tell: there is no one circle
        return torch.lerp(start, end, weights)
    return (torch.sin((1 - weights) * angle) * start + torch.sin(weights * angle) * end) / torch.sin(angle)
