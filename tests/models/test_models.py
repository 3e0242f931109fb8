"""The contract of section "Model", for every family."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, tiny_model

from hf_vae import FAMILIES, VAE, AutoGenerator, ImageGenerator, ImagePipeline
from hf_vae.models.blocks import Discriminator, UpsampledConv, size_rule


@pytest.fixture(params=["residual", "plain"])
def block(request):
    return request.param


@pytest.mark.parametrize("image_size", [28, 32, 48, 64, 112, 128, 256])
@pytest.mark.parametrize("image_channels", [1, 3])
def test_every_size_and_colour_is_made(family, block, image_size, image_channels):
    model = tiny_model(family, image_size=image_size, image_channels=image_channels, block=block)
    images = model.sample(2)
    assert images.shape == (2, image_channels, image_size, image_size)
    assert images.isfinite().all() and images.abs().max() <= 1
    if model.has_encoder:
        assert model.encode(images).latents.shape == (2, TINY["latent_dim"])


@pytest.mark.parametrize(
    ("image_size", "nearest"), [(100, ("96", "112")), (27, ("28",)), (300, ("256",)), (0, ("28",))]
)
def test_an_impossible_size_names_the_nearest(family, image_size, nearest):
    with pytest.raises(ValueError, match=f"image_size={image_size}") as refusal:
        FAMILIES[family].model(image_size=image_size)
    assert all(size in str(refusal.value) for size in nearest)


@pytest.mark.parametrize("latent_size", [7, 14])
@pytest.mark.parametrize("family_with_grid", ["autoencoder", "vae"])
def test_latents_may_lie_on_a_grid(family_with_grid, block, latent_size):
    model = tiny_model(family_with_grid, latent_size=latent_size, latent_dim=2 * latent_size**2, block=block)
    images = model.sample(2)
    latents = model.encode(images).latents
    assert latents.shape == (2, 2 * latent_size**2) and images.shape == (2, 3, 28, 28)
    changed = latents.unflatten(1, (2, latent_size, latent_size)).clone()
    changed[:, :, 0, 0] += 10  # the upper left cell
    difference = (model.decode(changed.flatten(1)).sample - model.decode(latents).sample).abs().mean((0, 1))
    assert difference[:7, :7].mean() > difference[-7:, -7:].mean()


@pytest.mark.parametrize("family_with_grid", ["autoencoder", "vae", "vaegan"])
def test_a_shortcut_is_a_linear_map_between_a_cell_and_its_own_pixels(family_with_grid):
    model = tiny_model(family_with_grid, latent_size=7, latent_dim=2 * 49)
    for silenced in (model.encoder.head, *model.decoder.trunk[-2:-1]):  # what the networks add
        torch.nn.init.zeros_(silenced.weight)
        torch.nn.init.zeros_(silenced.bias)
    images = torch.rand(2, 3, 28, 28)
    images[:, :, 4:] = 0  # all but the cells of the first row
    start, once, twice = (model.encode(scale * images).latents for scale in (0, 1, 2))
    torch.testing.assert_close(twice - start, 2 * (once - start))
    moved = (once - start).unflatten(1, (2, 7, 7))
    assert (moved[:, :, 0] != 0).all() and (moved[:, :, 1:] == 0).all()
    drawn = model.decode(once).sample - model.decode(start).sample
    assert (drawn[:, :, :4] != 0).any() and (drawn[:, :, 4:] == 0).all()


@pytest.mark.parametrize("without", [{"shortcut": False}, {"block": "plain"}, {"latent_size": 1}])
def test_there_is_no_shortcut_unless_there_is_a_grid_of_residual_blocks(without):
    model = tiny_model("vae", **({"latent_size": 7, "latent_dim": 98} | without))
    assert not any("coder.shortcut" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"latent_size": 8}, "latent_size=8 does not suit image_size=28, which halves to 7, 14; .* or 1"),
        ({"latent_size": 7, "latent_dim": 50}, "latent_dim=50 does not fill a grid of 7x7 .* 49 or 98"),
        ({"latent_size": 7, "latent_dim": 8}, "latent_dim=8 does not fill .* 49 or 98"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(config, named):
    with pytest.raises(ValueError, match=named):
        tiny_model("vae", **config)


def test_the_size_rule_gives_a_bottom_of_four_to_seven():
    for bottom in range(4, 8):
        for stages in range(2, 7):
            if 28 <= bottom * 2**stages <= 256:
                assert size_rule(bottom * 2**stages) == (bottom, stages)


@pytest.mark.parametrize(("config", "named"), [({"block": "resnet"}, "resnet"), ({"width": 12}, "multiples of 8")])
def test_a_bad_configuration_is_refused_by_name(family, config, named):
    with pytest.raises(ValueError, match=named):
        tiny_model(family, **config)


def test_what_is_saved_is_what_is_loaded(family, block, tmp_path, recwarn):
    model = tiny_model(family, block=block, output_size=20)
    model.latent_prior.fit(torch.randn(50, TINY["latent_dim"], generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"config.json", "diffusion_pytorch_model.safetensors", "model_index.json", f"{family}.py"}
    loaded = AutoGenerator.from_pretrained(tmp_path)
    assert type(loaded) is FAMILIES[family].model and not loaded.training
    assert loaded.output_size == 20
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    again = [m.sample(3, generator=torch.Generator().manual_seed(5)) for m in (model, loaded)]
    assert torch.equal(*again)
    assert not [warning for warning in recwarn if "config" in str(warning.message)]


def test_sampling_follows_the_generator_and_the_temperature(family):
    model = tiny_model(family)
    first, same, other = (model.sample(4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    still = model.sample(4, temperature=0.0)
    assert torch.allclose(still[0], still[1], atol=1e-6)
    with pytest.raises(ValueError, match="uniform"):
        model.sample(1, prior="uniform")


def test_encoding_has_no_noise_or_says_that_there_is_no_encoder(family):
    model, images = tiny_model(family), torch.zeros(2, 3, 28, 28)
    if model.has_encoder:
        assert torch.equal(model.encode(images).latents, model.encode(images).latents)
    else:
        with pytest.raises(ValueError, match="no encoder"):
            model.encode(images)


def test_auto_generator_refuses_what_is_no_model_of_ours(tmp_path):
    with pytest.raises(ValueError, match="is empty; a model folder has config.json and"):
        AutoGenerator.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(ValueError, match="UNet2DModel"):
        AutoGenerator.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="neither a model folder here nor"):
        AutoGenerator.from_pretrained("nobody/nothing-of-this-name")


def test_a_class_that_stands_in_for_a_family_is_not_loaded(published_models):
    stand_in = type("VAE", (VAE,), {"__init__": lambda self: None})  # as torch.export makes them
    assert AutoGenerator.class_of(published_models / "faces-vae") is VAE is not stand_in


def test_a_model_of_another_class_is_refused(published_models):
    with pytest.raises(ValueError, match="is a DCGAN, not a VAE: AutoGenerator"):
        VAE.from_pretrained(published_models / "faces-dcgan")


@pytest.mark.parametrize("changes", [{}, {"latent_size": 7, "latent_dim": 49, "detail_dim": 588}])
def test_latents_of_samples_make_round_trips(changes):
    plain, model = (tiny_model("vae", prior="standard", round_trips=trips, **changes) for trips in (0, 2))
    generators = [torch.Generator().manual_seed(3) for _ in range(3)]
    latents = plain.sample_latents(5, generators[0])
    with torch.no_grad():
        for _ in range(2):
            images = plain.decode(latents).sample.clamp(-1, 1)
            latents = plain.posterior(images).latents
        expected = plain.decode(latents).sample.clamp(-1, 1)
    torch.testing.assert_close(model.sample_latents(5, generators[1]), latents)
    torch.testing.assert_close(model.sample(5, generators[2]), expected)
    torch.testing.assert_close(ImagePipeline(model).sample(5, seed=3).tensors, expected)


def test_fewer_than_no_round_trips_are_refused():
    with pytest.raises(ValueError, match="round_trips=-1 is not possible; it must be at least 0"):
        tiny_model("vae", round_trips=-1)


def test_no_samples_cannot_be_drawn(family):
    with pytest.raises(ValueError, match="0 samples"):
        tiny_model(family).sample(0)


def test_every_family_keeps_the_contract(family):
    model = tiny_model(family)
    assert isinstance(model, ImageGenerator)
    shared = {"image_size", "image_channels", "latent_dim", "output_size", "prior", "block"}
    assert shared <= set(model.config)
    assert model.__doc__.split("\n\n")[0].strip()


def test_the_discriminator_sees_whether_a_batch_repeats_itself():
    torch.manual_seed(0)
    discriminator = Discriminator(28, 3, 8, 16)
    images = torch.randn(4, 3, 28, 28)
    among_others, among_copies = discriminator(images)[0], discriminator(images[:1].repeat(4, 1, 1, 1))[0]
    assert (among_others - among_copies).abs() > 1e-4


@pytest.mark.parametrize(("height", "width"), [(4, 4), (7, 5), (1, 3)])
def test_an_upsampled_convolution_is_an_upsampling_and_a_convolution(height, width):
    torch.manual_seed(0)
    layer, hidden = UpsampledConv(6, 3), torch.randn(2, 6, height, width, requires_grad=True)
    two_steps = F.conv2d(F.interpolate(hidden, scale_factor=2.0), layer.weight, layer.bias, padding=1)
    in_one = layer(hidden)
    torch.testing.assert_close(in_one, two_steps, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(two_steps)
    inputs = [hidden, layer.weight, layer.bias]
    expected, found = (torch.autograd.grad((weights * values).sum(), inputs) for values in (two_steps, in_one))
    for each, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(each, reference, rtol=1e-4, atol=1e-5)
