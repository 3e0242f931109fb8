"""The prior inside a model, how it is fitted, and paths between latents."""

import math

import pytest
import torch
from conftest import tiny_model

from hf_vae import latents
from hf_vae.families import FAMILIES
from hf_vae.models import EncoderOutput, LatentPrior


MEAN = torch.tensor([1.0, -2.0, 0.5])
COVARIANCE = torch.tensor([[4.0, 1.5, 0.0], [1.5, 1.0, 0.2], [0.0, 0.2, 0.25]])


def gaussian_samples(num_samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return MEAN + torch.randn(num_samples, 3, generator=generator) @ torch.linalg.cholesky(COVARIANCE).T


@pytest.fixture
def fitted_prior() -> LatentPrior:
    prior = LatentPrior(3)
    prior.fit(gaussian_samples(20_000))
    return prior


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(7, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_samples_of_a_fitted_prior_follow_the_gaussian_it_was_fitted_on(fitted_prior):
    samples = fitted_prior.sample(20_000, "gaussian", torch.Generator().manual_seed(1))
    torch.testing.assert_close(samples.mean(0), MEAN, atol=0.1, rtol=0)
    torch.testing.assert_close(samples.T.cov(), COVARIANCE, atol=0.2, rtol=0)


def test_directions_are_the_principal_components(fitted_prior):
    directions, stds = fitted_prior.directions, fitted_prior.stds
    torch.testing.assert_close(directions @ directions.T, torch.eye(3))
    assert (stds.diff() <= 0).all()
    torch.testing.assert_close(directions.T @ stds.square().diag() @ directions, gaussian_samples(20_000).T.cov())


def test_explained_variance_sums_to_one_and_falls(fitted_prior):
    shares = fitted_prior.explained_variance
    assert shares.sum().item() == pytest.approx(1)
    expected = torch.linalg.eigvalsh(COVARIANCE).flip(0) / COVARIANCE.trace()
    torch.testing.assert_close(shares, expected, atol=0.02, rtol=0)


def test_a_direction_has_one_sign(fitted_prior):
    other = LatentPrior(3)
    other.set_directions(-fitted_prior.directions, fitted_prior.stds)
    torch.testing.assert_close(other.directions, fitted_prior.directions)


def test_fewer_latents_than_dimensions_can_be_fitted():
    prior = LatentPrior(16)
    prior.fit(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    assert prior.sample(8).isfinite().all()
    assert (prior.stds >= 0).all() and (prior.stds > 1e-3).sum() == 3


@pytest.mark.parametrize("num_latents", [0, 1])
def test_a_prior_needs_two_latents(num_latents):
    with pytest.raises(ValueError, match=f"at least 2 latents.*got {num_latents}"):
        LatentPrior(3).fit(torch.zeros(num_latents, 3))


def test_an_unfitted_prior_is_the_standard_normal():
    prior = LatentPrior(3)
    gaussian, standard = (prior.sample(5, kind, torch.Generator().manual_seed(0)) for kind in ("gaussian", "standard"))
    torch.testing.assert_close(gaussian, standard)


@pytest.mark.parametrize("kind", ["gaussian", "standard"])
def test_temperature_scales_the_distance_from_the_mean(fitted_prior, kind):
    mean = fitted_prior.mean if kind == "gaussian" else torch.zeros(3)
    assert torch.equal(fitted_prior.sample(4, kind, temperature=0), mean.expand(4, 3))
    half, whole = (fitted_prior.sample(4, kind, torch.Generator().manual_seed(0), scale) for scale in (0.5, 1))
    torch.testing.assert_close(half - mean, 0.5 * (whole - mean))


def test_an_unknown_prior_is_refused():
    with pytest.raises(ValueError, match="'uniform'.*gaussian, standard"):
        LatentPrior(3).sample(1, "uniform")


@pytest.mark.parametrize("kind", ["lerp", "slerp"])
def test_a_path_starts_and_ends_where_it_should(kind):
    start, end = gaussian_samples(2)
    points = latents.path(start, end, 5, kind)
    assert points.shape == (5, 3)
    torch.testing.assert_close(points[[0, -1]], torch.stack([start, end]))


@pytest.mark.parametrize("kind", ["lerp", "slerp"])
def test_a_path_is_evenly_spaced(kind):
    points = latents.path(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([-1.0, 1.0, math.sqrt(2)]), 9, kind)
    steps = points.diff(dim=0).norm(dim=1)
    torch.testing.assert_close(steps, steps[:1].expand(8))


def test_slerp_keeps_the_length_and_lerp_does_not():
    start, end = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    torch.testing.assert_close(latents.path(start, end, 7, "slerp").norm(dim=1), torch.full((7,), 3.0))
    assert latents.path(start, end, 3, "lerp")[1].norm() < 2.5


@pytest.mark.parametrize("latent_dim", [1, 2, 128])
@pytest.mark.parametrize("factor", [1, 2, 0, -1, -2])
def test_slerp_on_one_line_stays_on_the_line(factor, latent_dim):
    for seed in range(20):  # rounding decides how close to 0 or 180 degrees the angle comes out
        start = torch.randn(latent_dim, generator=torch.Generator().manual_seed(seed))
        points = latents.path(start, factor * start, 5, "slerp")
        torch.testing.assert_close(points[-1], factor * start)
        assert (points.norm(dim=1) <= 1.01 * max(1, abs(factor)) * start.norm()).all()


def test_impossible_paths_are_refused():
    start, end = gaussian_samples(2)
    with pytest.raises(ValueError, match="at least 2 points; got 1"):
        latents.path(start, end, 1)
    with pytest.raises(ValueError, match="'cubic'.*lerp or slerp"):
        latents.path(start, end, 4, "cubic")


def skip_without_encoder(family: str) -> None:
    if not FAMILIES[family].model.has_encoder:
        pytest.skip("has no encoder")


def test_encoding_in_batches_is_encoding_in_one_go(family, images, monkeypatch):
    skip_without_encoder(family)
    model = tiny_model(family)
    monkeypatch.setattr(latents, "ENCODE_BATCH", 3)
    with torch.no_grad():
        expected = model.encode(images).latents
    torch.testing.assert_close(latents.encode_all(model, images), expected)


def test_a_generator_draws_from_the_posterior(family, images):
    skip_without_encoder(family)
    model = tiny_model(family)
    first, second = (latents.encode_all(model, images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    has_posterior = model.encode(images[:1]).logvar is not None
    assert torch.equal(first, latents.encode_all(model, images)) is not has_posterior


def test_fitting_is_deterministic_and_leaves_the_global_generator_alone(family, images):
    models = [tiny_model(family), tiny_model(family)]
    for number, model in enumerate(models):
        torch.manual_seed(number)
        before = torch.get_rng_state()
        latents.fit_prior(model, [images])
        assert torch.equal(torch.get_rng_state(), before)
    first, second = (model.latent_prior.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_fitted_model_has_orthonormal_directions_and_keeps_its_weights(family, images):
    model, untouched = tiny_model(family), tiny_model(family)
    latents.fit_prior(model, [images])
    directions = model.latent_prior.directions
    torch.testing.assert_close(directions @ directions.T, torch.eye(len(directions)), atol=1e-5, rtol=0)
    for name, value in untouched.state_dict().items():
        assert name.startswith("latent_prior.") or torch.equal(value, model.state_dict()[name])


def test_a_prior_is_fitted_on_pictures_and_their_mirror_images(family, images):
    skip_without_encoder(family)
    priors = []
    for views in (images, images.flip(3)):
        model = tiny_model(family)
        encode = model.encode
        model.encode = lambda batch, encode=encode: EncoderOutput(encode(batch).latents)  # no noise
        latents.fit_prior(model, [views])
        priors.append(model.latent_prior)
    torch.testing.assert_close(priors[0].mean, priors[1].mean)
    torch.testing.assert_close(priors[0].stds, priors[1].stds)


def test_a_prior_is_fitted_on_draws_of_the_posterior(family, images):
    skip_without_encoder(family)
    model = tiny_model(family)
    if model.encode(images).logvar is None:
        pytest.skip("has no posterior")
    latents.fit_prior(model, [images])
    spread_of_means = latents.encode_all(model, images).var(0).sum()
    assert (
        model.latent_prior.stds.square().sum()
        > spread_of_means + 0.5 * model.encode(images).logvar.exp().mean(0).sum()
    )


def test_without_an_encoder_the_prior_stays_standard_and_directions_fall_in_effect(family, images):
    model = tiny_model(family)
    if model.has_encoder:
        pytest.skip("has an encoder")
    latents.fit_prior(model, [images])
    prior = model.latent_prior
    assert torch.equal(prior.mean, torch.zeros(8)) and torch.equal(prior.stds, torch.ones(8))
    effects = (model.decoder.head.weight @ prior.directions.T).norm(dim=0)
    assert (effects.diff() <= 1e-5).all()
