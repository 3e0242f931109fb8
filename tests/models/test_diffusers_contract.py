"""What users of diffusers expect of a model, for every family: the contract of its own model test suite, and the
pipeline that `DiffusionPipeline` makes of a folder."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model
from diffusers import AutoModel, DiffusionPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils import BaseOutput
from safetensors.torch import load_file

from hf_vae import FAMILIES, AutoGenerator
from hf_vae.models.diffusers_pipeline import ImageGenerationPipeline
from hf_vae.models.formats import LoadError


ENCODERS = [name for name, family in FAMILIES.items() if family.model.has_encoder]
WITH_POSTERIOR = ["vae", "vaegan"]
GRID = {"latent_size": 7, "latent_dim": 98}


def inputs_of(model) -> torch.Tensor:
    shape = (2, 3, 28, 28) if model.has_encoder else (2, model.config.latent_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_outputs_are_tuples_without_return_dict(family):
    model = tiny_model(family)
    inputs = inputs_of(model)
    output, values = model(inputs), model(inputs, return_dict=False)
    assert isinstance(output, BaseOutput) and isinstance(values, tuple)
    assert output.sample.shape == (2, 3, 28, 28) and torch.equal(output.sample, values[0])
    assert all(torch.equal(*pair) for pair in zip(output.to_tuple(), values, strict=True))
    latents = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    decoded = model.decode(latents, return_dict=False)
    assert len(decoded) == 1 and torch.equal(decoded[0], model.decode(latents).sample)


@pytest.mark.parametrize("family", ENCODERS)
def test_the_posterior_is_that_of_diffusers(family):
    model = tiny_model(family, **GRID)
    images = inputs_of(model)
    output, (first, *others) = model.encode(images), model.encode(images, return_dict=False)
    assert not others
    if family not in WITH_POSTERIOR:
        assert torch.equal(first, output.latents)
        with pytest.raises(AttributeError, match="no posterior"):
            _ = output.latent_dist
        return
    posterior = output.latent_dist
    assert isinstance(posterior, DiagonalGaussianDistribution) and torch.equal(first.mode(), posterior.mode())
    assert posterior.mode().shape == (2, 2, 7, 7) == (2, *model.latent_shape)
    torch.testing.assert_close(posterior.mode().flatten(1), output.latents)
    draws = [posterior.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    expected = 0.5 * (output.latents.square() + output.logvar.exp() - 1 - output.logvar).sum(1)
    torch.testing.assert_close(posterior.kl(), expected)


@pytest.mark.parametrize("family", WITH_POSTERIOR)
def test_latents_on_their_grid_are_decoded_as_flat_ones(family):
    for sizes in (GRID, {"detail_dim": 49 * 2, **GRID}, {}):
        model = tiny_model(family, **sizes)
        draw = model.encode(inputs_of(model)).latent_dist.sample(torch.Generator().manual_seed(0))
        assert draw.shape == (2, *model.latent_shape)
        torch.testing.assert_close(model.decode(draw).sample, model.decode(draw.flatten(1)).sample)
        with pytest.raises(ValueError, match=r"are needed, or on their grid .*; got \(2, 5\)"):
            model.decode(torch.zeros(2, 5))


@pytest.mark.parametrize("family", ENCODERS)
def test_the_configuration_normalises_the_latents(family, tmp_path):
    model = tiny_model(family, **GRID)
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.5, 3.0])[:, None, None] * torch.randn(4000, 2, 7, 7, generator=generator)
    latents = spread + torch.tensor([-1.0, 2.0])[:, None, None]
    model.latent_prior.fit(latents.flatten(1))
    model.save_pretrained(tmp_path)
    config = AutoGenerator.from_pretrained(tmp_path).config
    mean, std = (torch.tensor(config[name]).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std"))
    normalised = (latents - mean) / std * config["scaling_factor"]
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(2), atol=0.01, rtol=0)
    torch.testing.assert_close(normalised.std((0, 2, 3)), torch.ones(2), atol=0.01, rtol=0)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["latents_mean"] == config["latents_mean"]
    again = type(model).from_config(config)  # they are no arguments
    assert again.latent_shape == (2, 7, 7)


def test_a_model_of_an_earlier_version_gets_these_numbers_too(published_models, tmp_path):
    folder = Path(__file__).parent / "published" / "version-6-vae-code"
    assert "latents_std" not in json.loads((folder / "config.json").read_text())
    model = AutoGenerator.from_pretrained(folder)
    assert len(model.config["latents_std"]) == model.latent_shape[0]


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_weights_in_several_files_are_loaded(family, variant, tmp_path):
    model = tiny_model(family)
    model.save_pretrained(tmp_path, max_shard_size="20KB", variant=variant)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    for options in ({}, {"low_cpu_mem_usage": True}):
        loaded = AutoGenerator.from_pretrained(tmp_path, variant=variant, **options)
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    model.save_pretrained(tmp_path, variant=variant)  # in one again
    loaded = AutoGenerator.from_pretrained(tmp_path, variant=variant)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert not list(tmp_path.glob("*.index*"))


def spoil_shard(folder: Path, how: str) -> None:
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    parts = sorted(set(content["weight_map"].values()))
    if how == "missing":
        (folder / parts[1]).unlink()
    elif how == "elsewhere":
        other = dict(zip(parts, parts[1:] + parts[:1], strict=True))
        content["weight_map"] = {name: other[place] for name, place in content["weight_map"].items()}
    elif how == "parent":
        content["weight_map"] = {name: f"../{place}" for name, place in content["weight_map"].items()}
    elif how == "cut":
        (folder / parts[1]).write_bytes((folder / parts[1]).read_bytes()[:-100])
    else:
        content = ["no", "index"]
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "Error no file named diffusion_pytorch_model-00002-of-.* found in directory"),
        ("elsewhere", "does not have the weights of the model .* where the index does not have it"),
        ("parent", "names files that save_pretrained does not write"),
        ("cut", "is damaged"),
        ("list", "is not the index of a model that is split over files"),
    ],
)
def test_several_files_are_checked_like_one(how, message, tmp_path):
    tiny_model("vae").save_pretrained(tmp_path, max_shard_size="20KB")
    spoil_shard(tmp_path, how)
    with pytest.raises(LoadError, match=message):
        AutoGenerator.from_pretrained(tmp_path)


def test_what_cannot_be_loaded_is_an_error_of_both_kinds(tmp_path):
    tiny_model("vae").save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    for kind in (ValueError, OSError):
        for loader in (AutoGenerator, FAMILIES["vae"].model):
            with pytest.raises(
                kind, match="^Error no file named diffusion_pytorch_model.safetensors found in directory"
            ):
                loader.from_pretrained(tmp_path)


def test_the_arguments_of_diffusers_are_known(family, tmp_path):
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float16, low_cpu_mem_usage=True, use_safetensors=None)
    assert loaded.dtype == torch.float16
    loaded, information = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not information["missing_keys"] and not information["unexpected_keys"]
    assert type(model).from_pretrained(tmp_path, device_map="auto").device.type in ("cpu", "cuda", "mps", "xpu")


def test_modules_may_stay_in_single_precision(family, tmp_path, monkeypatch):
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(type(model), "_keep_in_fp32_modules", ["latent_prior"])
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.latent_prior.mean.dtype == torch.float32
    assert next(loaded.decoder.parameters()).dtype == torch.bfloat16


def test_a_copy_is_a_model_of_its_own(family):
    model = tiny_model(family)
    twin = copy.deepcopy(model)
    assert twin.config == model.config
    assert torch.equal(*(each.sample(2, torch.Generator().manual_seed(0)) for each in (model, twin)))
    with torch.no_grad():
        next(twin.decoder.parameters()).add_(1)
    assert not torch.equal(next(twin.decoder.parameters()), next(model.decoder.parameters()))


def test_checkpointing_keeps_the_gradients(family):
    model = tiny_model(family).train()
    inputs, gradients = inputs_of(model), []
    for enable in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        enable()
        model.zero_grad()
        model(inputs).sample.square().mean().backward()
        gradients.append(
            {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        )
    assert model.is_gradient_checkpointing
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_checkpointing_saves_what_is_kept_for_the_backward_pass(family):
    model = tiny_model(family, width=32, max_width=32).train()
    sizes = []
    for enable in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        enable()
        kept: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda saved, kept=kept: kept.update({saved.data_ptr(): saved.nbytes}) or saved, lambda saved: saved
        ):
            model(inputs_of(model))
        sizes.append(sum(kept.values()))
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.slow
def test_a_compiled_model_computes_the_same(family):
    model = tiny_model(family)
    inputs = inputs_of(model)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model)(inputs).sample, model(inputs).sample, rtol=1e-4, atol=1e-4)


def test_diffusers_makes_a_pipeline_of_a_folder(family, tmp_path):
    model = tiny_model(family, output_size=20)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(f"{tmp_path}/model")
    pipe = DiffusionPipeline.from_pretrained(f"{tmp_path}/model", trust_remote_code=True)
    ours = ImageGenerationPipeline.from_pretrained(tmp_path / "model")
    for each in (pipe, ours):
        generator = torch.Generator().manual_seed(3)
        images = each(batch_size=4, generator=generator).images
        assert [image.size for image in images] == [(20, 20)] * 4
        values = each(batch_size=4, generator=generator.manual_seed(3), output_type="pt", return_dict=False)[0]
        expected = model.sample(4, generator.manual_seed(3)) / 2 + 0.5
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4)
        array = each(batch_size=4, generator=generator.manual_seed(3), output_type="np").images
        assert array.shape == (4, 28, 28, 3) and np.allclose(array.transpose(0, 3, 1, 2), values, atol=1e-6)
        with pytest.raises(ValueError, match="output_type='jpg' is not possible; choose pil, np or pt"):
            each(output_type="jpg")
    pipe.to(torch.float64)
    assert pipe.dtype == torch.float64
    pipe.to(torch.float32).save_pretrained(tmp_path / "again")
    assert {file.name for file in (tmp_path / "again").iterdir()} == {
        file.name for file in (tmp_path / "model").iterdir()
    }
    weights = [load_file(tmp_path / name / "diffusion_pytorch_model.safetensors") for name in ("model", "again")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert DiffusionPipeline.from_pretrained(f"{tmp_path}/again", trust_remote_code=True)().images
    assert AutoModel.from_pretrained(f"{tmp_path}/again", trust_remote_code=True).config.latent_dim == 8


def test_using_a_model_does_not_import_pipelines():
    code = "import sys, hf_vae.models.auto; sys.exit('diffusers.pipelines.pipeline_utils' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
