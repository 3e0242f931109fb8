"""Pictures to latents, and paths between them."""

import math

import pytest
import torch
from conftest import skip_without_encoder, tiny_model

from hf_vae import latents


START, END = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 1.7, 2.0])


@pytest.mark.parametrize("kind", ["lerp", "slerp"])
def test_a_path_starts_and_ends_where_it_should(kind):
    points = latents.path(START, END, 5, kind)
    assert points.shape == (5, 3)
    torch.testing.assert_close(points[[0, -1]], torch.stack([START, END]))


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
    with pytest.raises(ValueError, match="at least 2 points; got 1"):
        latents.path(START, END, 1)
    with pytest.raises(ValueError, match="'cubic'.*lerp or slerp"):
        latents.path(START, END, 4, "cubic")


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
