"""The contract of section "Objective", for every family."""

import pytest
import torch
from conftest import tiny_model

from hf_vae import FAMILIES
from hf_vae.batches import Batch


@pytest.fixture
def images():
    return torch.rand(6, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1


def one_update(networks, step, trained, images):
    for name, network in networks.items():
        network.requires_grad_(name == trained)
    loss, logs = step(networks, Batch(images))
    loss.backward()
    return loss, logs


def test_a_step_gives_gradients_to_every_weight_of_the_network_it_names_and_to_no_other(family, images):
    objective = FAMILIES[family].objective()
    networks = {name: network.train() for name, network in objective.networks(tiny_model(family)).items()}
    assert "model" in networks and set(objective.steps) == set(networks)
    for trained, step in objective.steps.items():
        loss, logs = one_update(networks, step, trained, images)
        assert loss.ndim == 0 and loss.isfinite()
        assert all(value.ndim == 0 and not value.requires_grad for value in logs.values())
        for name, network in networks.items():
            for weight_name, weight in network.named_parameters():
                assert (weight.grad is not None) == (name == trained), f"{name}.{weight_name}"
            network.zero_grad()


def test_training_on_one_batch_changes_what_is_drawn_for_the_better(family, images):
    torch.manual_seed(0)
    objective = FAMILIES[family].objective()
    networks = {name: network.train() for name, network in objective.networks(tiny_model(family)).items()}
    optimizers = {name: torch.optim.Adam(network.parameters(), 3e-3) for name, network in networks.items()}
    images = images * 0.1 + 0.7  # bright: an untrained network draws grey
    before = networks["model"].eval().sample(16).mean()
    for _ in range(80):
        for trained, step in objective.steps.items():
            networks["model"].train()
            one_update(networks, step, trained, images)
            optimizers[trained].step()
            optimizers[trained].zero_grad()
    after = networks["model"].eval().sample(16).mean()
    assert abs(after - 0.7) < 0.5 * abs(before - 0.7)
