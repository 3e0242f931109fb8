"""Points between latents."""

import math

import torch


def slerp(starts: torch.Tensor, ends: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The points at `weights` (..., 1) on the great circles (Shoemake 1985) from `starts` (..., Z), at 0, to `ends`,
    at 1. Unlike points on a straight line, they keep the length that a Gaussian latent typically has. If both ends lie
    on one line through the origin, as far as float32 can tell, there is no one circle, and the points lie on the
    line."""
    angles = torch.arccos(torch.nn.functional.cosine_similarity(starts, ends, dim=-1).clamp(-1, 1))[..., None]
    is_line = (angles < 1e-3) | (angles > math.pi - 1e-3)
    sines = torch.where(is_line, 1.0, torch.sin(angles))
    circle = (torch.sin((1 - weights) * angles) * starts + torch.sin(weights * angles) * ends) / sines
    return torch.where(is_line, torch.lerp(starts, ends, weights), circle)
