"""Measures of images `(B, C, H, W)` in [-1, 1], one value per image `(B,)`, and distances between sets.

Sharpness is measured on tensors, at the image size of the network, because resizing changes it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F


LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV and Pillow turn colour into grey
THUMBNAIL_SIZE = 16
NUM_BANDS = 8
STRUCTURE_FLOOR = 8  # grey levels


def mse(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the values of each image in [-1, 1]. It is four times the error on [0, 1]."""
    return (images.float() - references.float()).square().flatten(1).mean(1)


def psnr(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB, `10 log10(2^2 / mse)`, at most 100 (equal images)."""
    return (10 * torch.log10(4 / mse(images, references))).clamp(max=100)


def ssim(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 pixels, from torchmetrics."""
    # imported here: sharpness can be measured without torchmetrics
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(
        images.float(), references.float(), data_range=(-1, 1), reduction="none"
    )
    return cast(torch.Tensor, found)  # a pair only if the image of all windows is asked for


def luma(images: torch.Tensor) -> torch.Tensor:
    """Brightness `(B, H, W)` in [0, 255]: BT.601 weights for colour, the values themselves for greyscale."""
    values = (images.float() + 1) * 127.5
    if images.shape[1] == 1:
        return values[:, 0]
    return torch.einsum("bchw,c->bhw", values, torch.tensor(LUMA_WEIGHTS, device=images.device))


def laplacian_variance(images: torch.Tensor) -> torch.Tensor:
    """Variance over the inner pixels of the 3x3 Laplacian of `luma` (Pech-Pacheco et al. 2000). Higher is sharper, or
    noisier: noise and a checkerboard count as sharpness too."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=images.device)
    return F.conv2d(luma(images)[:, None], kernel[None, None]).flatten(1).var(1)


def structure(images: torch.Tensor) -> torch.Tensor:
    """Where edges and shapes are, without light and colour casts: `luma` minus its mean, over its standard deviation
    plus 8 grey levels, both in a square window with an eighth of the image's edge: `(B, H, W)`. The 8 grey levels keep
    even areas from becoming noise."""
    grey = luma(images)[:, None]
    reach = max(1, grey.shape[-1] // 16)

    def window_mean(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(F.pad(values, (reach,) * 4, mode="reflect"), 2 * reach + 1, stride=1)

    centred = grey - window_mean(grey)
    variance = window_mean(grey.square()) - window_mean(grey).square()
    return (centred / (variance.clamp(min=0).sqrt() + STRUCTURE_FLOOR))[:, 0]


def structure_change(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Mean squared difference between the `structure` of images and that of as many others."""
    return (structure(images) - structure(others)).square().flatten(1).mean(1)


def high_frequency_energy(images: torch.Tensor) -> torch.Tensor:
    """The part of the variance of `luma` above half the Nyquist frequency, 0.25 cycles per pixel in any direction
    (Parseval: squared Fourier amplitudes over (H W)^2)."""
    grey = luma(images)
    height, width = grey.shape[1:]
    amplitudes = torch.fft.fft2(grey)
    rows = torch.fft.fftfreq(height, device=images.device)[:, None]
    columns = torch.fft.fftfreq(width, device=images.device)[None, :]
    is_high = torch.hypot(rows, columns) > 0.25  # (H, W)
    return (amplitudes.abs().square() * is_high).sum((1, 2)) / (height * width) ** 2


def radial_power_spectrum(images: torch.Tensor) -> torch.Tensor:
    """The power of `luma` in 8 bands of spatial frequency, averaged over the frequencies of each band: `(B, 8)`, from
    coarse to fine. The bands reach from 0 (without the mean) to the Nyquist frequency, half a cycle per pixel in any
    direction. Unlike a single number, they tell detail from a checkerboard, which is in one band."""
    grey = luma(images)
    height, width = grey.shape[1:]
    power = torch.fft.fft2(grey).abs().square() / (height * width) ** 2  # (B, H, W)
    rows = torch.fft.fftfreq(height, device=images.device)[:, None]
    columns = torch.fft.fftfreq(width, device=images.device)[None, :]
    frequency = torch.hypot(rows, columns)
    band = (frequency * 2 * NUM_BANDS).ceil().long() - 1  # -1 for the mean
    return torch.stack([power[:, band == number].mean(1) for number in range(NUM_BANDS)], dim=1)


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    """16x16 area averages of images `(B, C, H, W)`, on the scale of [0, 255] but for an offset: `(B, C*16*16)`."""
    return F.adaptive_avg_pool2d(images.float() * 127.5, THUMBNAIL_SIZE).flatten(1)


def median_distance(images: torch.Tensor) -> float:
    """The variety of a set `(B, C, H, W)`: the median, over all pairs, of the root mean squared difference between
    16x16 thumbnails (area averages), on the scale of [0, 255].

    Raises:
        ValueError: If there are fewer than two images.
    """
    _refuse_few(images)
    pairs = torch.ones(len(images), len(images), dtype=torch.bool, device=images.device).triu(1)
    return _differences(thumbnails(images), thumbnails(images))[pairs].median().item()


def nearest_distance(images: torch.Tensor) -> float:
    """The repetition in a set `(B, C, H, W)`: the same difference from each image to the nearest other one, as the
    median over images. Unlike `median_distance`, it notices a few motifs that occur many times.

    Raises:
        ValueError: If there are fewer than two images.
    """
    _refuse_few(images)
    differences = _differences(thumbnails(images), thumbnails(images))
    return differences.fill_diagonal_(math.inf).min(1).values.median().item()


def nearest_reference_distance(images: torch.Tensor, references: torch.Tensor) -> float:
    """The distance from images `(B, C, H, W)` to references, given as `thumbnails` (N, ...): the same difference from
    each image to the nearest reference, as the median over images. Samples that are nearer to the training images than
    held-out images are were memorised."""
    nearest = [_differences(some, references).min(1).values for some in thumbnails(images).split(64)]
    return torch.cat(nearest).median().item()


def _differences(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Root mean squared differences `(B, N)` between thumbnails."""
    # the faster way, through a matrix product, does not give 0 for equal images
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(first, second, compute_mode=exact) / math.sqrt(first.shape[1])


def frechet_distance(features: torch.Tensor, references: torch.Tensor) -> float:
    """Squared 2-Wasserstein distance between Gaussians fitted to two sets of features, `(N, F)` and `(M, F)`:
    `|mean - mean'|^2 + tr(C + C' - 2 (C C')^(1/2))` (Frechet distance, as in Heusel et al. 2017, equation 6). It
    falls as the sets grow, so only values of equally many images compare."""
    _refuse_few(features, references)
    centred = [(points - points.mean(0)) / math.sqrt(len(points) - 1) for points in (features, references)]
    # With C = A' A and C' = B' B the root's trace is the sum of the singular values of A B'. Triangular factors have
    # the same, and are small where there are few images or few features.
    first, second = (torch.linalg.qr(points, mode="r").R for points in centred)
    cross = torch.linalg.svdvals(first @ second.T).sum()
    means = (features.mean(0) - references.mean(0)).square().sum()
    return max(0.0, (means + first.square().sum() + second.square().sum() - 2 * cross).item())


def kernel_distance(features: torch.Tensor, references: torch.Tensor) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel `(x y / F + 1)^3` (as KID, Binkowski et al. 2018,
    section 4). It does not depend on how many images there are, and may be slightly negative."""
    _refuse_few(features, references)
    width = features.shape[1]
    within, among, across = (
        (a @ b.T / width + 1) ** 3 for a, b in ((features, features), (references, references), (features, references))
    )
    count, total = len(features), len(references)
    own = (within.sum() - within.trace()) / (count * (count - 1))
    other = (among.sum() - among.trace()) / (total * (total - 1))
    return (own + other - 2 * across.mean()).item()


def precision(features: torch.Tensor, references: torch.Tensor, neighbours: int = 3) -> float:
    """The share of features `(N, F)` that lie within reach of one of the references `(M, F)`: how many samples look
    real. The reach of a reference is the distance to its 3rd nearest neighbour among the references (Kynkaanniemi
    et al. 2019).

    Raises:
        ValueError: If a set has fewer than two.
    """
    _refuse_few(features, references)
    distances = torch.cdist(references, references)  # (M, M), 0 to itself
    reach = distances.kthvalue(min(neighbours + 1, len(references)), dim=1).values  # (M,)
    return (torch.cdist(features, references) <= reach).any(1).double().mean().item()


def recall(features: torch.Tensor, references: torch.Tensor, neighbours: int = 3) -> float:
    """The share of references that lie within reach of a feature: how much of what is real is sampled. It is
    `precision` with the sets exchanged.

    Raises:
        ValueError: If a set has fewer than two.
    """
    return precision(references, features, neighbours)


def _refuse_few(*groups: torch.Tensor) -> None:
    if any(len(group) < 2 for group in groups):
        counts = " and ".join(str(len(group)) for group in groups)
        raise ValueError(f"A distance needs at least 2 images in each set; got {counts}.")


@dataclass(frozen=True)
class Metric:
    """A measure, and what cards and tables call it.

    Args:
        measure: The function.
        title: Its name in a table.
        unit: What stands behind the title: a unit, or the scale of the values.
    """

    measure: Callable[..., Any]
    title: str
    unit: str | None = None


# A line here is all that a metric needs beside its function: `evaluate` measures it, and cards and tables show it.
LIKENESS = {  # of reconstructions to the images that they were made from: (B, C, H, W) and the same to (B,)
    "mse": Metric(mse, "MSE", "images in [-1, 1]"),
    "psnr": Metric(psnr, "PSNR", "dB"),
    "ssim": Metric(ssim, "SSIM"),
}
SHARPNESS = {  # of images: (B, C, H, W) to (B,)
    "laplacian_variance": Metric(laplacian_variance, "Variance of the Laplacian"),
    "high_frequency_energy": Metric(high_frequency_energy, "High-frequency energy"),
}
VARIETY = {  # of a set: (B, C, H, W) to a number
    "median_distance": Metric(median_distance, "Median distance between samples"),
    "nearest_distance": Metric(nearest_distance, "Median distance of a sample to the nearest other one"),
}
DISTANCES = {  # of two sets of features, (N, F) and (M, F), to a number
    "frechet": Metric(frechet_distance, "Frechet distance"),
    "kernel": Metric(kernel_distance, "Kernel distance"),
    "precision": Metric(precision, "Precision"),
    "recall": Metric(recall, "Recall"),
}
