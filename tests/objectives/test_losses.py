"""Losses against their closed forms: one value per image."""

import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import Normal, kl_divergence
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from hf_vae.objectives import losses


RELATIVISTIC = losses.ADVERSARIAL_LOSSES["relativistic"]


def random_images(seed: int, num_images: int = 4) -> torch.Tensor:
    return torch.rand(num_images, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_squared_error_sums_over_an_image():
    images = torch.zeros(2, 3, 8, 8)
    reconstructions = torch.stack([torch.full((3, 8, 8), 0.5), torch.zeros(3, 8, 8)])
    assert losses.squared_error(reconstructions, images).tolist() == [0.25 * 3 * 8 * 8, 0]


def test_calibrated_nll_is_the_likelihood_under_the_variance_of_the_batch():
    images, reconstructions = random_images(0), random_images(1)
    std = (images - reconstructions).square().mean().sqrt()
    expected = -Normal(reconstructions, std).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(losses.calibrated_nll(reconstructions, images), expected)


def test_calibrated_nll_has_the_gradient_of_the_log_of_the_error():
    images = random_images(0)
    ours, theirs = random_images(1).requires_grad_(), random_images(1).requires_grad_()
    losses.calibrated_nll(ours, images).mean().backward()
    (images[0].numel() / 2 * (theirs - images).square().mean().log()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_calibrated_nll_of_one_image_is_that_of_its_own_variance():
    images, reconstructions = random_images(0, 1), random_images(1, 1)
    std = (images - reconstructions).square().mean().sqrt()
    expected = -Normal(reconstructions, std).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(losses.calibrated_nll(reconstructions, images), expected)


def test_calibrated_nll_of_a_perfect_reconstruction_is_finite():
    images = random_images(0)
    expected = images[0].numel() / 2 * (math.log(2 * math.pi) - 8)  # the floor of the variance
    torch.testing.assert_close(losses.calibrated_nll(images, images), torch.full((4,), expected))


def test_what_is_added_to_the_error_of_calibrated_nll_counts_as_squared_error():
    images, reconstructions = random_images(0), random_images(1)
    errors = (images - reconstructions).square().flatten(1).mean(1)
    added = torch.linspace(0.1, 0.4, len(images))
    variance = (errors + added).mean()
    expected = images[0].numel() / 2 * (torch.log(2 * math.pi * variance) + (errors + added) / variance)
    found = losses.calibrated_nll(reconstructions, images, variance, added)
    torch.testing.assert_close(found, expected)


def test_gaussian_kl_is_zero_at_the_standard_normal():
    assert losses.gaussian_kl(torch.zeros(3, 5), torch.zeros(3, 5)).tolist() == [0, 0, 0]


def test_gaussian_kl_agrees_with_torch_distributions():
    mean, logvar = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Normal(mean, torch.exp(0.5 * logvar)), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(losses.gaussian_kl(mean, logvar), expected)


def test_a_kl_below_its_target_has_no_weight_and_one_above_has_more_the_higher_it_is():
    weights = [losses.kl_weight_for(torch.tensor(kl), 250.0).item() for kl in (0.0, 250.0, 275.0, 300.0, 500.0, 9e9)]
    assert weights == pytest.approx([0, 0, 300, 600, 3000, 3000], rel=1e-4)


def test_relativistic_is_low_where_an_image_looks_more_real_than_its_partner():
    loss = RELATIVISTIC.discriminator(torch.tensor([2.0, 30.0, -30.0]), torch.tensor([2.0, 0.0, 0.0]))
    torch.testing.assert_close(loss, torch.tensor([math.log(2), 0.0, 30.0]))


def test_relativistic_knows_only_the_difference():
    logits, partners = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        RELATIVISTIC.generator(logits + 5, partners + 5), RELATIVISTIC.generator(logits, partners)
    )


def test_non_saturating_is_binary_cross_entropy_with_the_labels_exchanged_for_the_generator():
    loss = losses.ADVERSARIAL_LOSSES["non-saturating"]
    real, fake = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    expected = -real.sigmoid().log() - (1 - fake.sigmoid()).log()
    torch.testing.assert_close(loss.discriminator(real, fake), expected)
    torch.testing.assert_close(loss.generator(real, fake), -fake.sigmoid().log())


def test_hinge_gains_nothing_beyond_the_margin():
    loss = losses.ADVERSARIAL_LOSSES["hinge"]
    real, fake = torch.tensor([1.5, 0.25, 1.0]), torch.tensor([-1.5, 0.5, -0.25])
    assert loss.discriminator(real, fake).tolist() == [0, 0.75 + 1.5, 0.75]
    assert loss.generator(real, fake).tolist() == [1.5, -0.5, 0.25]


def test_feature_distance_sums_the_mean_squares_of_the_layers():
    shapes = [(2, 3, 4, 4), (2, 5, 2, 2)]
    features = [torch.full(shape, 0.5) for shape in shapes]
    references = [torch.full(shape, -1.0) for shape in shapes]
    references[1][0] = 0.5
    assert losses.feature_distance(features, references).tolist() == [1.5**2, 2 * 1.5**2]
    with pytest.raises(ValueError, match="zip"):
        losses.feature_distance(features, references[:1])


def test_gradient_penalty_of_a_quadratic():
    images = random_images(0).requires_grad_()
    penalty = losses.gradient_penalty(images.square().flatten(1).sum(1), images)  # gradient 2x
    torch.testing.assert_close(penalty, 4 * images.detach().square().flatten(1).sum(1))


def test_gradient_penalty_trains_the_discriminator():
    images = random_images(0).requires_grad_()
    weight = torch.tensor(3.0, requires_grad=True)
    losses.gradient_penalty(weight * images.flatten(1).sum(1), images).mean().backward()
    assert weight.grad == pytest.approx(2 * 3.0 * images[0].numel())  # of weight**2 * D


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_are_summed_in_full_precision(dtype):
    images, latents, logits = (
        torch.ones(2, 3, 64, 64, dtype=dtype),
        torch.ones(2, 4, dtype=dtype),
        torch.ones(2, dtype=dtype),
    )
    for loss in (
        losses.squared_error(-4 * images, 4 * images),  # 786,432: more than float16 can hold
        losses.calibrated_nll(-images, images),
        losses.gaussian_kl(latents, latents),
        *(function(logits, logits) for pair in losses.ADVERSARIAL_LOSSES.values() for function in pair),
    ):
        assert loss.dtype == torch.float32 and loss.shape == (2,) and loss.isfinite().all()


def test_absolute_error_sums_over_an_image():
    images = torch.full((2, 3, 8, 8), 0.25)
    reconstructions = torch.stack([torch.full((3, 8, 8), -0.25), torch.full((3, 8, 8), 0.25)])
    assert losses.absolute_error(reconstructions, images).tolist() == [0.5 * 3 * 8 * 8, 0]


def test_binary_cross_entropy_is_that_of_values_between_0_and_1():
    images, reconstructions = random_images(0), random_images(1) * 0.9
    p, q = (images + 1) / 2, (reconstructions + 1) / 2
    expected = -(p * q.log() + (1 - p) * (1 - q).log()).flatten(1).sum(1)
    torch.testing.assert_close(losses.binary_cross_entropy(reconstructions, images), expected)


def test_binary_cross_entropy_is_that_of_pytorch():
    images, reconstructions = random_images(0), (random_images(1) * 1.5).clamp(-1 + 1e-4, 1 - 1e-4)
    expected = nn.functional.binary_cross_entropy((reconstructions + 1) / 2, (images + 1) / 2, reduction="none")
    torch.testing.assert_close(losses.binary_cross_entropy(reconstructions, images), expected.flatten(1).sum(1))


@pytest.mark.parametrize("beyond", [-1.5, 1.5])
def test_binary_cross_entropy_outside_is_that_of_the_edge_and_the_distance_to_it(beyond):
    edge = 1e-4 / 2  # of the values between 0 and 1
    found = losses.binary_cross_entropy(torch.full((1, 1, 2, 2), beyond), torch.zeros(1, 1, 2, 2))
    expected = 4 * (-0.5 * math.log(edge) - 0.5 * math.log(1 - edge) + 0.5 + 1e-4)
    assert found.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [28, 64, 180])
def test_structural_dissimilarity_is_nothing_for_equal_images_and_grows_with_noise(size):
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    none, little, much = (
        losses.structural_dissimilarity(images + scale * noise, images) / images[0].numel() for scale in (0, 0.1, 0.5)
    )
    assert (none.abs() < 1e-5).all() and (none < little).all() and (little < much).all() and (much < 1).all()


@pytest.mark.parametrize(("size", "scales"), [(16, 1), (28, 2), (44, 3), (64, 3), (180, 5)])
def test_structural_dissimilarity_has_the_published_weights_of_the_scales_that_fit(size, scales):
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reconstructions = 0.5 * images
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)[:scales]
    similarity = multiscale_structural_similarity_index_measure(
        reconstructions,
        images,
        data_range=2.0,
        betas=tuple(weight / sum(weights) for weight in weights),
        reduction="none",
        normalize="relu",
    )
    found = losses.structural_dissimilarity(reconstructions, images)
    torch.testing.assert_close(found, (1 - similarity) * 3 * size * size)
    torch.testing.assert_close(losses.structural_dissimilarity(reconstructions[:1], images[:1]), found[:1])


@pytest.mark.parametrize("name", ["mse", "l1", "bce"])
def test_a_reconstruction_that_overshoots_is_pulled_back(name):
    images = torch.full((1, 3, 8, 8), 0.9)
    reconstructions = torch.full((1, 3, 8, 8), 1.5, requires_grad=True)
    losses.RECONSTRUCTION_LOSSES[name](reconstructions, images).sum().backward()
    assert (reconstructions.grad > 0).all()


def test_active_units_are_the_latents_that_differ_between_images():
    mean = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    mean[:, 1:3] = 0.7
    assert losses.active_units(mean) == 3
    assert losses.active_units(mean[:1]) == 0


@pytest.mark.parametrize(("images", "least"), [(2, 2**0.5 * 0.1), (4, 0.2)])
def test_active_units_vary_by_more_than_a_hundredth(images, least):
    mean = torch.zeros(images, 2)
    mean[0] = torch.tensor([0.95, 1.05]) * least  # where the unbiased variance is 0.01
    assert losses.active_units(mean) == 1


@pytest.fixture
def autocast_on_a_gpu():
    """What accelerate turns on for bf16 on a GPU, with tensors that have no values, so that none is needed."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    with FakeTensorMode():
        yield
    torch.set_autocast_enabled("cuda", False)


@pytest.mark.parametrize("name", ["mse", "l1", "bce"])
def test_reconstruction_losses_can_be_computed_under_autocast_on_a_gpu(name, autocast_on_a_gpu):
    images = torch.zeros(2, 3, 28, 28, device="cuda")
    with pytest.raises(RuntimeError, match="unsafe to autocast"):  # so this fixture is no empty one
        nn.functional.binary_cross_entropy(images, images)
    loss = losses.RECONSTRUCTION_LOSSES[name](images.bfloat16(), images)
    assert loss.dtype == torch.float32 and loss.shape == (2,)


@pytest.mark.parametrize("name", losses.RECONSTRUCTION_LOSSES)
def test_reconstruction_losses_are_the_same_under_autocast(name):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reconstructions = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))).clamp(-1)
    expected = losses.RECONSTRUCTION_LOSSES[name](reconstructions, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(losses.RECONSTRUCTION_LOSSES[name](reconstructions, images), expected)


def test_a_gradient_penalty_is_the_same_inside_and_outside_of_autocast():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 1))
    images = random_images(0).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images).squeeze(1)
        inside = losses.gradient_penalty(logits, images)
    outside = losses.gradient_penalty(logits, images)
    assert torch.equal(inside, outside)
    weight = network[0].weight
    gradients = [torch.autograd.grad(found.sum(), weight, retain_graph=True)[0] for found in (inside, outside)]
    assert torch.equal(*gradients) and gradients[0].abs().max() > 0
