"""Pictures to latents."""

import torch
from conftest import skip_without_encoder, tiny_model

from hf_vae.latents import encoding


def test_encoding_in_batches_is_encoding_in_one_go(family, images, monkeypatch):
    skip_without_encoder(family)
    model = tiny_model(family)
    monkeypatch.setattr(encoding, "ENCODE_BATCH", 3)
    with torch.no_grad():
        expected = model.encode(images).latents
    torch.testing.assert_close(encoding.encode_all(model, images), expected)


def test_a_generator_draws_from_the_posterior(family, images):
    skip_without_encoder(family)
    model = tiny_model(family)
    first, second = (encoding.encode_all(model, images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    twice = encoding.encode_all(model, images, torch.Generator().manual_seed(5), draws=2)
    assert torch.equal(twice[: len(images)], first)
    has_posterior = model.encode(images[:1]).logvar is not None
    assert torch.equal(first, encoding.encode_all(model, images)) is not has_posterior
    assert len(twice) == (2 if has_posterior else 1) * len(images)
    assert not (has_posterior and torch.equal(twice[len(images) :], first))
