"""Measures of images `(B, C, H, W)` in [-1, 1], one value per image `(B,)`. Sharpness is measured at the size that the
network works at, on tensors, because any resizing changes it."""

import math

import torch
import torch.nn.functional as F


LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV and Pillow turn colour into grey
THUMBNAIL_SIZE = 16
NUM_BANDS = 8


def mse(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the values of each image, on the scale of [-1, 1]: four times that on [0, 1]."""
    return (images.float() - references.float()).square().flatten(1).mean(1)


def psnr(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB, `10 log10(2^2 / mse)`; at most 100, which stands for equal images."""
    return (10 * torch.log10(4 / mse(images, references))).clamp(max=100)


def ssim(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 pixels, from torchmetrics."""
    # here, not above: the Space measures sharpness without torchmetrics being installed
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(
        images.float(), references.float(), data_range=(-1, 1), reduction="none"
    )


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


def high_frequency_energy(images: torch.Tensor) -> torch.Tensor:
    """The part of the variance of `luma` that lies above half the Nyquist frequency, 0.25 cycles a pixel in any
    direction (Parseval: squared Fourier amplitudes over (H W)^2)."""
    grey = luma(images)
    height, width = grey.shape[1:]
    amplitudes = torch.fft.fft2(grey)
    rows = torch.fft.fftfreq(height, device=images.device)[:, None]
    columns = torch.fft.fftfreq(width, device=images.device)[None, :]
    is_high = torch.hypot(rows, columns) > 0.25  # (H, W)
    return (amplitudes.abs().square() * is_high).sum((1, 2)) / (height * width) ** 2


def radial_power_spectrum(images: torch.Tensor) -> torch.Tensor:
    """The power of `luma` in 8 bands of spatial frequency, from 0 (the mean itself left out) to the Nyquist frequency
    of half a cycle a pixel in any direction, averaged over the frequencies of a band: `(B, 8)`, from coarse to fine.
    Unlike a single number, it tells a checkerboard, which is in one band, from detail."""
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
    """How varied a set `(B, C, H, W)` is: the median, over all pairs, of the root mean squared difference between
    16x16 thumbnails (area averages), on the scale of [0, 255].

    Raises:
        ValueError: If there are fewer than two images.
    """
    _refuse_few(images)
    pairs = torch.ones(len(images), len(images), dtype=torch.bool, device=images.device).triu(1)
    return _differences(thumbnails(images), thumbnails(images))[pairs].median().item()


def nearest_distance(images: torch.Tensor) -> float:
    """How much a set `(B, C, H, W)` repeats itself: the same difference from each image to the nearest other one, the
    median over images. It notices a few motifs drawn over and over, which `median_distance` does not.

    Raises:
        ValueError: If there are fewer than two images.
    """
    _refuse_few(images)
    differences = _differences(thumbnails(images), thumbnails(images))
    return differences.fill_diagonal_(math.inf).min(1).values.median().item()


def nearest_reference_distance(images: torch.Tensor, references: torch.Tensor) -> float:
    """How near images `(B, C, H, W)` come to others, given as `thumbnails` (N, ...): the same difference from each
    image to the nearest of them, the median over images. Samples that lie nearer to the training set than held-out
    pictures do were memorised."""
    nearest = [_differences(some, references).min(1).values for some in thumbnails(images).split(64)]
    return torch.cat(nearest).median().item()


def _differences(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Root mean squared differences `(B, N)` between thumbnails."""
    # not the faster way through a matrix product, which does not give 0 for equal images
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(first, second, compute_mode=exact) / math.sqrt(first.shape[1])


def _refuse_few(images: torch.Tensor) -> None:
    if len(images) < 2:
        raise ValueError(f"A distance needs at least 2 images; got {len(images)}.")
