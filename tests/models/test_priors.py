"""The prior inside a model, and how it is fitted."""

import copy
import json

import pytest
import torch
from conftest import skip_without_encoder, tiny_model
from sklearn.mixture import GaussianMixture

from hf_vae import VAE
from hf_vae.families import FAMILIES
from hf_vae.latents.encoding import encode_all
from hf_vae.latents.fit_prior import fit_components, fit_for_preview, fit_prior, learns_prior
from hf_vae.models import EncoderOutput, LatentPrior
from hf_vae.models.principal_components import principal_components
from hf_vae.models.priors import PRIORS
from hf_vae.models.priors import flow as flow_module
from hf_vae.models.priors.base import Learning
from hf_vae.models.priors.flow import FlowPrior
from hf_vae.models.priors.mixture import fit_mixture, log_likelihoods


MEAN = torch.tensor([1.0, -2.0, 0.5])
COVARIANCE = torch.tensor([[4.0, 1.5, 0.0], [1.5, 1.0, 0.2], [0.0, 0.2, 0.25]])


def gaussian_samples(num_samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return MEAN + torch.randn(num_samples, 3, generator=generator) @ torch.linalg.cholesky(COVARIANCE).T


def fit_flow(prior: LatentPrior, latents: torch.Tensor, num_updates: int, **learning) -> list[float]:
    """Learns the flow of a prior whose components are fitted; returns the loss of each update."""
    losses = []

    then = learning.pop("after_update", None)

    def after_update(training):
        losses[:] = [loss.item() for loss in training.losses]
        if then is not None:
            then(training)

    prior.flow.fit(latents, prior, 0, Learning(num_updates, after_update=after_update, **learning))
    return losses


@pytest.fixture
def fitted_prior() -> LatentPrior:
    prior = LatentPrior(3)
    prior.fit(gaussian_samples(20_000))
    return prior


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


def test_a_direction_has_one_sign():
    for seed in range(5):
        latents = torch.randn(50, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
        variances, directions = principal_components(latents.T.cov())
        assert (directions.gather(1, directions.abs().argmax(1, keepdim=True)) > 0).all()
        assert (variances.diff() <= 0).all()
        torch.testing.assert_close(directions.T @ variances.diag() @ directions, latents.T.cov())


def test_fewer_latents_than_dimensions_can_be_fitted():
    prior = LatentPrior(16)
    prior.fit(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    assert prior.sample(8).isfinite().all()
    assert (prior.stds >= 0).all() and (prior.stds > 1e-3).sum() == 3
    prior.fit_priors(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    assert prior.sample(8, "mixture").isfinite().all()


@pytest.mark.parametrize("num_latents", [0, 1])
def test_a_prior_needs_two_latents(num_latents):
    with pytest.raises(ValueError, match=f"at least 2 latents.*got {num_latents}"):
        LatentPrior(3).fit(torch.zeros(num_latents, 3))


def test_an_unfitted_prior_is_the_standard_normal():
    prior = LatentPrior(3)
    gaussian, standard = (
        prior.sample(5, kind, [torch.Generator().manual_seed(number) for number in range(5)])
        for kind in ("gaussian", "standard")
    )
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


def two_clusters(num_samples: int, latent_dim: int = 2) -> torch.Tensor:
    """Latents around (3, 0, ...) and (-3, 0, ...), with a standard deviation of 0.3."""
    generator = torch.Generator().manual_seed(0)
    latents = 0.3 * torch.randn(num_samples, latent_dim, generator=generator)
    latents[:, 0] += 6 * torch.randint(2, (num_samples,), generator=generator) - 3
    return latents


def share_in_a_cluster(samples: torch.Tensor) -> float:
    return (((samples[:, 0].abs() - 3).abs() < 1) & (samples[:, 1].abs() < 1)).float().mean().item()


def test_a_mixture_and_a_flow_learn_what_a_gaussian_cannot():
    latents = two_clusters(1000)
    prior = LatentPrior(2, kind="flow")
    before = torch.get_rng_state()
    prior.fit_priors(latents)
    losses = fit_flow(prior, latents, 400)
    assert torch.equal(torch.get_rng_state(), before)
    assert (prior.mixture.weights > 0).sum() >= 2 and sum(losses[-30:]) < sum(losses[:30])
    shares = {
        kind: share_in_a_cluster(prior.sample(500, kind, torch.Generator().manual_seed(1)))
        for kind in ("gaussian", "mixture", "flow")
    }
    assert shares["gaussian"] < 0.5 and shares["mixture"] > 0.95 and shares["flow"] > 0.9
    sides = prior.sample(500, "flow", torch.Generator().manual_seed(2))[:, 0].sign()
    assert sides.mean().abs() < 0.3


def test_samples_of_a_flow_vary_as_much_as_latents_do_and_lead_back_to_their_noise():
    latents = two_clusters(1000)
    prior = LatentPrior(2, kind="flow")
    prior.fit(latents)
    fit_flow(prior, latents, 100)
    samples = prior.normalised(prior.sample(4000, "flow", torch.Generator().manual_seed(1)))
    assert torch.allclose(samples.std(0), torch.ones(2), atol=0.05) and samples.mean(0).abs().max() < 0.1
    noise = torch.randn(100, 2, generator=torch.Generator().manual_seed(2))
    assert (prior.flow.noise_of(prior.flow.sample(noise)) - noise).square().mean() < 0.1


@pytest.mark.parametrize("num_directions", [2, 8])
def test_a_flow_starts_from_the_gaussian_of_the_latents(num_directions):
    generator = torch.Generator().manual_seed(0)
    stds = torch.tensor([3.0, 0.1, *[0.5] * 6])
    mixing = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    latents = torch.randn(20_000, 8, generator=generator) * stds @ mixing
    flow = FlowPrior(8, flow_directions=num_directions, flow_mlp_width=16)
    torch.nn.init.zeros_(flow.network.last[1].weight)  # nothing is added
    torch.nn.init.zeros_(flow.network.last[1].bias)
    flow.start_from(latents)
    samples = flow.sample(torch.randn(20_000, 8, generator=generator))
    error = (samples.T.cov() - latents.T.cov()).abs().max()
    assert error < (0.3 if num_directions == 8 else 0.6)  # two directions leave out how narrow the second is
    assert (samples @ mixing.T)[:, 0].std() == pytest.approx(3, rel=0.1)


def test_the_times_of_a_flow_are_those_at_which_its_latents_emerge_from_the_noise():
    flow, times = FlowPrior(8), torch.linspace(0, 1, 5)
    assert torch.equal(flow.shifted(times), times)
    flow.start_from(4 * torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)) * torch.eye(8)[:1])
    torch.testing.assert_close(flow.shifted(times), 4 * times / (1 + 3 * times), rtol=0, atol=0.01)
    torch.testing.assert_close(flow.sampling_times()[[0, 5, -1]], torch.tensor([1, 0.8, 0]), rtol=0, atol=0.01)


@pytest.mark.parametrize(("latent_dim", "latent_size"), [(8, 1), (64, 4)])
def test_a_flow_draws_in_half_precision(latent_dim, latent_size):
    flow = FlowPrior(latent_dim, latent_size).bfloat16()
    assert flow.sample(torch.randn(3, latent_dim, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("rescale", [0.5, 1.0])
def test_rescaled_guidance_keeps_the_length_of_the_latents_that_it_points_at(rescale):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain, rescaled = FlowPrior(8, flow_mlp_width=16), FlowPrior(8, flow_mlp_width=16, guidance_rescale=rescale)
    rescaled.load_state_dict(plain.state_dict())
    points, times = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1e-3, 0.1, 0.5, 1])

    def ends(flow: FlowPrior, guidance: float) -> torch.Tensor:
        return points - times[:, None] * flow(points, times, guidance=guidance).detach()

    unguided, guided, kept = ends(plain, 1.0), ends(plain, 3.0), ends(rescaled, 3.0)
    lengths = [latents.norm(dim=1) for latents in (guided, unguided)]
    assert (lengths[0] - lengths[1]).abs().max() > 0.1
    torch.testing.assert_close(kept.norm(dim=1), torch.lerp(*lengths, rescale), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.nn.functional.normalize(kept), torch.nn.functional.normalize(guided))
    assert torch.equal(ends(rescaled, 1.0), unguided)


def test_rescaled_guidance_is_the_limit_at_the_time_0_and_draws_in_half_precision():
    flow = FlowPrior(8, flow_mlp_width=16, guidance=3.0, guidance_rescale=1.0)
    points = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    soon, now = (flow(points, torch.full((4,), time), guidance=3.0).detach() for time in (1e-6, 0.0))
    torch.testing.assert_close(now, soon, rtol=1e-3, atol=1e-3)
    assert flow.bfloat16().sample(points.bfloat16(), guidance=3.0).dtype == torch.bfloat16


def test_one_gaussian_is_enough_for_latents_that_are_one(fitted_prior):
    fitted_prior.mixture.fit(gaussian_samples(2000), fitted_prior)
    samples = fitted_prior.sample(20_000, "mixture", torch.Generator().manual_seed(1))
    torch.testing.assert_close(samples.T.cov(), COVARIANCE, atol=0.4, rtol=0)


def test_more_latents_than_directions_keep_their_variance():
    scales = torch.linspace(0.5, 2, 160)
    latents = scales * torch.randn(4000, 160, generator=torch.Generator().manual_seed(0))
    prior = LatentPrior(160)
    torch.testing.assert_close(prior.variances, torch.ones(160))
    prior.fit(latents)
    assert prior.directions.shape == (128, 160) and prior.explained_variance.sum() < 1
    torch.testing.assert_close(prior.variances, latents.var(0), rtol=1e-3, atol=1e-4)
    samples = prior.sample(4000, "gaussian", torch.Generator().manual_seed(1))
    torch.testing.assert_close(samples.std(0), scales, rtol=0.1, atol=0)


@pytest.mark.parametrize(("latent_dim", "latent_size"), [(8, 1), (2 * 49, 7), (3 * 64, 8), (196, 14)])
def test_a_flow_suits_every_layout(latent_dim, latent_size):
    flow = FlowPrior(latent_dim, latent_size).eval()
    noise = torch.randn(3, latent_dim, generator=torch.Generator().manual_seed(0))
    together = flow.sample(noise)
    assert together.shape == noise.shape
    torch.testing.assert_close(flow.sample(noise[1:2]), together[1:2], rtol=1e-4, atol=1e-4)


def test_a_flow_that_was_not_trained_is_refused(fitted_prior):
    with pytest.raises(ValueError, match="'flow' .* has no flow prior. Choose "):
        fitted_prior.sample(1, "flow")


@pytest.mark.parametrize("prior", list(PRIORS))
def test_a_model_gets_the_prior_that_its_configuration_names(prior, images):
    model = tiny_model("autoencoder", prior=prior)
    fit_prior(model, [images], num_updates=2)
    assert ("flow" in model.latent_prior.kinds) == (prior == "flow")
    assert model.priors == [kind for kind in PRIORS if kind == prior or not PRIORS[kind].is_learned]
    ours, named = (model.sample(2, torch.Generator().manual_seed(0), prior=kind) for kind in (None, prior))
    assert torch.equal(ours, named)


def test_fitting_is_deterministic_and_leaves_the_global_generator_alone(family, images):
    models = [tiny_model(family), tiny_model(family)]
    for number, model in enumerate(models):
        torch.manual_seed(number)
        before = torch.get_rng_state()
        fit_prior(model, [images], num_updates=2)
        assert torch.equal(torch.get_rng_state(), before)
    first, second = (model.latent_prior.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_fitted_model_has_orthonormal_directions_and_keeps_its_weights(family, images):
    model, untouched = tiny_model(family), tiny_model(family)
    fit_components(model, [images])
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
        fit_components(model, [views])
        priors.append(model.latent_prior)
    torch.testing.assert_close(priors[0].mean, priors[1].mean)
    torch.testing.assert_close(priors[0].stds, priors[1].stds)


def test_a_prior_is_fitted_on_draws_of_the_posterior(family, images):
    skip_without_encoder(family)
    model = tiny_model(family)
    if model.encode(images).logvar is None:
        pytest.skip("has no posterior")
    fit_components(model, [images])
    spread_of_means = encode_all(model, images).var(0).sum()
    assert (
        model.latent_prior.stds.square().sum()
        > spread_of_means + 0.5 * model.encode(images).logvar.exp().mean(0).sum()
    )


def test_without_an_encoder_the_prior_stays_standard_and_directions_fall_in_effect(family, images):
    model = tiny_model(family)
    if model.has_encoder:
        pytest.skip("has an encoder")
    fit_components(model, [images])
    prior = model.latent_prior
    assert torch.equal(prior.mean, torch.zeros(8)) and torch.equal(prior.stds, torch.ones(8))
    effects = (model.decoder.head.weight @ prior.directions.T).norm(dim=0)
    assert (effects.diff() <= 1e-5).all()


@pytest.mark.parametrize(("latent_dim", "latent_size"), [(2, 1), (64, 4)])
def test_a_flow_goes_on_from_its_state_bit_for_bit(latent_dim, latent_size):
    latents = two_clusters(200, latent_dim)
    prior = LatentPrior(latent_dim, latent_size, "flow", {"flow_width": 16, "flow_mlp_width": 32})
    prior.fit(latents)
    states = []
    losses = fit_flow(prior, latents, 7, after_update=lambda training: states.append(copy.deepcopy(training.state())))
    whole = copy.deepcopy(prior.flow.state_dict())
    assert len(states) == 7
    for done in (1, 4, 7):
        prior.drop_learned()
        prior.add_module("flow", FlowPrior(latent_dim, latent_size, flow_width=16, flow_mlp_width=32))
        updates = []
        again = fit_flow(prior, latents, 7, state=states[done - 1], after_update=updates.append)
        assert again == (losses if done < 7 else []) and len(updates) == 7 - done
        for name, value in prior.flow.state_dict().items():
            assert torch.equal(value, whole[name]), name


def test_a_flow_is_learned_where_the_configuration_names_it_and_there_is_an_encoder(family):
    assert learns_prior(tiny_model(family, prior="flow")) == FAMILIES[family].model.has_encoder
    assert not learns_prior(tiny_model(family, prior="gaussian"))


def test_a_flow_computes_in_the_precision_that_was_asked_for(monkeypatch):
    seen = []
    forward = FlowPrior.added_velocity

    def record(flow, points, times, condition):
        seen.append(torch.is_autocast_enabled("cpu"))
        return forward(flow, points, times, condition)

    monkeypatch.setattr(FlowPrior, "added_velocity", record)
    latents = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    for asked in (True, False):
        prior = LatentPrior(3, kind="flow")
        prior.fit(latents)
        fit_flow(prior, latents, 1, in_bfloat16=asked)
        assert seen[0] == asked
        seen.clear()


@pytest.mark.parametrize("num_gaussians", [1, 3, 8])
def test_a_mixture_is_as_likely_as_that_of_scikit_learn(num_gaussians):
    """Of points of a known mixture, some of them held out."""
    generator = torch.Generator().manual_seed(7)
    centres = 3 * torch.randn(5, 4, generator=generator, dtype=torch.double)
    spreads = 0.3 + torch.rand(5, 4, generator=generator, dtype=torch.double)
    chosen = torch.randint(5, (2400,), generator=generator)
    points = centres[chosen] + spreads[chosen] * torch.randn(2400, 4, generator=generator, dtype=torch.double)
    fitted, heldout = points.split([1600, 800])
    weights, means, stds = fit_mixture(fitted, num_gaussians, torch.Generator().manual_seed(0))
    assert weights.sum().item() == pytest.approx(1) and (weights > 0).all() and (stds > 0).all()
    reference = GaussianMixture(num_gaussians, covariance_type="diag", random_state=0, n_init=5).fit(fitted.numpy())
    found = log_likelihoods(heldout, weights, means, stds)
    assert found.mean().item() > reference.score(heldout.numpy()) - 0.05
    # and the formula of the density is the same one
    reference.weights_, reference.means_ = weights.numpy(), means.numpy()
    reference.covariances_ = stds.square().numpy()
    reference.precisions_cholesky_ = stds.reciprocal().numpy()
    torch.testing.assert_close(found, torch.from_numpy(reference.score_samples(heldout.numpy())))


def test_a_mixture_can_be_fitted_to_latents_that_are_all_the_same():
    points = torch.ones(20, 3, dtype=torch.double)
    weights, means, stds = fit_mixture(points, 4, torch.Generator().manual_seed(0))
    assert weights.isfinite().all() and means.isfinite().all() and stds.isfinite().all()


def test_more_steps_of_a_flow_are_more_exact_and_other_priors_ignore_them():
    torch.manual_seed(0)
    prior = LatentPrior(4, kind="flow")
    noise = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    few, default, many, exact = (prior.flow.sample(noise, steps) for steps in (3, 10, 40, 400))
    errors = [(each - exact).square().mean() for each in (few, default, many)]
    assert errors[0] > errors[1] > errors[2]
    assert torch.equal(default, prior.flow.sample(noise))
    drawn = [prior.sample(3, "mixture", torch.Generator().manual_seed(0), num_steps=steps) for steps in (1, 50)]
    assert torch.equal(*drawn)
    with pytest.raises(ValueError, match="num_steps=0 is not possible; it must be at least 1"):
        prior.sample(1, "flow", num_steps=0)


def test_the_sizes_of_a_model_s_prior_are_those_of_its_configuration(images, tmp_path):
    sizes = {"num_directions": 5, "num_gaussians": 3, "flow_mlp_width": 32, "flow_depth": 1, "flow_directions": 4}
    model = tiny_model("vae", prior="flow", **sizes)
    shapes = {name: tuple(value.shape) for name, value in model.latent_prior.state_dict().items()}
    assert shapes["directions"] == (5, 8) and shapes["mixture.means"] == (3, 5)
    assert shapes["flow.directions"] == (4, 8) and shapes["flow.network.first.weight"] == (32, 8)
    fit_prior(model, [images], num_updates=2)
    model.save_pretrained(tmp_path)
    assert sizes.items() <= json.loads((tmp_path / "config.json").read_text()).items()
    again = VAE.from_pretrained(tmp_path)
    samples = [each.sample(2, torch.Generator().manual_seed(0)) for each in (model, again)]
    assert torch.equal(*samples)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"num_directions": 0}, "num_directions=0 .* at least 1"),
        ({"num_gaussians": 0}, "num_gaussians=0 .* at least 1"),
        ({"flow_depth": 0}, "flow_depth=0 .* from 1 to 64"),
        ({"flow_depth": 10**9}, "flow_depth=1000000000 .* from 1 to 64"),
        ({"flow_width": 40}, "flow_width=40 .* multiple of 16"),
        ({"flow_mlp_width": 8}, "flow_mlp_width=8 .* multiple of 16"),
        ({"flow_directions": -1}, "flow_directions=-1 .* at least 1"),
        ({"guidance_rescale": 1.5}, "guidance_rescale=1.5 .* from 0 to 1"),
    ],
)
def test_an_impossible_size_of_a_prior_is_refused(sizes, named):
    with pytest.raises(ValueError, match=named):
        tiny_model("vae", **sizes)


@pytest.mark.parametrize(
    ("prior", "shown"), [("flow", "gaussian"), ("gaussian", "gaussian"), ("standard", "standard")]
)
def test_a_preview_draws_from_a_prior_that_is_fitted_in_seconds(prior, shown, images):
    model = tiny_model("vae", prior=prior)
    assert fit_for_preview(model, [images]) == shown
    assert bool(model.latent_prior.mean.any()) == (shown == "gaussian")
    assert fit_for_preview(tiny_model("dcgan"), [images]) == "standard"


def test_latents_move_along_the_components_in_standard_deviations():
    prior = LatentPrior(8)
    prior.fit(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9))
    latents = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    moved = prior.move(latents, torch.tensor([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.5]]))
    changes = prior.coordinates(moved) - prior.coordinates(latents)
    expected = torch.zeros(2, 8)
    expected[0, 1], expected[1, 0], expected[1, 2] = 2.0, -1.0, 0.5
    torch.testing.assert_close(changes, expected, atol=1e-5, rtol=0)


def test_a_flow_keeps_the_weights_that_suit_held_out_latents_best(monkeypatch):
    """It learns eight latents by heart: from some update on, it errs more and more on others."""
    monkeypatch.setattr(flow_module, "HELDOUT_UPDATES", 20)
    latents, heldout = gaussian_samples(8), gaussian_samples(400)[200:]
    errors, last = [], {}

    def note(training):
        if len(training.losses) % 20 == 0:
            errors.append(training.heldout_error())
        last["training"] = training

    prior = LatentPrior(3, 1, "flow", {"flow_mlp_width": 32, "flow_depth": 1})
    prior.fit(latents)
    fit_flow(prior, latents, 300, after_update=note, heldout=heldout)
    best = errors.index(min(errors))
    assert best < len(errors) - 1
    assert last["training"].kept == 20 * (best + 1)
    kept = last["training"].averaged
    kept.load_state_dict(prior.flow.state_dict())
    torch.testing.assert_close(last["training"].heldout_error(), min(errors))


def test_a_flow_of_which_nothing_is_held_out_keeps_its_last_weights():
    prior, last = LatentPrior(3, 1, "flow", {"flow_mlp_width": 32, "flow_depth": 1}), {}
    prior.fit(gaussian_samples(50))
    fit_flow(prior, gaussian_samples(50), 5, after_update=lambda training: last.update(training=training))
    assert last["training"].kept is None and last["training"].heldout_error() is None
    expected = last["training"].averaged.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in prior.flow.network.state_dict().items())


def test_the_batch_and_the_dropout_of_a_flow_are_those_that_are_asked_for():
    flow = flow_module.Flow(64, 4, flow_width=16, flow_depth=1)
    asked = []

    def draw(count, generator):
        asked.append(count)
        return torch.randn(count, 64, generator=generator), None

    training = flow_module.FlowTraining(flow, draw, 1, 0, Learning(1, batch_size=12, dropout=0.25))
    training.update()
    assert asked == [12]
    chances = {module.p for module in flow.network.modules() if isinstance(module, torch.nn.Dropout)}
    assert chances == {0.25}
