"""Every system that came before, as a recipe: its layers are as many numbers as were published, and it trains."""

import json

import pytest
import torch
from conftest import REPOSITORY

from hf_vae.families import new_model
from hf_vae.flags import run_from_recipe
from hf_vae.objectives.batch import Batch
from hf_vae.training.state import num_parameters


RECIPES = {path.stem: path for path in sorted((REPOSITORY / "model_cards" / "recipes").glob("*.json"))}


def conv(before: int, after: int, kernel: int, bias: bool = True) -> int:
    """The numbers of a convolution, transposed or not."""
    return before * after * kernel**2 + bias * after


def dense(before: int, after: int, bias: bool = True) -> int:
    return before * after + bias * after


def norms(*channels: int) -> int:
    return 2 * sum(channels)


LFW_VAE = (
    norms(3, 4, 8, 16) + conv(3, 4, 4) + conv(4, 8, 4) + conv(8, 16, 4) + conv(16, 32, 4) + 2 * dense(512, 500)
    + dense(500, 512) + conv(32, 16, 4) + conv(16, 8, 4) + conv(8, 4, 4) + conv(4, 3, 4)
)  # fmt: skip
PUBLISHED = {
    "cats-vae-2021": {
        "model": conv(3, 32, 5) + conv(32, 64, 5) + conv(64, 128, 5) + conv(128, 256, 5) + conv(256, 512, 5)
        + norms(32, 64, 128, 256, 512) + dense(8192, 1024) + norms(1024) + 2 * dense(1024, 512)
        + dense(512, 1024) + norms(1024) + dense(1024, 8192) + norms(256, 128, 64, 32, 3)
        + conv(512, 256, 5) + conv(256, 128, 5) + conv(128, 64, 5) + conv(64, 32, 5) + conv(32, 3, 5)
    },
    "simpsons-vae-128": {
        "model": conv(3, 128, 4) + conv(128, 256, 4) + conv(256, 512, 4) + conv(512, 1024, 4) + conv(1024, 2048, 4)
        + norms(128, 256, 512, 1024, 2048) + 2 * dense(2048 * 4 * 4, 512) + dense(512, 2048 * 4 * 4)
        + conv(2048, 1024, 4) + conv(1024, 512, 4) + conv(512, 256, 4) + conv(256, 128, 4) + conv(128, 3, 4)
        + norms(1024, 512, 256, 128)
    },
    "cakes-vae-100": {
        "model": conv(1, 32, 4) + conv(32, 64, 4) + conv(64, 128, 5) + 2 * dense(128 * 13 * 13, 150)
        + dense(150, 40_000) + conv(64, 32, 4) + conv(32, 1, 4)
    },
    "utkface-vae-128": {
        "model": conv(3, 32, 3) + conv(32, 64, 3) + conv(64, 128, 5) + conv(128, 128, 5) + dense(8192, 8192)
        + 2 * dense(8192, 2048) + dense(2048, 8192) + conv(128, 128, 5) + conv(128, 64, 5) + conv(64, 32, 3)
        + conv(32, 3, 3)
    },
    "lfw-ae": {
        "model": conv(3, 8, 4) + conv(8, 16, 4) + conv(16, 32, 4) + conv(32, 16, 4) + conv(16, 8, 4) + conv(8, 3, 4)
    },
    "lfw-vae-kl-0.2": {"model": LFW_VAE},
    "lfw-vae-kl-0.1": {"model": LFW_VAE},
    "lfw-vae-kl-0.01": {"model": LFW_VAE},
    "lfw-dcgan": {
        "model": conv(100, 512, 4, bias=False) + conv(512, 256, 4, bias=False) + conv(256, 128, 4, bias=False)
        + conv(128, 64, 4, bias=False) + conv(64, 3, 4, bias=False) + norms(512, 256, 128, 64),
        "discriminator": conv(3, 64, 4, bias=False) + conv(64, 128, 4, bias=False) + conv(128, 256, 4, bias=False)
        + conv(256, 512, 4, bias=False) + conv(512, 1, 4, bias=False) + norms(128, 256, 512),
    },
    "lfw-vaegan-2019": {
        "model": LFW_VAE,
        "discriminator": norms(3, 4, 8, 16, 512) + conv(3, 4, 4) + conv(4, 8, 4) + conv(8, 16, 4) + conv(16, 32, 4)
        + dense(512, 32) + dense(32, 1),
    },
}  # fmt: skip
# counted in what the systems print or in their code, where there is one
STATED = {
    "cats-vae-2021": 27_078_665,
    "simpsons-vae-128": 139_524_355,
    "utkface-vae-128": 118_728_963,
    "lfw-ae": 21_331,
    "lfw-vae-kl-0.2": 791_553,
    "lfw-dcgan": 3_576_704,
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_published_layers_and_trains(name):
    torch.manual_seed(0)
    sections = json.loads(RECIPES[name].read_text())
    run = run_from_recipe(sections)
    model = new_model(run)
    networks = {key: network.train() for key, network in run.objective.networks(model).items()}
    assert {key: num_parameters(network) for key, network in networks.items()} == PUBLISHED[name]
    assert PUBLISHED[name]["model"] == STATED.get(name, PUBLISHED[name]["model"])
    optimizers = {key: torch.optim.SGD(network.parameters(), 1e-4) for key, network in networks.items()}
    images = torch.rand(4, run.model.get("image_channels", 3), *[run.model["image_size"]] * 2) * 2 - 1
    for number in range(2):
        for trained, step in run.objective.steps.items():
            for key, network in networks.items():
                network.requires_grad_(key == trained)
            loss, _ = step(networks, Batch(images, number=number))
            loss.backward()
            assert loss.isfinite()
            optimizers[trained].step()
            optimizers[trained].zero_grad()
    samples = model.eval().sample(2, prior="standard")
    assert samples.shape == (2, *images.shape[1:]) and samples.isfinite().all()


def test_every_recipe_says_what_was_published_and_what_is_ours():
    assert set(RECIPES) == set(PUBLISHED)
    for path in RECIPES.values():
        sections = json.loads(path.read_text())
        assert "ublished" in " ".join(sections["notes"])
        assert sections["data"]["data_notes"]


QUARTER = {"utkface-vae-128": 16_865_091, "simpsons-vae-128": 18_170_179}


def quarter_of(layer: str) -> str:
    """A line of a layer list with a quarter of the channels."""
    kind, *numbers = layer.split()
    if kind in ("conv", "convt", "dense", "view") and numbers[0] != "3":  # the colours of an image stay
        numbers[0] = str(int(numbers[0]) // 4)
    return " ".join([kind, *numbers])


@pytest.mark.parametrize("name", ["utkface-vae-128", "simpsons-vae-128"])
def test_a_recipe_of_a_quarter_of_the_width_changes_nothing_else(name):
    path = RECIPES[name].parent / "quarter-width" / f"{name}-quarter.json"
    full, quarter = (json.loads(each.read_text()) for each in (RECIPES[name], path))
    for layers in ("encoder_layers", "decoder_layers"):
        full["model"][layers] = [quarter_of(layer) for layer in full["model"][layers]]
    full["train"]["output_dir"] += "-quarter"
    assert "with a quarter of the channels" in quarter["notes"][0]
    assert {**quarter, "notes": full["notes"]} == full
    assert num_parameters(new_model(run_from_recipe(quarter))) == QUARTER[name]
