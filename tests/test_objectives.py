"""The contract of section "Objective", for every family."""

import pytest
import torch
from conftest import tiny_model

from hf_vae import FAMILIES, losses
from hf_vae.batches import Batch
from hf_vae.objectives import AutoencoderObjective, DCGANObjective, VAEObjective, draw_latents


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


@pytest.mark.parametrize("name", losses.RECONSTRUCTION_LOSSES)
def test_a_plain_reconstruction_loss_is_a_mean_over_values_and_the_kl_a_mean_over_latents(name, images):
    error = losses.RECONSTRUCTION_LOSSES[name]
    model = tiny_model("vae")
    loss, logs = VAEObjective(name, kl_weight=0.25).model_step({"model": model}, Batch(images))
    output = model(images, draw_latents({"model": model}, Batch(images)))
    kl = losses.gaussian_kl(output.mean, output.logvar).mean()
    expected = error(output.reconstructions, images).mean() / images[0].numel() + 0.25 * kl / 8
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logs["kl_per_latent"], kl / 8)

    autoencoder = tiny_model("autoencoder")
    loss, _ = AutoencoderObjective(name).model_step({"model": autoencoder}, Batch(images))
    torch.testing.assert_close(loss, error(autoencoder(images), images).mean() / images[0].numel())


def test_lazy_penalties_come_at_their_interval_and_count_as_often(images):
    lazy, steady = DCGANObjective(penalty_interval=3), DCGANObjective()
    networks = {name: network.train() for name, network in lazy.networks(tiny_model("dcgan")).items()}
    found = [lazy.discriminator_step(networks, Batch(images, number=number)) for number in range(4)]
    assert ["r1" in logs for _, logs in found] == [True, False, False, True]
    every, logs = steady.discriminator_step(networks, Batch(images, number=0))
    penalty = every.detach() - logs["d_loss"]
    torch.testing.assert_close(found[0][0].detach() - found[0][1]["d_loss"], 3 * penalty, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found[1][0].detach(), found[1][1]["d_loss"])
    with pytest.raises(ValueError, match="penalty_interval=0"):
        DCGANObjective(penalty_interval=0)
