"""Losses as pure functions: tensors in, one value per image `(B,)` out. Each docstring states the sums."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F


MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MOST_KL_WEIGHT = 3000.0  # of a divergence that is twice its target, in calibrated units


def squared_error(reconstructions: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Squared error, summed over the C*H*W values of each image: `(B, C, H, W)` twice to `(B,)`."""
    return (reconstructions.float() - images.float()).square().flatten(1).sum(1)


def absolute_error(reconstructions: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Absolute error, summed over the C*H*W values of each image: `(B, C, H, W)` twice to `(B,)`."""
    return (reconstructions.float() - images.float()).abs().flatten(1).sum(1)


def binary_cross_entropy(reconstructions: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy in nats between values moved from [-1, 1] to [0, 1], summed over the C*H*W values of each
    image: `(B, C, H, W)` twice to `(B,)`. A value of a reconstruction outside [-1, 1] is clipped, and its distance to
    that range is added, so that the gradient pulls it back."""
    reconstructions = reconstructions.float()
    inside = reconstructions.clamp(-1 + 1e-4, 1 - 1e-4)
    given, wanted = (inside + 1) / 2, (images.float() + 1) / 2
    # not F.binary_cross_entropy, which raises an error under autocast on a GPU, whatever its inputs are
    entropy = (wanted - 1) * torch.log1p(-given) - wanted * given.log()
    return (entropy + (reconstructions - inside).abs()).flatten(1).sum(1)


def structural_dissimilarity(reconstructions: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """1 minus the multi-scale structural similarity (Wang et al. 2003), times the C*H*W values of an image, so that
    the mean over these is between 0 and 1: `(B, C, H, W)` twice to `(B,)`. It uses those of the five scales of the
    publication whose images the window of 11 pixels fits into. The similarity is that of torchmetrics."""
    # imported here, as sampling does not need torchmetrics
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as similarity

    scales = max(1, sum(images.shape[-1] >> scale >= 11 for scale in range(5)))
    weights = tuple(weight / sum(MS_SSIM_WEIGHTS[:scales]) for weight in MS_SSIM_WEIGHTS[:scales])
    with _full_precision(images):  # autocast would round its convolutions
        found = similarity(
            reconstructions.float(),
            images.float(),
            data_range=(-1.0, 1.0),
            betas=weights,
            reduction="none",
            normalize="relu",
        )
    return (1 - found) * images[0].numel()


RECONSTRUCTION_LOSSES = {
    "mse": squared_error,
    "l1": absolute_error,
    "bce": binary_cross_entropy,
    "ms_ssim": structural_dissimilarity,
}


def calibrated_nll(
    reconstructions: torch.Tensor,
    images: torch.Tensor,
    variance: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """Negative log-likelihood in nats, summed over the D = C*H*W values of each image, under a Gaussian whose one
    variance is the best for the batch (sigma-VAE, Rybkin et al. 2021, equation 5).

    With s2 the mean squared error of the batch, it is `D/2 (log(2 pi s2) + error / s2)`. s2 is not differentiated, so
    the gradient is that of `D/2 log s2`. s2 is at least exp(-8), a standard deviation of 0.018 on images in [-1, 1].
    If `images` are only a share of the batch, pass the s2 of the whole batch as `variance`. What is `added` (B,) to
    the mean squared error of each image counts as part of it.
    """
    error = squared_error(reconstructions, images)
    num_values = images[0].numel()
    if added is not None:
        error = error + num_values * added
    if variance is None:
        variance = error.mean() / num_values
    variance = variance.detach().clamp(min=math.exp(-8))
    return 0.5 * (num_values * torch.log(2 * math.pi * variance) + error / variance)


def gaussian_kl(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, exp(logvar)) || N(0, I)) in nats, summed over the Z latents of each image: `(B, Z)` twice to `(B,)`
    (Kingma and Welling 2014, appendix B)."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)


def kl_weight_for(kl: torch.Tensor, target: float) -> torch.Tensor:
    """The weight that holds a mean divergence `kl` near its `target`, both in nats: 0 up to the target, and then in
    proportion to the excess, up to 3,000 at twice the target. With a calibrated error, a weight of 1 gives the
    evidence lower bound. A weight of 150 is reached 5% above the target. It is a capacity of the latents (Burgess et
    al. 2018, equation 8), whose penalty grows smoothly."""
    return MOST_KL_WEIGHT * (kl / target - 1).clamp(0, 1)


def active_units(mean: torch.Tensor) -> torch.Tensor:
    """The number of active latents: those whose posterior mean `(B, Z)` has a variance above 0.01 over the images of a
    batch (Burda et al. 2016, section 5.2). A scalar; 0 for a batch of one image."""
    return (mean.float().var(0, correction=min(1, len(mean) - 1)) > 0.01).sum().float()


class AdversarialLoss(NamedTuple):
    """The losses of a discriminator and of a generator, as functions of the logits of real and of fake images: `(B,)`
    twice to `(B,)`. A high logit means that an image looks real."""

    discriminator: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    generator: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


ADVERSARIAL_LOSSES = {
    # each image has to look more real than its partner (Jolicoeur-Martineau 2019; Huang et al. 2024, equation 2)
    "relativistic": AdversarialLoss(
        lambda real, fake: F.softplus(fake.float() - real.float()),
        lambda real, fake: F.softplus(real.float() - fake.float()),
    ),
    # binary cross-entropy; the generator's with exchanged labels (Goodfellow et al. 2014, section 3)
    "non-saturating": AdversarialLoss(
        lambda real, fake: F.softplus(-real.float()) + F.softplus(fake.float()),
        lambda real, fake: F.softplus(-fake.float()),
    ),
    # no gain beyond a margin of 1 (Lim and Ye 2017, equations 11 and 12)
    "hinge": AdversarialLoss(
        lambda real, fake: F.relu(1 - real.float()) + F.relu(1 + fake.float()),
        lambda real, fake: -fake.float(),
    ),
}


def feature_distance(features: list[torch.Tensor], references: list[torch.Tensor]) -> torch.Tensor:
    """Squared difference between the features that a discriminator computes for two images, averaged over the values
    of a layer and summed over layers: lists of `(B, C, H, W)` to `(B,)` (Larsen et al. 2016, equation 8,
    over several layers)."""
    pairs = zip(features, references, strict=True)
    return torch.stack([(a.float() - b.float()).square().flatten(1).mean(1) for a, b in pairs]).sum(0)


def gradient_penalty(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Squared norm of the gradient of each logit with respect to its own image, summed over C*H*W: R1 on real images,
    R2 on fake ones (Mescheder et al. 2018, equation 9). `logits` (B,) must be computed from `images` (B, C, H, W)
    that require gradients. Where a logit also depends on other images of its group, that part of the gradient counts
    for those images."""
    with _full_precision(images):  # a backward pass has the precision of its forward pass already
        (gradient,) = torch.autograd.grad(logits.float().sum(), images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)


def _full_precision(images: torch.Tensor) -> torch.autocast:
    """A context without autocast on the device of `images`. A whole training step runs under autocast."""
    return torch.autocast(images.device.type, enabled=False)
