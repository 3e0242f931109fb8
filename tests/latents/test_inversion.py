"""Pictures to latents without an encoder."""

import torch
from conftest import tiny_model

from hf_vae.latents.inversion import NUM_STEPS, invert


def test_what_the_model_drew_is_found_again_nearly():
    model = tiny_model("dcgan")
    drawn = model.sample(3, torch.Generator().manual_seed(5))
    done = []
    with torch.no_grad():
        found = model.decode(invert(model, drawn, report=done.append)).sample
    variance = drawn.var(0, unbiased=False).mean()
    assert (found - drawn).square().mean() < 0.1 * variance
    assert len(done) == NUM_STEPS and done == sorted(done) and done[-1] == 1


def test_a_seed_decides_and_weights_stay_as_they_are(images):
    model = tiny_model("dcgan")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(invert(model, images[:2], seed=1), invert(model, images[:2], seed=1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_latents_stay_about_as_long_as_draws(images):
    found = invert(tiny_model("dcgan"), images)  # of noise, which no such model can draw
    assert found.square().mean(1).max() < 3
