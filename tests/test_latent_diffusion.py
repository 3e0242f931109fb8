"""docs/latent-diffusion.md: its script runs as it stands there, with few images, few steps and a tiny model.

What makes it quick are its settings: the lines that assign them are replaced, and nothing else.
"""

import re
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, tiny_model
from diffusers import UNet2DModel
from PIL import Image

from hf_vae import AutoGenerator


PAGE = REPOSITORY / "docs" / "latent-diffusion.md"
SETTINGS = {
    "model_path, image_folder": '"model", "photos"',
    "num_steps, batch_size, learning_rate": "8, 8, 2e-4",
    "num_images, num_inference_steps": "4, 3",
}


def script(settings: dict[str, str]) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for names, values in settings.items():
        code, count = re.subn(rf"^{names} = .*", f"{names} = {values}", code, flags=re.MULTILINE)
        assert count == 1, names
    return code


@pytest.fixture
def place(tmp_path, picture_folder, monkeypatch) -> Path:
    (tmp_path / "photos").symlink_to(picture_folder)
    (tmp_path / "model_cards").symlink_to(REPOSITORY / "model_cards")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("family", ["vae", "vaegan"])
def test_a_diffusion_model_is_trained_on_latents_and_sampled(family, place):
    model = tiny_model(family, image_size=32, latent_dim=4 * 8 * 8, latent_size=8)
    model.latent_prior.fit(3 + 2 * torch.randn(500, 256, generator=torch.Generator().manual_seed(0)))
    model.save_pretrained(place / "model")
    names: dict = {}
    exec(compile(script(SETTINGS), PAGE.name, "exec"), names)
    assert names["latents"].shape == (36, 4, 8, 8)  # of the 40 images, a tenth is held out
    assert names["samples"].shape == (4, 4, 8, 8) and names["loss"].isfinite()
    assert UNet2DModel.from_pretrained("unet").config.in_channels == 4
    restored = names["samples"] * 2 + 3  # the statistics of the fitted latents
    torch.testing.assert_close(names["generated"], model.decode(restored).sample, atol=0.05, rtol=0.05)
    assert Image.open("samples.png").size == (4 * 32, 32)


@pytest.mark.slow
def test_it_learns_with_a_shipped_model(place):
    settings = SETTINGS | {
        "model_path, image_folder": '"model_cards/cats-vae", "photos"',
        "num_steps, batch_size, learning_rate": "200, 16, 1e-3",
    }
    code = script(settings).replace("    ema.step", "    losses.append(loss.item())\n    ema.step")
    losses: list[float] = []
    exec(compile(code, PAGE.name, "exec"), {"losses": losses})
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_its_table_is_that_of_the_shipped_models():
    rows = re.findall(
        r"^\| (.*?) \| (\d+)x\d+ \| (\d+) channels on (\d+)x(\d+) cells \|$", PAGE.read_text(), re.MULTILINE
    )
    assert rows
    for models, size, *shape in rows:
        for name in models.split(", "):
            model = AutoGenerator.from_pretrained(REPOSITORY / "model_cards" / name)
            assert model.config.image_size == int(size) and model.latent_shape == tuple(map(int, shape))
