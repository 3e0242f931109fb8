"""Residual latents."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import draw_picture, run_onnx, tiny_model, tiny_run

from hf_vae import AutoGenerator, ImagePipeline
from hf_vae.latents.encoding import encode_all
from hf_vae.latents.fit_detail import fit_detail
from hf_vae.latents.fit_prior import fit_prior
from hf_vae.models import ImageGenerator
from hf_vae.models.priors import PATHS, PRIORS
from hf_vae.pictures import to_float
from hf_vae.publishing.export import export_onnx
from hf_vae.training.loop import train


GRID = {"image_size": 32, "latent_size": 4, "latent_dim": 32}  # cells of 8x8 pixels
EVERYTHING = 32 * 32 * 3


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    drawn = np.stack([np.asarray(draw_picture(number, (32, 32))) for number in range(30)])
    return to_float(torch.from_numpy(drawn).permute(0, 3, 1, 2))


def detailed_model(pictures: torch.Tensor, detail_dim: int, **changes):
    model = tiny_model("vae", **GRID, detail_dim=detail_dim, **changes).requires_grad_(False)
    fit_detail(model, pictures.split(8))
    return model


def test_with_as_many_details_as_pixels_nothing_is_lost(pictures):
    model = detailed_model(pictures, EVERYTHING)
    latents = encode_all(model, pictures)
    assert latents.shape == (30, model.num_latents) == (30, 32 + EVERYTHING)
    torch.testing.assert_close(model.reconstruct(pictures), pictures, rtol=0, atol=1e-3)


def test_details_are_the_principal_components_of_what_is_left_in_standard_deviations(pictures):
    errors = []
    for detail_dim in (16, 64, 256):
        model = detailed_model(pictures, detail_dim)
        details = model.encode(pictures).latents[:, 32:]
        np.testing.assert_allclose(details.unflatten(1, (-1, 16)).square().mean((0, 2)), 1, rtol=1e-3)
        errors.append((model.decode(model.encode(pictures).latents).sample - pictures).square().mean().item())
    bare = tiny_model("vae", **GRID).requires_grad_(False)
    left = bare.residuals(pictures, bare.encode(pictures).latents)
    cells = torch.nn.functional.pixel_unshuffle(left, 8).movedim(1, -1).flatten(0, -2)
    variances = torch.linalg.svdvals(cells).square() / cells.numel()
    expected = [variances[count:].sum().item() for count in (1, 4, 16)]
    np.testing.assert_allclose(errors, expected, rtol=1e-3)


@pytest.fixture(scope="module")
def with_and_without(pictures) -> list[ImageGenerator]:
    """A model with residual latents, and the same one without, both with fitted priors."""
    models = [detailed_model(pictures, 64, prior="flow"), tiny_model("vae", **GRID, prior="flow")]
    for model in models:
        fit_prior(model, pictures.split(8), num_updates=2)
    return models


@pytest.fixture
def fitted(with_and_without) -> ImageGenerator:
    """The model with residual latents."""
    return with_and_without[0]


def test_samples_are_those_of_the_networks_alone(with_and_without):
    for prior in sorted(set(PRIORS) - {"code"}):
        drawn = [one.sample(3, torch.Generator().manual_seed(0), prior=prior) for one in with_and_without]
        assert torch.equal(*drawn), prior


@pytest.mark.parametrize("kind", sorted(set(PATHS) - {"code"}))
def test_a_path_keeps_the_details_of_its_ends(pictures, fitted, kind):
    ends = fitted.encode(pictures[:2]).latents
    path = fitted.path(*ends, 5, kind)
    torch.testing.assert_close(path[[0, -1]], ends, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(path[2, 32:], ends[:, 32:].mean(0))


def test_a_picture_that_is_varied_keeps_its_details(pictures, fitted):
    latents = fitted.encode(pictures[:1]).latents
    moved = ImagePipeline(fitted).move(latents, torch.tensor([[0.0, 2.0]]))
    assert torch.equal(moved[:, 32:], latents[:, 32:]) and not torch.equal(moved, latents)
    steps = [fitted.latent_prior.coordinates(some[:, :32])[0, :2] for some in (latents, moved)]
    torch.testing.assert_close(steps[1] - steps[0], torch.tensor([0.0, 2.0]), rtol=0, atol=1e-3)


def test_latents_are_decoded_with_or_without_details(pictures):
    model = detailed_model(pictures, 64, prior="flow")
    pipe = ImagePipeline(model)
    latents = model.encode(pictures[:2]).latents
    samples = model.latent_prior.sample(2, "standard")
    assert samples.shape == (2, 32) and pipe.sample(2, seed=0).latents.shape == (2, 32)
    zeros = torch.cat([latents[:, :32], torch.zeros(2, 64)], 1)
    without = model.decode(latents[:, :32]).sample
    torch.testing.assert_close(without, model.decode(zeros).sample)
    assert not torch.allclose(without, model.decode(latents).sample, atol=1e-3)
    for one in (latents, samples):
        assert pipe.interpolate_latents(one, 3).latents.shape == (3, one.shape[1])
        assert pipe.vary_latents(one[:1], 0, [0.0, 1.0]).latents.shape == (2, one.shape[1])
        assert torch.equal(pipe.shift(one[:1], torch.ones(2, 32))[:, :32], one[:1, :32] + torch.ones(2, 32))
    for count in (31, 33, 97):
        with pytest.raises(ValueError, match=rf"\(B, 32\) are needed, .* or \(B, 96\) .* got \(2, {count}\)"):
            model.decode(torch.zeros(2, count))
        with pytest.raises(ValueError, match=rf"tensor \(B, 32\) or \(B, 96\), .* got \(2, {count}\)"):
            pipe.decode(torch.zeros(2, count))


def test_the_onnx_files_have_them(pictures, tmp_path):
    model = detailed_model(pictures, 64, prior="gaussian")
    export_onnx(model, tmp_path)
    latents = torch.from_numpy(run_onnx(tmp_path / "encoder.onnx", pictures))
    torch.testing.assert_close(latents, model.encode(pictures).latents, rtol=0, atol=1e-4)
    decoded = torch.from_numpy(run_onnx(tmp_path / "decoder.onnx", latents))
    torch.testing.assert_close(decoded, model.reconstruct(pictures), rtol=0, atol=1e-4)
    noise = torch.randn(2, 64, generator=torch.Generator().manual_seed(3))
    drawn = torch.from_numpy(run_onnx(tmp_path / "prior.onnx", noise))
    samples = torch.from_numpy(run_onnx(tmp_path / "decoder.onnx", drawn))
    expected = model.latent_prior.get("gaussian").from_noise(noise.split(32, 1), model.latent_prior)
    torch.testing.assert_close(samples, model.decode(expected).sample.clamp(-1, 1), rtol=0, atol=1e-4)


def test_a_run_fits_them_last_and_may_start_from_a_model_that_has_none(picture_folder, pictures, tmp_path):
    first = tiny_run("vae", picture_folder, tmp_path / "vae")
    first = dataclasses.replace(first, model=first.model | GRID)
    train(first)
    start = {"pretrained_model_name_or_path": str(tmp_path / "vae"), "prior_steps": 0, "save_precision": "fp16"}
    second = tiny_run("vaegan", picture_folder, tmp_path / "vaegan", **start)
    train(dataclasses.replace(second, model=second.model | GRID | {"detail_dim": 64}))
    model = AutoGenerator.from_pretrained(tmp_path / "vaegan")
    assert model.detail.components.square().sum(1).tolist() == pytest.approx([1, 1, 1, 1], rel=1e-2)
    latents = model.encode(pictures).latents
    versions = (latents, latents[:, :32])
    with_details, without = ((model.decode(each).sample - pictures).square().mean() for each in versions)
    assert with_details < without


@pytest.mark.parametrize("detail_dim", [-16, 20, EVERYTHING + 16])
def test_details_that_do_not_fill_the_cells_are_refused(detail_dim):
    with pytest.raises(ValueError, match=f"detail_dim={detail_dim} .* a multiple of its 16 cells up to 3072"):
        tiny_model("vae", **GRID, detail_dim=detail_dim)


def test_latents_without_a_place_have_no_details():
    with pytest.raises(ValueError, match="detail_dim=8 does not suit latent_size=1 "):
        tiny_model("vae", detail_dim=8)


def test_details_fade_where_a_code_changes_the_image(pictures):
    model = detailed_model(pictures, 64)
    fit_prior(model, [pictures], num_updates=30)
    assert model.latent_prior.default_path == "code"
    latents = model.encode(pictures[:1]).latents
    moved = ImagePipeline(model).move(latents, torch.tensor([[0.0, 0.0], [4.0, -4.0]]))
    torch.testing.assert_close(moved[0], latents[0], rtol=1e-3, atol=1e-3)
    assert not torch.equal(moved[1, :32], latents[0, :32])
    kept = moved[1, 32:].norm() / latents[0, 32:].norm()
    assert kept < 0.9
    ends = model.encode(pictures[:2]).latents
    path = model.path(*ends, 5)
    torch.testing.assert_close(path[[0, -1]], ends, rtol=1e-3, atol=1e-3)
    assert path[2, 32:].norm() < ends[:, 32:].mean(0).norm()


def test_details_of_an_image_that_did_not_change_do_not_fade(pictures):
    model = detailed_model(pictures, 64)
    details, changes = model.encode(pictures[:2]).latents[:, 32:], torch.zeros(2, 3, 32, 32)
    assert torch.equal(model.detail.faded(details, changes), details)
    changes[:, :, :8, :8] = 100.0
    faded = model.detail.faded(details, changes).unflatten(1, (-1, 4, 4))
    assert not faded[:, :, 0, 0].any()
    torch.testing.assert_close(faded[:, :, 1:], details.unflatten(1, (-1, 4, 4))[:, :, 1:])
