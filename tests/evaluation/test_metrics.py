"""Measures of images: what they rank, and what they equal where that is known."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import draw_picture

from hf_vae.evaluation import metrics
from hf_vae.pictures import picture_to_uint8, to_float


SHARPNESS = [metrics.laplacian_variance, metrics.high_frequency_energy]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return to_float(torch.stack([picture_to_uint8(draw_picture(number)) for number in range(4)]))


def noisy(images: torch.Tensor, amount: float = 0.1) -> torch.Tensor:
    return images + amount * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def waves(row_cycles: int, column_cycles: int, amplitude: float = 0.5) -> torch.Tensor:
    """A greyscale image `(1, 1, 32, 32)` of one plane wave with so many cycles along its rows and columns."""
    positions = torch.arange(32) / 32
    phase = row_cycles * positions[:, None] + column_cycles * positions[None, :]
    return amplitude * torch.sin(2 * math.pi * phase)[None, None]


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_blur_lowers_sharpness_and_noise_raises_it(sharpness, images):
    values = sharpness(images)
    assert values.shape == (len(images),)
    assert (sharpness(F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)) < values).all()
    assert (sharpness(noisy(images)) > values).all()


def test_structure_is_blind_to_brightness_and_nearly_to_light_and_colour_but_not_to_shape(images):
    images = 0.5 * images
    assert metrics.structure(images).shape == (len(images), 48, 48)
    moved = metrics.structure_change(images, images.roll(4, 3))
    assert metrics.structure_change(images, images).tolist() == [0] * len(images)
    assert metrics.structure_change(images, images + 0.2).tolist() == pytest.approx([0] * len(images), abs=1e-6)
    light = torch.linspace(-0.3, 0.3, 48)
    warmth = torch.tensor([0.2, 0.0, -0.2])[:, None, None]
    for cast in (light, warmth):
        assert (metrics.structure_change(images, images + cast) < 0.15 * moved).all()
    assert metrics.structure(torch.full((1, 1, 32, 32), 0.3)).abs().max() < 1e-3


@pytest.mark.parametrize("sharpness", SHARPNESS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_plain_image_has_no_sharpness(sharpness, channels):
    assert sharpness(torch.full((2, channels, 32, 32), 0.3)).tolist() == pytest.approx([0, 0], abs=1e-3)


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_sharpness_of_grey_is_the_same_in_one_channel_and_three(sharpness):
    grey = noisy(torch.zeros(2, 1, 32, 32))
    torch.testing.assert_close(sharpness(grey), sharpness(grey.expand(-1, 3, -1, -1)))


def test_laplacian_variance_of_a_point_is_that_of_the_kernel():
    images = torch.zeros(1, 1, 5, 5)
    images[0, 0, 2, 2] = 1
    squares = 4 * 1 + 4**2  # of four neighbours and the middle, of nine values around 0
    assert metrics.laplacian_variance(images).item() == pytest.approx(squares / 8 * 127.5**2)


@pytest.mark.parametrize("cycles", [(0, 12), (12, 0), (6, 6), (-7, 7)])
def test_high_frequency_energy_of_a_fine_wave_is_its_variance(cycles):
    variance = (0.5 * 127.5) ** 2 / 2
    assert metrics.high_frequency_energy(waves(*cycles)).item() == pytest.approx(variance, rel=1e-4)


@pytest.mark.parametrize("cycles", [(0, 4), (7, 0), (5, 5), (0, 8), (8, 0)])  # half the Nyquist frequency is 8
def test_high_frequency_energy_of_a_coarse_wave_is_nothing(cycles):
    assert metrics.high_frequency_energy(waves(*cycles)).item() == pytest.approx(0, abs=1e-3)


def test_mse_and_psnr_of_known_errors():
    references = torch.full((3, 3, 16, 16), -0.25)
    errors = torch.tensor([0.2, 2.0, 0.0]).view(3, 1, 1, 1)
    assert metrics.mse(references + errors, references).tolist() == pytest.approx([0.04, 4, 0])
    assert metrics.psnr(references + errors, references).tolist() == pytest.approx([20, 0, 100], abs=1e-4)


def test_ssim_is_one_for_equals_and_falls_with_noise(images):
    assert metrics.ssim(images, images).tolist() == pytest.approx([1] * len(images), abs=1e-4)
    little, more = metrics.ssim(noisy(images, 0.05), images), metrics.ssim(noisy(images, 0.3), images)
    assert (more < little).all() and (little < 1).all()
    torch.testing.assert_close(metrics.ssim(noisy(images), images)[:1], metrics.ssim(noisy(images)[:1], images[:1]))


def test_ssim_of_plain_images_is_that_of_their_means():
    one, other = 0.02, 0.05
    constant = (0.01 * 2) ** 2  # Wang et al. 2004, for values in [-1, 1]
    images, references = torch.full((1, 3, 16, 16), one), torch.full((1, 3, 16, 16), other)
    expected = (2 * one * other + constant) / (one**2 + other**2 + constant)
    assert metrics.ssim(images, references).item() == pytest.approx(expected, rel=1e-3)


def test_luma_is_what_pillow_calls_grey(images):
    expected = torch.stack([picture_to_uint8(draw_picture(number).convert("L"))[0] for number in range(4)])
    assert (metrics.luma(images) - expected).abs().max() <= 1


@pytest.mark.parametrize(("channel", "weight"), [(0, 0.299), (1, 0.587), (2, 0.114)])
def test_luma_weights_the_colors(channel, weight):
    images = torch.full((1, 3, 1, 2), -1.0)
    images[:, channel] = 1
    assert metrics.luma(images).unique().item() == pytest.approx(weight * 255)


def test_luma_of_greyscale_is_its_values():
    assert metrics.luma(torch.tensor([-1.0, 0, 1]).view(1, 1, 1, 3)).flatten().tolist() == [0, 127.5, 255]


def test_median_distance_of_a_repeated_image_is_zero(images):
    assert metrics.median_distance(images[:1].repeat(5, 1, 1, 1)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("size", [28, 32, 64])
def test_median_distance_of_two_plain_images_is_their_difference(size):
    values = torch.tensor([-1.0, 0.5]).view(2, 1, 1, 1)
    assert metrics.median_distance(values.expand(2, 3, size, size)) == pytest.approx(1.5 * 127.5, rel=1e-4)


@pytest.mark.parametrize(("values", "expected"), [([-1, -0.5, 1], 1.5), ([0, 0, 0, 0, 1], 0)])
def test_median_distance_is_that_of_the_middle_pair(values, expected):
    images = torch.tensor(values, dtype=torch.float).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    assert metrics.median_distance(images) == pytest.approx(expected * 127.5, rel=1e-4)


@pytest.mark.parametrize("measure", [metrics.median_distance, metrics.nearest_distance])
def test_a_distance_needs_two_images(measure, images):
    with pytest.raises(ValueError, match="at least 2 images in each set; got 1"):
        measure(images[:1])


def test_the_nearest_distance_notices_motifs_drawn_twice(images):
    motifs = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 3, 16, 16)
    assert metrics.nearest_distance(motifs) == pytest.approx(0.5 * 127.5, rel=1e-4)
    twice = motifs.repeat(2, 1, 1, 1)
    assert metrics.nearest_distance(twice) == 0
    assert metrics.median_distance(twice) > 0.5 * metrics.median_distance(motifs)


def test_the_power_spectrum_puts_a_wave_into_its_band_and_a_checkerboard_into_the_finest():
    columns = torch.arange(64)
    for cycles, band in ((2, 0), (14, 3), (32, 7)):
        wave = 0.5 * torch.cos(2 * math.pi * cycles * columns / 64).expand(1, 1, 64, 64)
        power = metrics.radial_power_spectrum(wave)[0]
        assert power.argmax() == band and power[band] > 100 * power.sum().sub(power[band])
    flat = metrics.radial_power_spectrum(torch.full((2, 3, 64, 64), 0.3))
    assert flat.shape == (2, 8) and flat.max() < 1e-4


def test_thumbnails_are_16x16_averages_on_the_scale_of_bytes():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = 127.5 * images.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)).flatten(1)
    torch.testing.assert_close(metrics.thumbnails(images), expected)


@pytest.mark.parametrize("size", [(64, 64), (32, 64)])
def test_the_power_of_a_wave_is_spread_over_the_frequencies_of_its_band(size):
    wave = 0.5 * torch.cos(2 * math.pi * 14 * torch.arange(size[1]) / size[1]).expand(1, 1, *size)
    rows, columns = (torch.fft.fftfreq(edge) for edge in size)
    frequency = torch.hypot(rows[:, None], columns[None, :]) * 16  # in bands
    count = ((frequency > 3) & (frequency <= 4)).sum().item()
    expected = 2 * (0.5 * 127.5 / 2) ** 2 / count  # two of them have half the amplitude each
    assert metrics.radial_power_spectrum(wave)[0, 3].item() == pytest.approx(expected, rel=1e-4)


def test_copies_of_training_pictures_are_near_them_also_when_mirrored(images):
    training, others = images[:3], images[3:]
    seen = torch.cat([metrics.thumbnails(training), metrics.thumbnails(training.flip(3))])
    assert metrics.nearest_reference_distance(training[:3].flip(3), seen) == pytest.approx(0, abs=1e-4)
    assert metrics.nearest_reference_distance(others, seen) > 1
