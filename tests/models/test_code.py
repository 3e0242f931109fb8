"""The prior with a code: what it draws, what sliders move, and how it is learned."""

import copy

import pytest
import torch

from hf_vae.models import LatentPrior
from hf_vae.models.priors.base import Learning
from hf_vae.models.priors.code import CODE_SHARE, CodePrior
from hf_vae.models.priors.code_mixture import CodeGaussians, CodeMixture
from hf_vae.models.priors.mixture import choose


SIZES = {
    "code_dim": 4,
    "code_nats": 3.0,
    "code_gaussians": 4,
    "code_width": 8,
    "flow_width": 16,
    "flow_mlp_width": 32,
    "flow_depth": 1,
}
SHAPES = [(6, 1), (128, 8)]  # latents without a grid, and on one


def grouped_latents(num_samples: int, latent_dim: int) -> torch.Tensor:
    """Latents that all follow one number, up to noise of a standard deviation of 0.3."""
    generator = torch.Generator().manual_seed(0)
    place = torch.randn(num_samples, 1, generator=generator)
    return 2 * place * torch.linspace(-1, 1, latent_dim) + 0.3 * torch.randn(
        num_samples, latent_dim, generator=generator
    )


def fitted(latent_dim: int, latent_size: int, num_updates: int = 40, **learning) -> LatentPrior:
    prior = LatentPrior(latent_dim, latent_size, "code", SIZES)
    prior.drop_learned()
    before = torch.get_rng_state()
    prior.fit_priors(grouped_latents(400, latent_dim), learning=Learning(num_updates, **learning))
    assert torch.equal(torch.get_rng_state(), before)
    return prior


@pytest.fixture(params=SHAPES, ids=["flat", "grid"])
def prior(request) -> LatentPrior:
    return fitted(*request.param)


def test_latents_lead_to_the_noise_that_they_are_drawn_from(prior):
    latents = grouped_latents(400, prior.latent_dim)[:8]
    parts = prior.code.to_noise(latents, prior, 100)
    assert [part.shape for part in parts] == [(8, 4), (8, prior.latent_dim)]
    again = prior.code.from_noise(parts, prior, 100)
    assert (again - latents).square().mean() < 0.01 * latents.square().mean()


def test_sliders_move_the_code_and_nothing_else_of_the_noise(prior):
    assert prior.sliders is prior.code.code and prior.default_path == "code"
    latents = prior.sample(1, "code", torch.Generator().manual_seed(1))
    shifts = torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, -1.0]])
    moved = prior.move(latents, shifts, num_steps=50)
    torch.testing.assert_close(moved[:1], latents)
    code, noise = prior.code.to_noise(latents, prior, 50)
    prior.code.rest_temperature = 1.0
    noise = noise / noise.square().mean().sqrt().clamp(min=1)  # no longer than that of samples: it stays as it is
    latents = prior.code.from_noise([code, noise], prior, 50)
    code, noise = prior.code.to_noise(latents, prior, 50)
    moved = prior.move(latents, shifts, num_steps=50)
    wanted = torch.cat([code + torch.nn.functional.pad(shifts, (0, 2)), noise.expand(3, -1)], 1)
    drawn = prior.code.from_noise(wanted.split([4, prior.latent_dim], 1), prior, 50)
    torch.testing.assert_close(moved, drawn + latents - drawn[:1], atol=1e-4, rtol=1e-4)
    assert (moved[1:] - latents).square().mean() > 0


def test_without_a_code_sliders_move_latents_along_their_components():
    prior = LatentPrior(6, kind="gaussian")
    prior.fit(grouped_latents(100, 6))
    moved = prior.move(torch.zeros(1, 6), torch.tensor([[2.0]]))
    torch.testing.assert_close(moved[0], 2 * prior.stds[0] * prior.directions[0])
    assert prior.sliders is prior and prior.default_path == "slerp"


def test_samples_follow_the_latents(prior):
    samples = prior.sample(500, "code", torch.Generator().manual_seed(1))
    latents = grouped_latents(400, prior.latent_dim)
    torch.testing.assert_close(samples.std(0), latents.std(0), atol=0.25, rtol=0.25)
    # all latents follow one number, which the Gaussian of independent latents would not do
    assert torch.corrcoef(samples[:, [0, -1]].T)[0, 1] < -0.8


def test_the_code_is_held_at_its_nats():
    """However large or small the error is, as that of other images would be."""
    nats = []
    for scale in (0.003, 0.01):
        prior = fitted(6, 1, 1500, image_error=lambda one, other, scale=scale: scale * (one - other).square().mean(1))
        latents = prior.normalised(grouped_latents(400, 6))
        mean, logvar = prior.code.posterior(latents)
        nats.append((0.5 * (mean.square() + logvar.exp() - 1 - logvar)).sum(1).mean().item())
    assert all(2 < each < 4.5 for each in nats), nats


@pytest.mark.parametrize(("latent_dim", "latent_size"), SHAPES)
def test_learning_resumes_bit_for_bit_in_the_code_and_in_the_flow(latent_dim, latent_size):
    states = []
    whole = fitted(
        latent_dim, latent_size, 10, after_update=lambda training: states.append(copy.deepcopy(training.state()))
    )
    assert len(states) == 10 and round(10 * CODE_SHARE) == 3
    for done in (1, 3, 4, 7, 10):
        again = fitted(latent_dim, latent_size, 10, state=states[done - 1]).state_dict()
        for name, value in whole.state_dict().items():
            assert torch.equal(value, again[name]), (done, name)


def test_more_guidance_changes_samples_and_one_s_own_is_the_default(prior):
    first, again, guided = (
        prior.sample(4, "code", torch.Generator().manual_seed(0), guidance=guidance) for guidance in (None, 2.5, 1.0)
    )
    assert torch.equal(first, again) and not torch.equal(first, guided)


def test_samples_are_what_the_code_leads_to_expect_where_the_rest_has_no_noise(prior):
    before = prior.sample(4, "code", torch.Generator().manual_seed(0))
    prior.code.rest_temperature = 0.5
    half = prior.sample(4, "code", torch.Generator().manual_seed(0))
    assert not torch.equal(before, half)
    noise = [torch.randn(4, size, generator=torch.Generator().manual_seed(0)) for size in (4, prior.latent_dim)]
    parts = prior.code.to_noise(prior.code.from_noise(noise, prior, 100), prior, 100)
    assert (parts[1] - noise[1]).square().mean() < 0.3  # encoded latents keep all of their noise


def test_the_temperature_of_the_rest_can_be_chosen_for_each_sample(prior):
    def draw(**settings) -> torch.Tensor:
        return prior.sample(4, "code", torch.Generator().manual_seed(0), **settings)

    chosen, own = draw(rest_temperature=0.5), draw()
    still = [draw(rest_temperature=0, temperature=temperature) for temperature in (0.5, 1)]
    prior.code.rest_temperature = 0.5
    assert torch.equal(draw(), chosen) and not torch.equal(own, chosen)
    assert not torch.equal(*still)  # the code has a temperature of its own
    with pytest.raises(ValueError, match="rest_temperature=-0.5 is not possible; it must be at least 0"):
        draw(rest_temperature=-0.5)
    with pytest.raises(
        ValueError, match="rest_temperature=0.5 .* prior='gaussian', which draws no code.* temperature"
    ):
        prior.sample(4, "gaussian", rest_temperature=0.5)


def rest_lengths(prior: LatentPrior, code: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Root mean square of what latents `(B, Z)` have beyond those that their code `(B, 4)` leads to expect: `(B,)`."""
    own = prior.code
    expected = own.expected(own.code.mean + (code * own.code.stds) @ own.code.directions)
    return ((prior.normalised(latents) - expected - own.shift) / own.scale).square().mean(1).sqrt()


def test_samples_with_a_long_rest_are_drawn_again_and_the_shorter_one_stays(prior):
    own = prior.code
    own.rest_limit = 1.0
    *pairs, first_choice, second_choice = prior.draw_noise(40, "code", torch.Generator().manual_seed(2))
    noise = [
        (own.mixture(code, choice), own.rest_temperature * rest)
        for code, rest, choice in zip(pairs[::2], pairs[1::2], (first_choice, second_choice), strict=True)
    ]
    drawn = [own.from_noise(pair, prior) for pair in noise]  # without a second pair, nothing is drawn again
    lengths = [rest_lengths(prior, pair[0], latents) for pair, latents in zip(noise, drawn, strict=True)]
    is_replaced = (lengths[0] > 1.0) & (lengths[1] < lengths[0])
    assert 3 <= is_replaced.sum() <= 30
    samples = prior.sample(40, "code", torch.Generator().manual_seed(2))
    torch.testing.assert_close(samples, torch.where(is_replaced[:, None], drawn[1], drawn[0]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(prior.sample(8, "code", torch.Generator().manual_seed(2)), samples[:8])
    own.rest_limit = 100.0
    torch.testing.assert_close(prior.sample(40, "code", torch.Generator().manual_seed(2)), drawn[0])


def test_the_length_of_a_rest_leaves_out_the_edge_of_the_grid():
    prior = fitted(*SHAPES[1])
    own, (channels, size, _) = prior.code, prior.code.latent_shape
    rest = torch.randn(6, channels, size, size, generator=torch.Generator().manual_seed(0))
    for margin in range((size - 1) // 2 + 1):
        own.rest_margin = margin
        inner = rest[:, :, margin : size - margin, margin : size - margin]
        expected = inner.square().mean((1, 2, 3)).sqrt()[:, None]
        torch.testing.assert_close(own._inner_length(rest.flatten(1)), expected)
    assert margin >= 1


def test_the_second_draw_has_the_code_that_is_asked_for(prior):
    own, mean, root = prior.code, torch.full((4,), 1.5), torch.diag(torch.tensor([0.0, 0.1, 0.1, 0.1]))
    own.rest_limit = 1e-3  # every sample is drawn twice
    first_code, first, second_code, second, *_ = prior.draw_noise(20, "code", torch.Generator().manual_seed(3))
    drawn = [
        own.from_noise([mean + code @ root, own.rest_temperature * rest], prior)
        for code, rest in ((first_code, first), (second_code, second))
    ]
    samples = prior.sample(20, "code", torch.Generator().manual_seed(3), code=(mean, root))
    distance = [(samples - latents).abs().amax(1) for latents in drawn]
    assert torch.minimum(*distance).max() < 1e-4 and 3 <= (distance[1] < distance[0]).sum() <= 17


def groups(num_codes: int, seed: int) -> torch.Tensor:
    """Codes of two groups around (2, 0, 0) and (-2, 0, 0), with one covariance: `(num_codes, 3)`."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.tensor([[0.5, 0.0, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, 0.2]])
    centres = torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0]]).repeat(num_codes // 2, 1)
    return centres + torch.randn(num_codes, 3, generator=generator) @ root.T


@pytest.mark.parametrize(("most", "heldout"), [(2, groups(2000, 1)), (2, None)])
def test_a_mixture_finds_the_groups_of_codes_and_their_covariance(most, heldout):
    mixture = CodeMixture(3, most)
    mixture.fit(groups(4000, 0), heldout)
    assert (mixture.weights > 0).sum() == 2
    torch.testing.assert_close(mixture.weights[:2], torch.full((2,), 0.5), atol=0.01, rtol=0)
    assert sorted(mixture.means[:2, 0].round().tolist()) == [-2, 2]
    torch.testing.assert_close(mixture.root, torch.tensor([[0.5, 0, 0], [0.3, 1, 0], [0, 0, 0.2]]), atol=0.03, rtol=0)
    generator = torch.Generator().manual_seed(2)
    drawn = mixture(torch.randn(4000, 3, generator=generator), torch.randn(4000, 1, generator=generator))
    torch.testing.assert_close(drawn.T.cov(), groups(4000, 0).T.cov(), atol=0.1, rtol=0.05)
    assert (drawn[:, 0].abs() < 0.5).float().mean() < 0.01  # none lies between the groups


def test_the_density_of_a_mixture_is_that_of_pytorch_s_own():
    codes = groups(200, 3).double()
    mixture = CodeGaussians.fitted(codes, 3, torch.Generator().manual_seed(0))
    own = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(mixture.weights),
        torch.distributions.MultivariateNormal(mixture.means, scale_tril=mixture.root.expand(3, 3, 3)),
    )
    torch.testing.assert_close(mixture.log_likelihoods(codes), own.log_prob(codes))


def test_a_mixture_of_large_numbers_of_codes_is_fitted_to_some_of_them(monkeypatch):
    monkeypatch.setattr("hf_vae.models.priors.code_mixture.MAX_CODES", 300)
    few, many = CodeMixture(3, 2), CodeMixture(3, 2)
    codes = groups(4000, 0)
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    many.fit(codes, groups(100, 1))
    few.weights.copy_(CodeGaussians.fitted(codes[order[:300]].double(), 2, torch.Generator().manual_seed(0)).weights)
    torch.testing.assert_close(many.weights.sort().values, few.weights.sort().values, atol=1e-3, rtol=0)


def test_the_error_on_heldout_latents_is_the_same_in_a_training_that_is_resumed(monkeypatch):
    monkeypatch.setattr("hf_vae.models.priors.flow.HELDOUT_UPDATES", 2)
    heldout = grouped_latents(60, 6)
    states = []
    fitted(6, 1, 20, heldout=heldout, after_update=lambda training: states.append(copy.deepcopy(training.state())))
    again = []
    for done in (3, 9):
        state = copy.deepcopy(states[done])
        fitted(6, 1, 20, heldout=heldout, state=state, after_update=lambda training: again.append(training.state()))
        assert again[-1]["flow"]["lowest"] == states[-1]["flow"]["lowest"]
        assert again[-1]["flow"]["kept"] == states[-1]["flow"]["kept"] and states[-1]["flow"]["kept"]


def test_codes_of_one_gaussian_are_drawn_from_one():
    """With the noise of training codes on them, held-out codes would ask for more."""
    prior = fitted(6, 1, 40, heldout=grouped_latents(800, 6)[400:])
    assert (prior.code.mixture.weights > 0).sum() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gaussians_are_chosen_by_their_shares_in_any_precision(dtype):
    weights = torch.full((128,), 1 / 128, dtype=dtype)
    choice = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(choose(weights, choice), minlength=128)
    assert counts.min() > 0.8 * 781 and counts.max() < 1.2 * 781


def test_heldout_codes_choose_the_number_of_gaussians():
    torch.manual_seed(0)
    mixture = CodeMixture(3, 16)
    mixture.fit(torch.randn(60, 3), torch.randn(1000, 3))
    assert (mixture.weights > 0).sum() == 1 and mixture.means.abs().max() < 0.5


def test_with_one_gaussian_the_code_is_noise_of_unit_variance(prior):
    one = CodePrior(
        prior.latent_dim,
        prior.code.latent_shape[-1] if len(prior.code.latent_shape) > 1 else 1,
        **{**SIZES, "code_gaussians": 1},
    )
    assert one.mixture is None and one.num_choices == 0 and one.noise_sizes == [4, prior.latent_dim]
    assert prior.code.num_choices == 1 and prior.code.noise_sizes == [4, prior.latent_dim, 1]


def test_a_temperature_of_zero_gives_a_mean_of_the_mixture(prior):
    own = prior.code
    own.mixture.means.copy_(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    own.mixture.weights.fill_(0.25)
    samples = prior.sample(12, "code", torch.Generator().manual_seed(1), temperature=0.0)
    rest = torch.zeros(4, prior.latent_dim)
    means = own.from_noise([own.mixture.means, rest], prior)
    nearest = torch.cdist(samples, means).min(1)
    assert nearest.values.max() < 1e-3 and len(nearest.indices.unique()) > 1


def test_a_temperature_above_one_lengthens_no_noise_of_an_image(prior):
    prior.code.rest_temperature = 1.2
    for length in (0.5, 0.9):
        noise = torch.full((2, prior.latent_dim), length)
        torch.testing.assert_close(prior.code.like_samples(noise, torch.ones(2, 1)), noise)


def test_impossible_sizes_are_refused():
    for sizes, message in (
        ({"code_dim": 0}, "code_dim=0 is not possible; it must be at least 1"),
        ({"code_nats": 0.0}, "code_nats=0.0 is not possible; it must be above 0"),
        ({"code_gaussians": 0}, "code_gaussians=0 is not possible; it must be at least 1"),
        ({"rest_temperature": -1.0}, "rest_temperature=-1.0 is not possible; it must be at least 0"),
        ({"rest_limit": 0.0}, "rest_limit=0.0 is not possible; it must be above 0"),
        ({"rest_margin": 4}, "rest_margin=4 is not possible; it must be from 0 to 3"),
        ({"code_width": 12}, "code_width=12 is not possible; it must be a multiple of 8"),
    ):
        with pytest.raises(ValueError, match=message):
            CodePrior(64, 8, **sizes)


@pytest.mark.parametrize("latent_size", [4, 5, 7, 8, 16, 32])
def test_every_grid_has_a_code(latent_size):
    latent_dim = 2 * latent_size**2
    prior = CodePrior(latent_dim, latent_size, **SIZES)
    mean, logvar = prior.posterior(torch.zeros(3, latent_dim))
    assert mean.shape == logvar.shape == (3, 4) and prior.expected(mean).shape == (3, latent_dim)


def test_an_update_of_the_code_takes_a_quarter_of_the_batch():
    sizes = []

    def error(latents, wanted):
        sizes.append(len(latents))
        return (latents - wanted).square().mean(1)

    fitted(6, 1, 10, image_error=error, batch_size=20)
    assert sizes == 3 * [5]


def test_weights_are_kept_that_suit_held_out_latents_best():
    last = {}
    fitted(6, 1, 10, heldout=grouped_latents(9, 6), after_update=lambda training: last.update(training=training))
    assert last["training"].kept == 10  # the code's updates count too


def test_the_noise_of_an_image_becomes_like_that_of_a_sample(prior):
    """It gets the temperature of samples, and it is no longer than noise of N(0, I) is."""
    prior.code.rest_temperature = 0.8
    longest = 1 + 3 / 256**0.5  # of 128 numbers
    rest = torch.ones(4, 128) * torch.tensor([0.5, 1.0, 1.5, 2.0])[:, None]  # these are its root mean squares
    assert torch.equal(prior.code.like_samples(rest, torch.zeros(4, 1)), rest)
    found = prior.code.like_samples(rest, torch.ones(4, 1))
    torch.testing.assert_close(found[:, 0], torch.tensor([0.4, 0.8, longest, longest]))
    torch.testing.assert_close(prior.code.like_samples(rest, torch.full((4, 1), 0.5)), (rest + found) / 2)


def test_guidance_does_not_change_a_path(prior):
    starts, ends = grouped_latents(400, prior.latent_dim)[:8].chunk(2)
    prior.code.guidance, prior.code.rest_temperature = 1.0, 1.0
    expected = prior.path(starts, ends, 5)
    prior.code.guidance, prior.code.rest_temperature = 2.5, 0.5
    assert torch.equal(prior.path(starts, ends, 5), expected)


def test_noise_between_two_images_has_a_least_length(prior):
    prior.code.flow.std.fill_(1.0)
    rest = torch.ones(4, 128) * torch.tensor([0.0, 0.5, 0.85, 1.5])[:, None]  # these are its root mean squares
    assert torch.equal(prior.code.no_softer(rest, torch.zeros(4, 1)), rest)
    midway = prior.code.no_softer(rest, torch.ones(4, 1))
    torch.testing.assert_close(midway[:, 0], torch.tensor([0.0, 0.85, 0.85, 1.5]))
    halfway = prior.code.no_softer(rest[1:2], torch.full((1, 1), 0.5))
    torch.testing.assert_close(halfway[0, 0], torch.tensor((0.5 + 0.85) / 2))
    for std, least in ((0.8, 0.68), (1.4, 0.85)):  # of the calibration, to which the noise of images is in proportion
        prior.code.flow.std.fill_(std)
        midway = prior.code.no_softer(rest[1:2], torch.ones(1, 1))
        torch.testing.assert_close(midway[0, 0], torch.tensor(least))


def test_the_noise_of_a_path_is_lengthened_midway_and_not_at_its_ends(prior):
    starts, ends = grouped_latents(400, prior.latent_dim)[:8].chunk(2)
    shares = []

    def no_softer(rest, share):
        shares.append(share.flatten().tolist())
        return rest

    prior.code.no_softer = no_softer
    prior.path(starts, ends, 5)
    assert shares == [[0.0, 0.5, 1.0, 0.5, 0.0]]
