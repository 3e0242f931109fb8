"""Models as ONNX files."""

import json

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TINY, run_onnx, tiny_model

from hf_vae import FAMILIES, LatentPrior
from hf_vae.models.priors import PRIORS
from hf_vae.publishing.export import PriorGraph, export_onnx


PRIOR_OF = {"autoencoder": "gaussian", "vae": "flow", "vaegan": "mixture", "dcgan": "standard"}  # each of them once
ENCODERS = [name for name, family in FAMILIES.items() if family.model.has_encoder]


def fitted(prior: LatentPrior, latent_dim: int) -> None:
    """A prior of which every part counts."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(latent_dim, latent_dim, generator=generator)
    prior.fit(torch.randn(300, latent_dim, generator=generator) @ mixing + 2)
    count = len(prior.stds)
    means = torch.randn(3, count, generator=generator)
    prior.mixture.set(torch.tensor([0.2, 0.3, 0.5]), means, torch.rand(3, count, generator=generator))


def drawn_noise(prior: LatentPrior, kind: str, rows: int, seed: int) -> torch.Tensor:
    """The noise that `LatentPrior.sample` draws, in its order."""
    generator, num_directions = torch.Generator().manual_seed(seed), len(prior.stds)
    widths = {"gaussian": (num_directions, prior.latent_dim), "mixture": (num_directions, prior.latent_dim, 1)}
    widths = widths.get(kind) or prior.get(kind).noise_sizes
    drawn = [[torch.randn(width, generator=generator) for width in widths] for _ in range(rows)]
    return torch.stack([torch.cat(row) for row in drawn])


def test_the_files_compute_what_the_model_does_for_any_batch(family, images, tmp_path):
    model = tiny_model(family, prior=PRIOR_OF.get(family, "gaussian"))
    fitted(model.latent_prior, TINY["latent_dim"])
    export_onnx(model, tmp_path)
    sizes = json.loads((tmp_path / "onnx.json").read_text())
    assert (sizes["image_size"], sizes["image_channels"], sizes["latent_dim"]) == (28, 3, 8)
    assert not [path for path in tmp_path.iterdir() if str(REPOSITORY).encode() in path.read_bytes()]
    latents = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.decode(latents).sample.clamp(-1, 1)
        np.testing.assert_allclose(run_onnx(tmp_path / "decoder.onnx", latents), expected, atol=1e-4, rtol=0)
        assert (tmp_path / "encoder.onnx").exists() == sizes["has_encoder"] == (family in ENCODERS)
        if family in ENCODERS:
            expected = model.encode(images).latents
            np.testing.assert_allclose(run_onnx(tmp_path / "encoder.onnx", images), expected, atol=1e-4, rtol=0)
    noise = drawn_noise(model.latent_prior, model.config.prior, 4, seed=5)
    assert noise.shape == (4, sizes["noise_dim"])
    drawn = run_onnx(tmp_path / "decoder.onnx", torch.from_numpy(run_onnx(tmp_path / "prior.onnx", noise)))
    samples = model.sample(4, generator=torch.Generator().manual_seed(5))
    np.testing.assert_allclose(drawn, samples, atol=1e-4, rtol=0)


@pytest.mark.parametrize("guidance_rescale", [0.0, 1.0])
def test_samples_that_are_drawn_twice_are_the_same_in_a_graph(guidance_rescale, tmp_path):
    torch.manual_seed(0)
    model = tiny_model("vae", prior="code", code_width=8, rest_limit=0.84, guidance_rescale=guidance_rescale)
    fitted(model.latent_prior, TINY["latent_dim"])
    prior, noise = model.latent_prior, drawn_noise(model.latent_prior, "code", 12, seed=5)
    samples = prior.sample(12, "code", torch.Generator().manual_seed(5))
    prior.code.rest_limit = 100.0
    num_replaced = (prior.sample(12, "code", torch.Generator().manual_seed(5)) != samples).any(1).sum()
    assert 1 <= num_replaced < 12
    prior.code.rest_limit = 0.84
    export_onnx(model, tmp_path)
    np.testing.assert_allclose(run_onnx(tmp_path / "prior.onnx", noise), samples, atol=1e-4, rtol=0)


def test_samples_make_their_round_trips_in_a_graph(tmp_path):
    model = tiny_model("vae", prior="gaussian", round_trips=1, latent_size=7, latent_dim=49, detail_dim=588)
    fitted(model.latent_prior, 49)
    export_onnx(model, tmp_path)
    noise = drawn_noise(model.latent_prior, "gaussian", 4, seed=5)
    drawn = run_onnx(tmp_path / "decoder.onnx", torch.from_numpy(run_onnx(tmp_path / "prior.onnx", noise)))
    samples = model.sample(4, generator=torch.Generator().manual_seed(5))
    np.testing.assert_allclose(drawn, samples, atol=1e-4, rtol=0)


@pytest.mark.parametrize("latent_dim", [8, 150])  # with and without a rest beyond the directions
@pytest.mark.parametrize("kind", PRIORS)
def test_noise_becomes_the_latents_that_the_prior_draws(kind, latent_dim):
    torch.manual_seed(0)
    own = {"prior": kind} if PRIORS[kind].is_learned else {}
    model = tiny_model("vae", latent_dim=latent_dim, **own)
    prior = model.latent_prior
    fitted(prior, latent_dim)
    graph, noise = PriorGraph(model, kind), drawn_noise(prior, kind, 6, seed=3)
    expected = prior.sample(6, kind, torch.Generator().manual_seed(3))
    assert noise.shape[1] == graph.noise_dim
    with torch.no_grad():
        torch.testing.assert_close(graph(noise), expected, atol=1e-4, rtol=1e-4)
