"""Sliders of a small model that was trained: they change what is in the image, not only its light."""

import pytest
import torch
from conftest import tiny_config
from PIL import Image, ImageDraw

from hf_vae import ImagePipeline
from hf_vae.config import DataConfig, RunConfig, TrainConfig
from hf_vae.evaluation.metrics import structure_change
from hf_vae.families import FAMILIES
from hf_vae.training.loop import train


SIZE = 28


def draw_face(number: int) -> Image.Image:
    """A grey head with a mouth, somewhere between left and right, in light of some strength."""
    place, light = torch.rand(2, generator=torch.Generator().manual_seed(number)).tolist()
    picture = Image.new("RGB", (SIZE, SIZE), (int(40 + 80 * light),) * 3)
    draw, x = ImageDraw.Draw(picture), 7 + 14 * place
    draw.ellipse((x - 6, 6, x + 6, 22), fill=(int(120 + 80 * light),) * 3)
    draw.ellipse((x - 3, 16, x + 3, 19), fill=(20, 20, 20))
    return picture


@pytest.mark.parametrize(
    ("prior", "latents", "prior_steps"),
    [
        ("gaussian", {}, 1),
        pytest.param("code", {"latent_size": 7, "latent_dim": 98}, 200, marks=pytest.mark.slow),
    ],
)
def test_a_slider_of_a_trained_model_moves_things(prior, latents, prior_steps, tmp_path):
    """From -2 to +2, a head moves as far as two samples are apart. What changes the light alone scores about 0."""
    faces = tmp_path / "faces"
    faces.mkdir()
    for number in range(256):
        draw_face(number).save(faces / f"{number}.png")
    settings = {"train_batch_size": 32, "max_train_steps": 120, "learning_rate": 3e-3, "prior_steps": prior_steps}
    run = RunConfig(
        "vae",
        tiny_config("vae", prior=prior, **latents),
        FAMILIES["vae"].objective(),
        DataConfig(train_data_dir=str(faces)),
        TrainConfig(output_dir=str(tmp_path / "run"), **settings),
    )
    pipe = ImagePipeline.from_pretrained(str(train(run)))
    samples = pipe.sample(64, seed=0)
    between = structure_change(samples.tensors, samples.tensors.roll(1, 0)).mean()
    strengths = []
    for component in torch.eye(len(pipe.model.latent_prior.sliders.stds))[:3]:
        ends = [pipe.decode(pipe.move(samples.latents, reach * component.expand(64, -1))) for reach in (-2, 2)]
        strengths.append((structure_change(ends[0].tensors, ends[1].tensors).mean() / between).item())
    assert max(strengths) > 1, strengths
    assert min(strengths) > 0.4, strengths
