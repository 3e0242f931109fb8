"""`--dry_run`: the configuration and the networks of a run, without training."""

import json
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn

from ..config import RunConfig
from ..data.listing import list_folder
from ..data.sources import refuse_unless_one_source, saved_folder
from ..families import new_model
from ..hardware import choose_precision, use_cpu
from ..objectives.batch import Batch
from .checkpoints import find_checkpoint
from .preflight import recorded_run, recorded_splits, refuse_impossible
from .state import num_parameters


def describe(run: RunConfig) -> str:
    """The configuration, and a table of all layers with weights: output shape for a batch of two images, and number of
    parameters.

    Raises:
        ValueError: If the run would be refused, as far as that is known without decoding or downloading images.
    """
    _refuse_what_the_run_would(run)
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


def _refuse_what_the_run_would(run: RunConfig) -> None:
    output_dir = Path(run.train.output_dir)
    refuse_impossible(run)
    choose_precision(run.train, PartialState(cpu=use_cpu()).device)
    recorded_run(run, output_dir)
    recorded_splits(run, output_dir)
    refuse_unless_one_source(run.data)
    if run.data.train_data_dir and not saved_folder(run.data):
        list_folder(run.data.train_data_dir, run.data.dataset_split)
    if run.train.resume_from_checkpoint:
        find_checkpoint(run.train.resume_from_checkpoint, output_dir, run.to_dict())
