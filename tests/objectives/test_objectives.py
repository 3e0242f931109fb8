"""The contract of section "Objective", for every family."""

import pytest
import torch
from conftest import tiny_model

from hf_vae import FAMILIES
from hf_vae.objectives import (
    AutoencoderObjective,
    DCGANObjective,
    Objective,
    VAEGANObjective,
    VAEObjective,
    losses,
)
from hf_vae.objectives.base import draw_latents
from hf_vae.objectives.batch import Batch


@pytest.fixture
def images():
    return torch.rand(6, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1


def networks_of(family: str, objective: Objective) -> dict[str, torch.nn.Module]:
    """What a training of a family trains, in training mode."""
    model = tiny_model(family)
    model.latent_prior.drop_learned()
    return {name: network.train() for name, network in objective.networks(model).items()}


def one_update(networks, step, trained, images):
    for name, network in networks.items():
        network.requires_grad_(name == trained)
    loss, logs = step(networks, Batch(images))
    loss.backward()
    return loss, logs


def test_a_step_gives_gradients_to_every_weight_of_the_network_it_names_and_to_no_other(family, images):
    objective = FAMILIES[family].objective()
    networks = networks_of(family, objective)
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
    networks = networks_of(family, objective)
    optimizers = {name: torch.optim.Adam(network.parameters(), 3e-3) for name, network in networks.items()}
    images = images * 0.1 + 0.7  # bright: an untrained network draws grey
    before = networks["model"].eval().sample(16, prior="standard").mean()
    for _ in range(80):
        for trained, step in objective.steps.items():
            networks["model"].train()
            one_update(networks, step, trained, images)
            optimizers[trained].step()
            optimizers[trained].zero_grad()
    after = networks["model"].eval().sample(16, prior="standard").mean()
    assert abs(after - 0.7) < 0.5 * abs(before - 0.7)


@pytest.mark.parametrize("name", losses.RECONSTRUCTION_LOSSES)
def test_a_plain_reconstruction_loss_is_a_mean_over_values_and_the_kl_a_mean_over_latents(name, images):
    error = losses.RECONSTRUCTION_LOSSES[name]
    model = tiny_model("vae")
    loss, logs = VAEObjective(name, kl_weight=0.25).model_step({"model": model}, Batch(images))
    output = model(images, draw_latents({"model": model}, Batch(images)))
    kl = losses.gaussian_kl(output.mean, output.logvar).mean()
    expected = error(output.sample, images).mean() / images[0].numel() + 0.25 * kl / 8
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logs["kl_per_latent"], kl / 8)

    autoencoder = tiny_model("autoencoder")
    loss, _ = AutoencoderObjective(name).model_step({"model": autoencoder}, Batch(images))
    torch.testing.assert_close(loss, error(autoencoder(images).sample, images).mean() / images[0].numel())


def test_lazy_penalties_come_at_their_interval_and_count_as_often(images):
    lazy, steady = DCGANObjective(penalty_interval=3), DCGANObjective()
    networks = networks_of("dcgan", lazy)
    found = [lazy.discriminator_step(networks, Batch(images, number=number)) for number in range(4)]
    assert ["r1" in logs for _, logs in found] == [True, False, False, True]
    every, logs = steady.discriminator_step(networks, Batch(images, number=0))
    penalty = every.detach() - logs["d_loss"]
    torch.testing.assert_close(found[0][0].detach() - found[0][1]["d_loss"], 3 * penalty, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found[1][0].detach(), found[1][1]["d_loss"])
    with pytest.raises(ValueError, match="penalty_interval=0"):
        DCGANObjective(penalty_interval=0)


@pytest.mark.parametrize("adversarial_loss", losses.ADVERSARIAL_LOSSES)
@pytest.mark.parametrize("family_with_discriminator", ["dcgan", "vaegan"])
def test_every_adversarial_loss_moves_fakes_towards_what_looks_real(
    family_with_discriminator, adversarial_loss, images
):
    objective = FAMILIES[family_with_discriminator].objective(adversarial_loss=adversarial_loss)
    networks = networks_of(family_with_discriminator, objective)
    networks["discriminator"].requires_grad_(False)
    fakes = torch.rand(6, 3, 28, 28, generator=torch.Generator().manual_seed(1)).requires_grad_()
    objective.generator_loss(networks, Batch(images), fakes).backward()
    nearer = fakes.detach() - 1e-2 * fakes.grad / fakes.grad.std()
    assert networks["discriminator"](nearer).mean() > networks["discriminator"](fakes).mean()


def test_a_vae_gan_hears_its_discriminator_from_the_start_of_the_ramp(images):
    objective = VAEGANObjective(adversarial_start=2, adversarial_ramp=4, kl_weight=0.0)
    networks = networks_of("vaegan", objective)
    found = [objective.model_step(networks, Batch(images, number=number)) for number in (0, 2, 3, 6, 9)]
    assert ["g_loss" in logs for _, logs in found] == [False, False, True, True, True]
    extra = []
    for number, (loss, logs) in zip((3, 6, 9), found[2:], strict=True):
        output = networks["model"](images, draw_latents(networks, Batch(images, number=number)))
        plain = losses.absolute_error(output.sample, images).mean() / images[0].numel()
        heard = (loss - plain) / (objective.adversarial_weight * logs["g_loss"] + logs["feature_distance"])
        extra.append(heard.item())
    assert extra == pytest.approx([0.25, 1, 1], rel=1e-2)


@pytest.mark.parametrize(("loss", "scale"), [("mse", 2), ("l1", 1)])
def test_the_calibrated_kl_weight_of_a_vae_gan_follows_its_error(loss, scale, images):
    networks = networks_of("vaegan", VAEGANObjective())
    without, _ = VAEGANObjective(reconstruction_loss=loss, kl_weight=0.0).model_step(networks, Batch(images))
    whole, logs = VAEGANObjective(reconstruction_loss=loss, kl_weight=1.0).model_step(networks, Batch(images))
    torch.testing.assert_close(whole - without, scale * without.detach() * logs["kl"] / images[0].numel())


@pytest.mark.parametrize("family", ["vae", "vaegan"])
def test_the_nats_of_latents_are_held_at_their_target(family, images):
    torch.manual_seed(0)
    objective = FAMILIES[family].objective(target_kl=20.0)
    networks = networks_of(family, objective)
    optimizer = torch.optim.Adam(networks["model"].parameters(), 2e-3)
    found = []
    for number in range(300):
        loss, logs = objective.model_step(networks, Batch(images, number=number))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(logs["kl"].item())
    assert 19 < sum(found[-50:]) / 50 < 23


def test_nats_are_held_only_where_the_error_is_calibrated():
    with pytest.raises(ValueError, match="target_kl=9.* needs the calibrated loss.* l1"):
        VAEObjective("l1", target_kl=9.0)
    with pytest.raises(ValueError, match="target_kl=9.* needs calibrated_kl"):
        VAEGANObjective(target_kl=9.0, calibrated_kl=False)
    assert "with the KL held at 9 nats" in VAEObjective(target_kl=9.0).legend


def test_other_fakes_are_told_from_pictures_too_where_they_are_asked_for(images):
    objective = VAEGANObjective(other_fakes="noise", adversarial_start=0, adversarial_ramp=0)
    networks = networks_of("vaegan", objective)
    assert objective.fakes(networks, Batch(images)).shape == (12, 3, 28, 28)
    for number, step in enumerate(objective.steps.values(), 1):
        loss, _ = step(networks, Batch(images, number=number))
        assert loss.isfinite()


@pytest.mark.parametrize("objective", [VAEObjective, VAEGANObjective])
def test_an_encoder_that_is_not_trained_is_frozen(objective):
    assert "encoder" in objective(train_encoder=False).frozen
    assert objective().frozen == {"latent_prior", "detail"}


def test_an_objective_says_what_its_loss_is():
    assert "it can be negative" in VAEObjective().legend and "times" not in VAEObjective().legend
    assert "with 0.5 times the KL" in VAEObjective(kl_weight=0.5).legend
    assert "its error plus 0.03 times the perceptual error, in nats" in VAEObjective(perceptual_weight=0.03).legend
    assert VAEObjective("l1", perceptual_weight=0.5).legend.endswith(
        "values in [-1, 1], plus 0.5 times the perceptual error, plus 1 times the KL per latent"
    )
    assert VAEObjective("l1", 2.0).legend.endswith(
        "absolute error of values in [-1, 1], plus 2 times the KL per latent"
    )
    assert AutoencoderObjective("bce").legend.startswith("loss is the binary cross-entropy")
    assert "absolute error" in VAEGANObjective().legend and "g_loss" in VAEGANObjective().legend


@pytest.mark.parametrize("reconstruction_loss", ["calibrated", "l1"])
def test_a_vae_may_count_the_error_that_a_network_of_imagenet_sees(images, reconstruction_loss):
    found = {}
    for weight in (0.0, 0.5):
        objective = VAEObjective(reconstruction_loss, perceptual_weight=weight)
        networks = networks_of("vae", objective)
        found[weight] = objective.model_step(networks, Batch(images))
    (_, plain), (loss, logs) = found[0.0], found[0.5]
    assert "perceptual_error" not in plain
    error = logs["perceptual_error"]
    assert error > 0
    if reconstruction_loss == "l1":
        torch.testing.assert_close(loss, plain["loss"] + 0.5 * error)
    else:  # the mean over the batch of the likelihood under the best variance
        likelihood = 0.5 * (torch.log(2 * torch.pi * (logs["mse"] + 0.5 * error)) + 1)
        torch.testing.assert_close(loss, likelihood + logs["kl"] / images[0].numel())


def test_a_vae_gan_may_count_the_error_that_a_network_of_imagenet_sees(images):
    """It counts from the first batch, before the discriminator does."""
    found = {}
    for weight in (0.0, 0.5):
        objective = VAEGANObjective(perceptual_weight=weight)
        networks = networks_of("vaegan", objective)
        found[weight] = objective.model_step(networks, Batch(images))
    assert "perceptual_error" not in found[0.0][1]
    error = found[0.5][1]["perceptual_error"]
    assert error > 0
    torch.testing.assert_close(found[0.5][0], found[0.0][0] + 0.5 * error)
