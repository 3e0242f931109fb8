"""A family that is defined here and registered goes the whole way, from flags to the Space: nothing else changes."""

import json
from dataclasses import dataclass

import pytest
import torch
import tyro
from conftest import TINY, draw_picture, reset_accelerate
from diffusers.configuration_utils import register_to_config

from hf_vae import AutoGenerator, ImagePipeline
from hf_vae.config import DataConfig, RunConfig, TrainConfig
from hf_vae.evaluation.evaluate import evaluate_folder
from hf_vae.families import FAMILIES, Family, new_model
from hf_vae.flags import FLAG_STYLE, flags_to_run, run_flags_type
from hf_vae.models.base import EncoderOutput, ImageGenerator
from hf_vae.models.blocks import Decoder, Encoder
from hf_vae.objectives import Logs, Networks, Objective, losses
from hf_vae.objectives.batch import Batch
from hf_vae.publishing.cards import write_card
from hf_vae.training.loop import train
from published import open_models
from tabs import generate


class LinearCode(ImageGenerator):
    """An autoencoder whose latents are bounded.

    Args:
        image_size: Edge in pixels.
        image_channels: 1 or 3.
        latent_dim: Number of latents.
        width: Channels at the finest scale.
        max_width: Most channels.
        block: "residual" or "plain".
        output_size: Edge of the pictures that people get.
        prior: What samples are drawn from.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 128,
        width: int = 32,
        max_width: int = 192,
        block: str = "residual",
        output_size: int | None = None,
        prior: str = "gaussian",
    ):
        super().__init__(latent_dim)
        self.encoder = Encoder(image_size, image_channels, latent_dim, 1, width, max_width, block)
        self.decoder = Decoder(image_size, image_channels, latent_dim, 1, width, max_width, block)

    def encode(self, images: torch.Tensor) -> EncoderOutput:
        return EncoderOutput(latents=self.encoder(images).tanh())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(images).latents).sample


@dataclass(frozen=True)
class LinearCodeObjective(Objective):
    """Squared error.

    Args:
        error_weight: Its weight.
    """

    error_weight: float = 1.0

    def model_step(self, networks: Networks, batch: Batch) -> tuple[torch.Tensor, Logs]:
        loss = self.error_weight * losses.squared_error(networks["model"](batch.images), batch.images).mean()
        return loss, {"loss": loss.detach()}


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(FAMILIES, "linear-code", Family("Linear code", LinearCode, LinearCodeObjective))


def test_a_line_in_the_registry_is_all_that_a_new_family_needs(registered, picture_folder, tmp_path):
    flags_type = run_flags_type("linear-code", LinearCode, LinearCodeObjective)
    arguments = ["--train_data_dir", str(picture_folder), "--output_dir", str(tmp_path / "faces-linear-code")]
    arguments += [f"--{name}={value}" for name, value in TINY.items()]
    arguments += ["--error_weight", "0.5", "--train_batch_size", "4", "--checkpointing_steps", "2"]
    for more in (["--max_train_steps", "2"], ["--max_train_steps", "4", "--resume_from_checkpoint", "latest"]):
        run = flags_to_run("linear-code", tyro.cli(flags_type, args=[*arguments, *more], **FLAG_STYLE))
        folder = train(run)
        reset_accelerate()
    assert json.loads((folder / "training.json").read_text())["steps"] == 4
    evaluate_folder(folder, run.data)
    write_card(folder)
    card = (folder / "README.md").read_text()
    assert "train_accelerate.py linear-code" in card and "An autoencoder whose latents are bounded." in card
    assert type(AutoGenerator.from_pretrained(folder)) is LinearCode
    assert len(ImagePipeline.from_pretrained(folder).sample(3, seed=0).images) == 3

    models = open_models({folder.name: folder}).models
    assert models[folder.name].has_encoder
    assert len(generate.draw(models, folder.name, count=2, seed=0, temperature=1.0, prior="own")[0]) == 2
    assert models[folder.name].pipeline.reconstruct(draw_picture(0)).images[0].size == (28, 28)


def test_a_prior_that_does_not_exist_is_refused_before_training(registered):
    """A family whose signature takes any text for it, as this one's does."""
    run = RunConfig("linear-code", TINY | {"prior": "gausian"}, LinearCodeObjective(), DataConfig(), TrainConfig())
    with pytest.raises(ValueError, match="prior=gausian is not possible; choose one of code, flow, mixture"):
        new_model(run)
