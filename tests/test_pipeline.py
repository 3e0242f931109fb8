"""Pictures in, pictures out."""

import pytest
import torch
from conftest import draw_picture, tiny_model

from hf_vae import FAMILIES, ImagePipeline


ENCODERS = [name for name, family in FAMILIES.items() if family.model.has_encoder]


def pixels(output) -> list[bytes]:
    return [picture.tobytes() for picture in output.images]


def test_a_seed_gives_the_same_pictures_and_no_seed_others(family, published_models):
    pipe = ImagePipeline.from_pretrained(published_models / f"faces-{family}")
    assert pixels(pipe.sample(4, seed=7)) == pixels(pipe.sample(4, seed=7))
    assert pixels(pipe.sample(4, seed=7)) != pixels(pipe.sample(4, seed=8))
    assert pixels(pipe.sample(4)) != pixels(pipe.sample(4))


@pytest.mark.parametrize("prior", ["standard", "gaussian", "mixture", "flow"])
def test_every_picture_has_a_seed_of_its_own(family, prior):
    model = tiny_model(family)
    if prior == "flow" and model.latent_prior.flow is None:
        pytest.skip("has no flow")
    pipe = ImagePipeline(model)
    together = pipe.sample(4, seed=7, prior=prior)
    alone = pipe.sample(1, seed=9, prior=prior)
    torch.testing.assert_close(together.latents[2:3], alone.latents, rtol=1e-4, atol=1e-4)
    assert len({latents.norm().item() for latents in together.latents}) == 4


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_pictures_have_the_output_size_and_tensors_the_networks_own(family, channels, mode):
    output = ImagePipeline(tiny_model(family, image_channels=channels, output_size=50)).sample(3, seed=0)
    assert [(picture.size, picture.mode) for picture in output.images] == [((50, 50), mode)] * 3
    assert output.tensors.shape == (3, channels, 28, 28) and output.tensors.abs().max() <= 1
    assert output.latents.shape == (3, 8)


def test_more_pictures_than_fit_a_batch_are_the_same_pictures(family):
    pipe = ImagePipeline(tiny_model(family))
    latents = torch.randn(70, 8, generator=torch.Generator().manual_seed(0))
    assert pixels(pipe.decode(latents))[:5] == pixels(pipe.decode(latents[:5]))


@pytest.mark.parametrize("family", ENCODERS)
def test_any_picture_is_reconstructed(family):
    pipe = ImagePipeline(tiny_model(family))
    pictures = [draw_picture(0, (90, 40)), draw_picture(1).convert("L"), draw_picture(2).convert("RGBA")]
    assert [picture.size for picture in pipe.reconstruct(pictures).images] == [(28, 28)] * 3
    assert pixels(pipe.reconstruct(pictures[0])) == pixels(pipe.reconstruct(pictures))[:1]
    assert pipe.prepare(pictures[0]).size == (28, 28)


@pytest.mark.parametrize("family", ENCODERS)
def test_a_morph_starts_and_ends_at_the_reconstructions(family):
    pipe = ImagePipeline(tiny_model(family))
    start, end = draw_picture(0), draw_picture(1)
    for kind in ("lerp", "slerp"):
        output = pipe.interpolate(start, end, frames=6, kind=kind)
        assert len(output.images) == 6
        ends = pipe.reconstruct([start, end]).tensors
        torch.testing.assert_close(output.tensors[[0, -1]], ends, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="at least 2 points"):
        pipe.interpolate(start, end, frames=1)
    with pytest.raises(ValueError, match="bezier"):
        pipe.interpolate(start, end, kind="bezier")


@pytest.mark.parametrize("family", ENCODERS)
def test_varying_a_component_moves_along_it_in_standard_deviations(family):
    model = tiny_model(family)
    spread = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) @ torch.randn(8, 8) * 3
    model.latent_prior.fit(spread)
    pipe, picture = ImagePipeline(model), draw_picture(0)
    output = pipe.vary(picture, component=2, values=[-3, 0, 3])
    assert pixels(output)[1] == pixels(pipe.reconstruct(picture))[0]
    step = model.latent_prior.directions[2] * model.latent_prior.stds[2]
    torch.testing.assert_close(output.latents[2] - output.latents[1], 3 * step, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="component=8.*0 to 7"):
        pipe.vary(picture, component=8, values=[0])


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(ENCODERS)))
def test_without_an_encoder_no_picture_goes_in(family):
    pipe, picture = ImagePipeline(tiny_model(family)), draw_picture(0)
    for call in (
        lambda: pipe.reconstruct(picture),
        lambda: pipe.interpolate(picture, picture),
        lambda: pipe.vary(picture, 0, [0]),
    ):
        with pytest.raises(ValueError, match="has no encoder"):
            call()


def test_moving_along_components_adds_their_standard_deviations():
    pipe = ImagePipeline(tiny_model("vae"))
    prior = pipe.model.latent_prior
    prior.fit(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9))
    latents = torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
    moved = pipe.move(latents, torch.tensor([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.5]]))
    shifts = (prior.coordinates(moved) - prior.coordinates(latents))[:, :3]
    torch.testing.assert_close(shifts, torch.tensor([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.5]]), atol=1e-5, rtol=0)
