"""What a run would be, without running it."""

import json

import torch
from torch import nn

from .batches import Batch
from .config import RunConfig
from .families import new_model


def describe(run: RunConfig) -> str:
    """The resolved configuration, and a table of every layer with weights: its output shape for a batch of two, and
    its number of parameters.

    Raises:
        ValueError: If a size cannot be made.
    """
    model = new_model(run)
    networks = run.objective.networks(model)
    shapes: dict[str, str] = {}

    def record(name: str):
        def hook(_layer: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            shapes.setdefault(name, str(tuple(output.shape)))

        return hook

    layers = {
        f"{network_name}.{name}": layer
        for network_name, network in networks.items()
        for name, layer in network.named_modules()
        if list(layer.parameters(recurse=False))
    }
    for name, layer in layers.items():
        layer.register_forward_hook(record(name))
    images = torch.zeros(2, model.config.image_channels, model.config.image_size, model.config.image_size)
    for step in run.objective.steps.values():
        step(networks, Batch(images))
    rows = [f"{name:<48}{shapes.get(name, '-'):<24}{num_parameters(layer):>12,}" for name, layer in layers.items()]
    totals = [f"{name:<72}{num_parameters(network):>12,}" for name, network in networks.items()]
    return "\n".join(
        [json.dumps(run.to_dict(), indent=2), f"{'layer':<48}{'output shape':<24}{'parameters':>12}", *rows, *totals]
    )


def num_parameters(network: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())
