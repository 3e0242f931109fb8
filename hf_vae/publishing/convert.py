"""Weights of other published VAEs to models of this package."""

import json
from pathlib import Path

import torch
from torch import nn

from ..flags import run_from_recipe
from ..models import VAE


def convert(weights: Path, recipe: Path) -> VAE:
    """The VAE of a recipe with the weights of a published state dict, in evaluation mode.

    The state dict names its convolutions `conv1`, ... and `deconv1`, ... in order, their BatchNorms `conv1_bn`, ...,
    the dense layers of mean and log-variance `fc1` and `fc2`, and the dense layer of the decoder `d1`.

    Raises:
        ValueError: If a file cannot be read, contains more than tensors, or does not match the recipe. The message
            names the weights that are missing, unknown or of another shape.
    """
    try:
        run = run_from_recipe(json.loads(recipe.read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{recipe} cannot be read as a recipe: {error}") from error
    if run.family != "vae" or not run.model["encoder_layers"]:
        raise ValueError(f"{recipe} is not a recipe of a VAE that lists its layers; only those can be converted.")
    try:
        published = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # the kind depends on the damage
        raise ValueError(f"{weights} cannot be read as a state dict of tensors alone: {error}") from error
    if not isinstance(published, dict) or not all(isinstance(value, torch.Tensor) for value in published.values()):
        raise ValueError(f"{weights} holds a {type(published).__name__}, not a state dict: a name for each tensor.")
    model = VAE(**run.model).eval()
    model.load_state_dict(_renamed(published, model), strict=False)
    return model


def _renamed(published: dict[str, torch.Tensor], model: VAE) -> dict[str, torch.Tensor]:
    """The published tensors under their names in `model`. They are all of its weights."""
    names = {
        **_names_in_order("encoder", model.encoder, "conv"),
        **_names_in_order("decoder", model.decoder, "deconv"),
    }
    dense = {part: _dense_layer(part, getattr(model, part)) for part in ("encoder", "decoder")}
    found = {}
    for theirs, value in published.items():
        layer, _, kind = theirs.rpartition(".")
        if layer in names:
            found[f"{names[layer]}.{kind}"] = value
        elif layer == "d1":
            found[f"{dense['decoder']}.{kind}"] = value
        elif layer != "fc1" and layer != "fc2":
            raise ValueError(f"The weights contain {theirs}; the recipe has no layer for it.")
    for kind in ("weight", "bias"):
        halves = [published[f"{name}.{kind}"] for name in ("fc1", "fc2") if f"{name}.{kind}" in published]
        if len(halves) == 2:
            found[f"{dense['encoder']}.{kind}"] = torch.cat(halves)  # mean, then log-variance
    expected = {name: value for name, value in model.state_dict().items() if not name.startswith("latent_prior.")}
    if missing := sorted(set(expected) - set(found)):
        raise ValueError(f"The weights lack {', '.join(missing)}, which the recipe has.")
    for name, value in found.items():
        if name not in expected or value.shape != expected[name].shape:
            ours = tuple(expected[name].shape) if name in expected else "no such layer"
            raise ValueError(f"The weights of {name} have shape {tuple(value.shape)}; the recipe has {ours}.")
    return found


def _names_in_order(part: str, network: nn.Module, published: str) -> dict[str, str]:
    """Published names of convolutions and their BatchNorms to the names here."""
    names, number = {}, 0
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            number += 1
            names[f"{published}{number}"] = f"{part}.{name}"
        elif isinstance(layer, nn.BatchNorm2d):
            names[f"{published}{number}_bn"] = f"{part}.{name}"
    return names


def _dense_layer(part: str, network: nn.Module) -> str:
    name = next((name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)), None)
    if name is None:
        raise ValueError(f"The recipe's {part} has no dense layer, but fc1, fc2 and d1 are dense layers.")
    return f"{part}.{name}"
