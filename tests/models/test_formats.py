"""Models that earlier versions published load for ever, and draw what they drew then.

Each folder of `published` is a small model that the code of that time made and saved: `config.json`, weights in half
precision, and `expected.safetensors` with what it drew and reconstructed then. The sizes of a flow were constants
before version 5; those of these models are smaller, and are in their `config.json`.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from safetensors.torch import load_file, save_file

from hf_vae import VAE, AutoGenerator
from hf_vae.models.formats import CHANGES, FORMAT_VERSION


PUBLISHED = sorted((Path(__file__).parent / "published").iterdir())
EARLY_FLOW = "version-2-vae-flow"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def sampled_as_then(model, num_images: int, kind: str) -> torch.Tensor:
    """Samples of the noise that all versions up to 6 drew: each part of it for all images, one after another."""
    generator, prior = torch.Generator().manual_seed(5), model.latent_prior.get(kind)
    scales = zip(prior.noise_sizes, prior.noise_scales, strict=True)
    noise = [scale * torch.randn(num_images, size, generator=generator) for size, scale in scales]
    with torch.no_grad():
        return model.decode(prior.from_noise(noise, model.latent_prior)).sample.clamp(-1, 1)


def assert_draws_what_it_drew(model, folder: Path) -> None:
    expected = load_file(folder / "expected.safetensors")
    images = expected.pop("images")
    for name, value in expected.items():
        if name.startswith("samples"):
            kind = name.split()[1]
            if kind not in model.latent_prior.kinds:
                continue
            found = (
                model.sample(len(value), torch.Generator().manual_seed(5), prior=kind)
                if folder.name >= "version-7"
                else sampled_as_then(model, len(value), kind)
            )
        else:
            found = model.encode(images).latents if name == "latents" else model.reconstruct(images)
        torch.testing.assert_close(
            found.detach(), value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_there_is_a_model_of_every_version():
    versions = {int(folder.name.split("-")[1]) for folder in PUBLISHED}
    assert versions == {*CHANGES, FORMAT_VERSION} == set(range(1, FORMAT_VERSION + 1))


@pytest.mark.parametrize(
    "folder", [each for each in PUBLISHED if each.name != EARLY_FLOW], ids=lambda folder: folder.name
)
def test_a_published_model_draws_what_it_drew(folder, tmp_path, recwarn, capfd):
    model = AutoGenerator.from_pretrained(folder)
    assert not recwarn.list and not capfd.readouterr().err
    assert_draws_what_it_drew(model, folder)
    assert model.config.format_version == FORMAT_VERSION
    again = type(model).from_pretrained(folder, low_cpu_mem_usage=True, torch_dtype=torch.float32, device_map="cpu")
    assert_draws_what_it_drew(again, folder)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["format_version"] == FORMAT_VERSION
    assert_draws_what_it_drew(AutoGenerator.from_pretrained(tmp_path), folder)


def test_the_first_flow_is_refused_and_its_model_loads_without_it():
    (folder,) = (each for each in PUBLISHED if each.name == EARLY_FLOW)
    with pytest.raises(ValueError, match="has a flow of 21 November 2026, .* pass prior='mixture' to load the model"):
        AutoGenerator.from_pretrained(folder)
    for prior in ("mixture", "gaussian"):
        model = AutoGenerator.from_pretrained(folder, prior=prior)
        assert model.config.prior == prior and model.priors == ["mixture", "gaussian", "standard"]
        assert_draws_what_it_drew(model, folder)


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_weights_of_an_earlier_version_are_checked_as_strictly(version, tmp_path):
    folder = next(each for each in PUBLISHED if each.name.startswith(f"version-{version}") and each.name != EARLY_FLOW)
    shutil.copytree(folder, tmp_path / "model")
    weights = load_file(folder / WEIGHTS)
    name = "latent_prior.stds"
    for changed, message in (
        ({key: value for key, value in weights.items() if key != name}, f"{name} is missing"),
        (weights | {"latent_prior.other": torch.zeros(1)}, "'latent_prior.other' is unexpected"),
        (weights | {name: torch.zeros(3, 3)}, rf"{name} has shape \(3, 3\) instead of"),
        (weights | {name: torch.full_like(weights[name], torch.nan)}, f"{name} is not finite"),
    ):
        save_file(changed, tmp_path / "model" / WEIGHTS)
        with pytest.raises(ValueError, match=message):
            AutoGenerator.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["latent_prior.rest", "latent_prior.mixture.weights", "latent_prior.flow.mean"])
def test_nothing_may_be_missing_from_weights_of_today(name, tmp_path):
    tiny_model("vae", prior="flow").save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    del weights[name]
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=f"{name} is missing"):
        VAE.from_pretrained(tmp_path)


def test_a_newer_format_is_refused_with_the_way_out(tmp_path):
    tiny_model("vae").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for version, message in (
        (
            FORMAT_VERSION + 1,
            f"has format_version {FORMAT_VERSION + 1}, and .* up to {FORMAT_VERSION}: upgrade hf_vae",
        ),
        ("5", "format_version='5' is not possible; it must be a whole number from 1"),
        (0, "format_version=0 is not possible"),
        (True, "format_version=True is not possible"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | {"format_version": version}))
        for load in (AutoGenerator.from_pretrained, VAE.from_pretrained):
            with pytest.raises(ValueError, match=message):
                load(tmp_path)


def test_weights_of_a_checkpoint_of_an_earlier_version_can_be_resumed_from():
    (folder,) = (each for each in PUBLISHED if each.name == "version-4-vae-flow")
    model = AutoGenerator.from_pretrained(folder)
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    for value in model.state_dict().values():
        value.zero_()
    model.load_state_dict(load_file(folder / WEIGHTS))
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
