"""Published weights in models of ours."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY
from torch import nn

from hf_vae import VAE
from hf_vae.commands.main import convert as convert_command
from hf_vae.publishing.convert import convert


WIDTHS = (4, 6, 8, 10, 12)
Z = 5


class PublishedVAE(nn.Module):
    """The published network with its own names, narrower."""

    def __init__(self):
        super().__init__()
        channels = (3, *WIDTHS)
        for number in range(1, 6):
            self.add_module(f"conv{number}", nn.Conv2d(channels[number - 1], channels[number], 4, 2, 1))
            self.add_module(f"conv{number}_bn", nn.BatchNorm2d(channels[number]))
        self.fc1 = nn.Linear(WIDTHS[-1] * 16, Z)
        self.fc2 = nn.Linear(WIDTHS[-1] * 16, Z)
        self.d1 = nn.Linear(Z, WIDTHS[-1] * 16)
        for number in range(1, 6):
            layer = nn.ConvTranspose2d(channels[6 - number], channels[5 - number], 4, 2, 1)
            self.add_module(f"deconv{number}", layer)
            if number < 5:
                self.add_module(f"deconv{number}_bn", nn.BatchNorm2d(channels[5 - number]))

    def encode(self, x):
        for number in range(1, 6):
            x = F.relu(getattr(self, f"conv{number}_bn")(getattr(self, f"conv{number}")(x)))
        x = x.view(x.shape[0], -1)
        return self.fc1(x), self.fc2(x)

    def decode(self, z):
        x = F.leaky_relu(self.d1(z).view(-1, WIDTHS[-1], 4, 4), 0.2)
        for number in range(1, 5):
            x = F.leaky_relu(getattr(self, f"deconv{number}_bn")(getattr(self, f"deconv{number}")(x)), 0.2)
        return torch.tanh(self.deconv5(x))


@pytest.fixture
def published(tmp_path):
    torch.manual_seed(0)
    network = PublishedVAE()
    network.encode(torch.randn(16, 3, 128, 128))  # moves the running statistics
    network.decode(torch.randn(16, Z))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return network.eval()


@pytest.fixture
def recipe(tmp_path):
    """The shipped recipe, as narrow as the network above."""
    text = (REPOSITORY / "model_cards" / "recipes" / "simpsons-vae-128.json").read_text()
    sections = json.loads(text)
    narrow = dict(zip((128, 256, 512, 1024, 2048), WIDTHS, strict=True))
    for lines in (sections["model"]["encoder_layers"], sections["model"]["decoder_layers"]):
        for place, line in enumerate(lines):
            words = line.split()
            if words[0] in ("conv", "convt", "view"):
                words[1] = str(narrow.get(int(words[1]), words[1]))
            if words[0] == "dense":
                words[1] = str(WIDTHS[-1] * 16)
            lines[place] = " ".join(words)
    sections["model"]["latent_dim"] = Z
    (tmp_path / "recipe.json").write_text(json.dumps(sections))
    return tmp_path / "recipe.json"


@torch.no_grad()
def test_a_converted_model_gives_the_published_output(published, recipe, tmp_path):
    convert_command(tmp_path / "weights.pth", recipe, tmp_path / "model")
    model = VAE.from_pretrained(tmp_path / "model")
    images = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, logvar = published.encode(images)
    encoded = model.encode(images)
    torch.testing.assert_close(encoded.latents, mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoded.logvar, logvar, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.decode(mean).sample, published.decode(mean), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="holds a model"):
        convert_command(tmp_path / "weights.pth", recipe, tmp_path / "model")


def spoil(state: dict, how: str) -> dict:
    if how == "missing":
        del state["conv3_bn.weight"]
    elif how == "extra":
        state["conv9.weight"] = torch.zeros(1)
    elif how == "shape":
        state["d1.weight"] = torch.zeros(3, 3)
    elif how == "half":
        del state["fc2.weight"]
    return state


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("missing", "lack encoder.trunk.7.weight, which the recipe has"),
        ("extra", "conv9.weight; the recipe has no layer for it"),
        ("shape", r"decoder.trunk.0.weight have shape \(3, 3\); the recipe has \(192, 5\)"),
        ("half", "lack encoder.trunk.16.weight, which the recipe has"),
    ],
)
def test_weights_that_do_not_suit_the_recipe_are_refused_by_name(how, named, published, recipe, tmp_path):
    torch.save(spoil(published.state_dict(), how), tmp_path / "spoiled.pth")
    with pytest.raises(ValueError, match=named):
        convert(tmp_path / "spoiled.pth", recipe)


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.fault("pickles to hf-vae convert", "refused with one error, never executed")
@pytest.mark.parametrize("content", [Harmful(), {"conv1.weight": "text"}, [1, 2], b"no pickle"])
def test_what_is_no_state_dict_is_refused_and_never_executed(content, recipe, tmp_path, capsys):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(
        ValueError, match=r"file.pth (cannot be read as a state dict of tensors alone|holds a \w+, not a state dict)"
    ):
        convert(tmp_path / "file.pth", recipe)
    assert "executed" not in capsys.readouterr().out


def test_a_recipe_without_listed_layers_is_refused(published, tmp_path):
    (tmp_path / "plain.json").write_text(json.dumps({"family": "vae"}))
    with pytest.raises(ValueError, match="is not a recipe of a VAE that lists its layers"):
        convert(tmp_path / "weights.pth", tmp_path / "plain.json")
