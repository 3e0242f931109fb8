"""Losses as pure functions: tensors in, one value per image `(B,)` out. Each docstring says what it sums over."""

import math

import torch
import torch.nn.functional as F


def squared_error(reconstructions: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Squared error, summed over the C*H*W values of each image: `(B, C, H, W)` twice to `(B,)`."""
    return (reconstructions.float() - images.float()).square().flatten(1).sum(1)


def absolute_error(reconstructions: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Absolute error, summed over the C*H*W values of each image: `(B, C, H, W)` twice to `(B,)`."""
    return (reconstructions.float() - images.float()).abs().flatten(1).sum(1)


def binary_cross_entropy(reconstructions: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy in nats between values moved from [-1, 1] to [0, 1], summed over the C*H*W values of each
    image: `(B, C, H, W)` twice to `(B,)`. A reconstruction outside [-1, 1] counts as if it lay on its edge, plus the
    distance to it, so that it is pulled back."""
    reconstructions = reconstructions.float()
    inside = reconstructions.clamp(-1 + 1e-4, 1 - 1e-4)
    entropy = F.binary_cross_entropy((inside + 1) / 2, (images.float() + 1) / 2, reduction="none")
    return (entropy + (reconstructions - inside).abs()).flatten(1).sum(1)


RECONSTRUCTION_LOSSES = {"mse": squared_error, "l1": absolute_error, "bce": binary_cross_entropy}


def calibrated_nll(
    reconstructions: torch.Tensor, images: torch.Tensor, variance: torch.Tensor | None = None
) -> torch.Tensor:
    """Negative log-likelihood in nats, summed over the D = C*H*W values of each image, under a Gaussian whose one
    variance is the best for the batch (sigma-VAE, Rybkin et al. 2021, equation 5).

    With s2 the batch's mean squared error, it is `D/2 (log(2 pi s2) + error / s2)`; s2 is not differentiated, which
    leaves the gradient of `D/2 log s2`. s2 has a floor of exp(-8), a standard deviation of 0.018 on images in [-1, 1].
    Where `images` are only a share of the batch, `variance` is the s2 of the whole.
    """
    error = squared_error(reconstructions, images)
    num_values = images[0].numel()
    if variance is None:
        variance = error.mean() / num_values
    variance = variance.detach().clamp(min=math.exp(-8))
    return 0.5 * (num_values * torch.log(2 * math.pi * variance) + error / variance)


def gaussian_kl(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, exp(logvar)) || N(0, I)) in nats, summed over the Z latents of each image: `(B, Z)` twice to `(B,)`
    (Kingma and Welling 2014, appendix B)."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)


def active_units(mean: torch.Tensor) -> torch.Tensor:
    """How many of Z latents carry anything: those whose posterior mean `(B, Z)` varies by more than 0.01 over the
    images of a batch (Burda et al. 2016, section 5.2). A scalar; 0 for a batch of one."""
    return (mean.float().var(0, correction=min(1, len(mean) - 1)) > 0.01).sum().float()


def relativistic(logits: torch.Tensor, partner_logits: torch.Tensor) -> torch.Tensor:
    """Relativistic pairing loss `softplus(-(logits - partner_logits))`, `(B,)` twice to `(B,)` (Jolicoeur-Martineau
    2019; Huang et al. 2024, equation 2): low when each image looks more real than its partner. The discriminator
    passes real logits first, the generator fake ones."""
    return F.softplus(partner_logits.float() - logits.float())


def gradient_penalty(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Squared norm of the gradient of each logit with respect to its own image, summed over C*H*W: R1 on real images,
    R2 on fake ones (Mescheder et al. 2018, equation 9). `logits` (B,) must come from `images` (B, C, H, W), which
    require grad; what little a logit owes to other images of its group counts for those."""
    (gradient,) = torch.autograd.grad(logits.float().sum(), images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)
