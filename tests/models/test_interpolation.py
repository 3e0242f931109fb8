"""Paths between latents."""

import math

import pytest
import torch

from hf_vae.models import LatentPrior
from hf_vae.models.priors import PATHS


@pytest.fixture
def prior() -> LatentPrior:
    """An unfitted one with a flow of random weights: N(0, I), so that great circles are around the origin."""
    return _prior("flow")


def _prior(kind: str) -> LatentPrior:
    torch.manual_seed(0)
    return LatentPrior(3, kind=kind)


START, END = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 1.7, 2.0])


@pytest.mark.parametrize("kind", PATHS)
def test_a_path_starts_and_ends_where_it_should(kind):
    points = _prior("code" if kind == "code" else "flow").path(START, END, 5, kind)
    assert points.shape == (5, 3)
    torch.testing.assert_close(points[[0, -1]], torch.stack([START, END]))


@pytest.mark.parametrize("kind", PATHS)
def test_many_paths_at_once_are_the_same(kind):
    prior = _prior("code" if kind == "code" else "flow")
    starts, ends = torch.stack([START, END]), torch.stack([END, 2 * START])
    together = prior.path(starts, ends, 4, kind)
    assert together.shape == (2, 4, 3)
    for number in range(2):
        torch.testing.assert_close(together[number], prior.path(starts[number], ends[number], 4, kind))


@pytest.mark.parametrize("kind", ["lerp", "slerp"])
def test_a_path_is_evenly_spaced(prior, kind):
    points = prior.path(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([-1.0, 1.0, math.sqrt(2)]), 9, kind)
    steps = points.diff(dim=0).norm(dim=1)
    torch.testing.assert_close(steps, steps[:1].expand(8))


def test_slerp_keeps_the_length_and_lerp_does_not():
    start, end, prior = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0]), LatentPrior(2)
    torch.testing.assert_close(prior.path(start, end, 7, "slerp").norm(dim=1), torch.full((7,), 3.0))
    assert prior.path(start, end, 3, "lerp")[1].norm() < 2.5


def test_slerp_goes_around_the_mean_of_the_latents():
    prior = LatentPrior(2)
    prior.mean.copy_(torch.tensor([10.0, 0.0]))
    points = prior.path(torch.tensor([13.0, 0.0]), torch.tensor([10.0, 3.0]), 5, "slerp")
    torch.testing.assert_close((points - prior.mean).norm(dim=1), torch.full((5,), 3.0))


@pytest.mark.parametrize("latent_dim", [1, 2, 128])
@pytest.mark.parametrize("factor", [1, 2, 0, -1, -2])
def test_slerp_on_one_line_stays_on_the_line(factor, latent_dim):
    for seed in range(20):  # rounding decides how close to 0 or 180 degrees the angle comes out
        start = torch.randn(latent_dim, generator=torch.Generator().manual_seed(seed))
        points = LatentPrior(latent_dim).path(start, factor * start, 5, "slerp")
        torch.testing.assert_close(points[-1], factor * start)
        assert (points.norm(dim=1) <= 1.01 * max(1, abs(factor)) * start.norm()).all()


def test_noise_that_a_flow_is_given_comes_back(prior):
    """Up to what the steps leave; the identity would be as far from the latents as these are from the noise."""
    noise = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    latents = prior.flow.sample(noise)
    error = (prior.flow.noise_of(latents) - noise).square().mean()
    assert error < 0.01 * (latents - noise).square().mean()


def test_impossible_paths_are_refused(prior):
    with pytest.raises(ValueError, match="at least 2 points; got 1"):
        prior.path(START, END, 1)
    with pytest.raises(ValueError, match="'cubic'.*lerp, slerp, code, flow"):
        prior.path(START, END, 4, "cubic")
    with pytest.raises(
        ValueError, match="'flow' is not possible: this model has no flow prior. Choose lerp or slerp."
    ):
        LatentPrior(3).path(START, END, 4, "flow")
