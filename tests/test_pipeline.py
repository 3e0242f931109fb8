"""Pictures in, pictures out."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_picture, tiny_model
from PIL import Image

from hf_vae import FAMILIES, ImagePipeline
from hf_vae.latents.directions import write_directions
from hf_vae.latents.labelled_codes import LabelledCodes
from hf_vae.models.diffusers_pipeline import ImageGenerationPipeline
from hf_vae.pictures import MAX_PIXELS, open_image, to_pil_images


ENCODERS = [name for name, family in FAMILIES.items() if family.model.has_encoder]


def pixels(output) -> list[bytes]:
    return [picture.tobytes() for picture in output.images]


def test_a_seed_gives_the_same_pictures_and_no_seed_others(family, published_models):
    pipe = ImagePipeline.from_pretrained(published_models / f"faces-{family}")
    assert pixels(pipe.sample(4, seed=7)) == pixels(pipe.sample(4, seed=7))
    assert pixels(pipe.sample(4, seed=7)) != pixels(pipe.sample(4, seed=8))
    assert pixels(pipe.sample(4)) != pixels(pipe.sample(4))


@pytest.mark.parametrize("prior", ["standard", "gaussian", "mixture", "flow"])
def test_a_seed_means_the_same_images_however_many_are_generated(family, prior):
    model = tiny_model(family)
    if prior not in model.latent_prior.kinds:
        pytest.skip("has no flow")
    pipe, close = ImagePipeline(model), {"rtol": 1e-4, "atol": 1e-4}
    together = pipe.sample(4, seed=7, prior=prior)
    torch.testing.assert_close(
        together.tensors, model.sample(4, torch.Generator().manual_seed(7), prior=prior), **close
    )
    torch.testing.assert_close(together.latents[:2], pipe.sample(2, seed=7, prior=prior).latents, **close)
    torch.testing.assert_close(together.latents[2:3], pipe.sample(1, seed=7, prior=prior, skip=2).latents, **close)
    assert len({latents.norm().item() for latents in together.latents}) == 4
    others = pipe.sample(4, seed=8, prior=prior).latents
    assert not any(torch.allclose(one, other) for one in together.latents for other in others)


def test_a_list_of_generators_has_one_for_each_image(family):
    model = tiny_model(family)
    images = model.sample(3, [torch.Generator().manual_seed(seed) for seed in (4, 5, 6)])
    alone = model.sample(1, torch.Generator().manual_seed(5))
    torch.testing.assert_close(images[1:2], alone, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="2 generators cannot draw 3 samples; pass one, or one for each"):
        model.sample(3, [torch.Generator(), torch.Generator()])


def test_a_seed_gives_nearly_the_same_images_in_half_precision(family):
    model = tiny_model(family)
    whole = model.sample(2, torch.Generator().manual_seed(1), prior="standard")
    half = model.half().sample(2, torch.Generator().manual_seed(1), prior="standard")
    torch.testing.assert_close(half, whole, rtol=0, atol=0.05)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "7"])
def test_what_is_no_seed_is_refused_by_name(seed):
    with pytest.raises(ValueError, match=f"seed={seed!r} is not possible; it must be a whole number from 0 to 1844"):
        ImagePipeline(tiny_model("vae")).sample(1, seed=seed)
    assert ImagePipeline(tiny_model("vae")).sample(1, seed=2**64 - 1).tensors.isfinite().all()
    with pytest.raises(ValueError, match="skip=-1 is not possible; it must be at least 0"):
        ImagePipeline(tiny_model("vae")).sample(1, seed=0, skip=-1)


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
    assert pixels(pipe.interpolate(start, end, frames=6)) == pixels(
        pipe.interpolate(start, end, 6, pipe.model.latent_prior.default_path)
    )
    with pytest.raises(ValueError, match="at least 2 points"):
        pipe.interpolate(start, end, frames=1)
    with pytest.raises(ValueError, match="bezier"):
        pipe.interpolate(start, end, kind="bezier")


@pytest.mark.parametrize("family", ENCODERS)
def test_varying_a_component_moves_along_it_in_standard_deviations(family):
    model = tiny_model(family, prior="gaussian")
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


@pytest.fixture(scope="module")
def codes() -> LabelledCodes:
    values = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    return LabelledCodes.fit(values, {"tone": ["dark", "bright"] * 30, "age": list(range(60))})


@pytest.mark.parametrize("family", ENCODERS)
def test_samples_are_drawn_around_the_code_of_the_labels(family, codes):
    pipe = ImagePipeline(tiny_model(family, code_dim=6), codes)
    assert [label.name for label in pipe.labels] == ["tone", "age"]
    output = pipe.sample(3, seed=5, labels={"age": 50})
    again = pipe.sample(1, seed=5, labels={"age": "50"}, skip=1)
    torch.testing.assert_close(output.latents[1:2], again.latents, atol=1e-5, rtol=1e-5)
    assert not torch.equal(output.latents, pipe.sample(3, seed=5).latents)
    still = pipe.sample(2, seed=5, temperature=0, labels={"tone": "dark"}).latents
    torch.testing.assert_close(still[0], still[1])
    wanted = [codes.given({"tone": "dark"})[0][None], torch.zeros(1, 8)]
    torch.testing.assert_close(
        still[:1], pipe.model.latent_prior.get("code").from_noise(wanted, pipe.model.latent_prior)
    )


def test_every_way_to_sample_takes_a_temperature_of_the_rest():
    pipe = ImagePipeline(tiny_model("vae", code_dim=6))
    expected = pipe.sample(2, seed=0, rest_temperature=0.3).tensors
    assert not torch.equal(expected, pipe.sample(2, seed=0).tensors)
    settings = {"rest_temperature": 0.3}
    torch.testing.assert_close(pipe.model.sample(2, torch.Generator().manual_seed(0), **settings), expected)
    diffusers_pipe = ImageGenerationPipeline(pipe.model)
    images = diffusers_pipe(2, torch.Generator().manual_seed(0), output_type="pt", **settings).images
    torch.testing.assert_close(images * 2 - 1, expected)


def test_labels_that_a_model_does_not_have_are_refused(codes):
    pipe = ImagePipeline(tiny_model("vae", code_dim=6), codes)
    with pytest.raises(ValueError, match="There is no label 'size'; this model has tone, age"):
        pipe.sample(1, labels={"size": 3})
    with pytest.raises(ValueError, match="prior='gaussian' draws no code.* draw from the prior 'code'"):
        pipe.sample(1, prior="gaussian", labels={"age": 3})
    with pytest.raises(
        ValueError, match="the labels age are not possible: this model has no labels.*hf-vae directions"
    ):
        ImagePipeline(tiny_model("vae")).sample(1, labels={"age": 3})
    with pytest.raises(ValueError, match="the labels age are not possible: .* they need the prior 'code'"):
        ImagePipeline(tiny_model("vae", prior="gaussian")).sample(1, labels={"age": 3})
    assert ImagePipeline(tiny_model("vae")).labels == ()


def test_labels_travel_with_the_weights_and_a_model_without_them_loads_as_ever(codes, tmp_path):
    tiny_model("vae", code_dim=6).save_pretrained(tmp_path)
    assert ImagePipeline.from_pretrained(tmp_path).labels == ()
    write_directions(tmp_path, [], codes)
    assert ImagePipeline.from_pretrained(tmp_path).labels == codes.labels
    write_directions(tmp_path, [], LabelledCodes(codes.labels, codes.mean[:-1], codes.root))
    with pytest.raises(ValueError, match="another code than one of 6 numbers"):
        ImagePipeline.from_pretrained(tmp_path)


def test_moving_along_components_adds_their_standard_deviations():
    pipe = ImagePipeline(tiny_model("vae", prior="gaussian"))
    prior = pipe.model.latent_prior
    prior.fit(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9))
    latents = torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
    moved = pipe.move(latents, torch.tensor([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.5]]))
    shifts = (prior.coordinates(moved) - prior.coordinates(latents))[:, :3]
    torch.testing.assert_close(shifts, torch.tensor([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.5]]), atol=1e-5, rtol=0)


def write_inputs(folder: Path) -> tuple[Image.Image, dict[str, object]]:
    """An image, and everything that may be given in its place."""
    image = draw_picture(0, (60, 48))
    image.save(folder / "photo.png")
    values = np.array(image)  # (H, W, 3)
    channels_first = torch.from_numpy(values).movedim(2, 0)
    return image, {
        "a path": str(folder / "photo.png"),
        "a Path": folder / "photo.png",
        "an opened file": Image.open(folder / "photo.png"),
        "an array": values,
        "an array with transparency": np.array(image.convert("RGBA")),
        "a batch of arrays": values[None],
        "a tensor": channels_first,
        "a batch of tensors": channels_first[None],
        "a list": [image],
        "a tuple of paths": (str(folder / "photo.png"),),
        "an iterator": iter([values]),
    }


@pytest.mark.parametrize("family", ENCODERS)
def test_an_image_may_be_given_in_any_form(family, tmp_path):
    pipe = ImagePipeline(tiny_model(family))
    image, forms = write_inputs(tmp_path)
    expected = pipe.encode([image])
    for name, form in forms.items():
        assert torch.equal(pipe.encode(form), expected), name
    path, array = str(tmp_path / "photo.png"), np.array(image)
    for form in (path, Path(path), array):
        assert pixels(pipe.reconstruct(form)) == pixels(pipe.reconstruct(image))
        assert pixels(pipe.vary(form, 0, [1.0])) == pixels(pipe.vary(image, 0, [1.0]))
        assert pixels(pipe.interpolate(form, path, 3)) == pixels(pipe.interpolate(image, image, 3))
        assert pipe.prepare(form).tobytes() == pipe.prepare(image).tobytes()
        assert torch.equal(pipe.to_images(form), pipe.to_images([image]))
    mixed = pipe.encode([path, image, array])
    torch.testing.assert_close(mixed, expected.expand(3, -1))


def test_a_search_starts_from_an_image_in_any_form(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_vae.latents.inversion.NUM_STEPS", 1)
    pipe = ImagePipeline(tiny_model("dcgan"))
    image, forms = write_inputs(tmp_path)
    expected = pipe.invert([image])
    for name in ("a path", "an array", "a tensor"):
        assert torch.equal(pipe.invert(forms[name]), expected), name
    with pytest.raises(TypeError, match="cannot be of type NoneType"):
        pipe.invert(None)


@pytest.mark.parametrize("shape", [(48, 60), (48, 60, 1)])
def test_a_grey_array_is_a_grey_image(shape):
    grey = draw_picture(0, (60, 48)).convert("L")
    (image,) = to_pil_images(np.array(grey).reshape(shape))
    assert (image.mode, image.size, image.tobytes()) == ("L", (60, 48), grey.tobytes())
    (image,) = to_pil_images(torch.from_numpy(np.array(grey)))
    assert image.tobytes() == grey.tobytes()


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (
            None,
            TypeError,
            "cannot be of type NoneType: give PIL images, e.g. Image.open.path., paths, or uint8 arrays",
        ),
        (3, TypeError, "cannot be of type int"),
        (b"\xff\xd8", TypeError, "cannot be of type bytes"),
        (io.BytesIO(b"line\n"), TypeError, "cannot be of type BytesIO"),
        ({"bytes": b"", "path": "a.jpg"}, TypeError, "cannot be of type dict"),
        ([[draw_picture(0)]], TypeError, "cannot be of type list"),
        ([draw_picture(0), None], TypeError, "cannot be of type NoneType"),
        ([], ValueError, "There is no image in what was given"),
        (Image.new("RGB", (0, 4)), ValueError, "image of 0x4 pixels has none"),
        (np.zeros((4, 4, 3)), ValueError, "array of float64 is not taken .* Convert it to numpy.uint8"),
        (np.zeros((4, 4), bool), ValueError, "array of bool is not taken"),
        (np.zeros((3, 9, 9), np.uint8), ValueError, r"array of shape \(3, 9, 9\) is not an image: \(H, W\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"array of shape \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), ValueError, r"array of shape \(4,\)"),
        (torch.zeros(3, 4, 4), ValueError, "tensor of torch.float32 is not taken .* hf_vae.pictures.to_pictures"),
        (torch.zeros(9, 9, 3, dtype=torch.uint8), ValueError, r"tensor of shape \(9, 9, 3\) is not an image"),
        ("https://example.com/cat.jpg", ValueError, "is an address, and addresses are not fetched: download the file"),
        (Path("https://example.com/cat.jpg"), ValueError, "is an address, and addresses are not fetched"),
        ("s3://bucket/cat.jpg", ValueError, "is an address, and addresses are not fetched"),
        ("data:image/png;base64," + 9000 * "A", ValueError, "is an address, and addresses are not fetched"),
        ("nowhere/photo.jpg", ValueError, "nowhere/photo.jpg does not exist"),
        (9000 * "A", ValueError, "does not exist"),
        ("a\0b.jpg", ValueError, "does not exist"),
        (".", ValueError, "is not a file; give the paths of image files"),
    ],
)
def test_what_is_not_an_image_is_refused_with_the_way_out(given, kind, message):
    pipe = ImagePipeline(tiny_model("vae"))
    for call in (pipe.encode, pipe.reconstruct, pipe.to_images, pipe.prepare, lambda one: pipe.vary(one, 0, [0])):
        with pytest.raises(kind, match=message) as refusal:
            call(given)
        assert len(str(refusal.value)) < 500
    with pytest.raises(kind, match=message):
        pipe.interpolate(draw_picture(0), given)


def test_one_image_is_not_several():
    pipe = ImagePipeline(tiny_model("vae"))
    several = [draw_picture(0), draw_picture(1)]
    for call in (
        pipe.prepare,
        lambda images: pipe.vary(images, 0, [0]),
        lambda images: pipe.interpolate(images, images),
    ):
        with pytest.raises(ValueError, match="One image is needed here; got 2"):
            call(several)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "gif", "tif", "ppm", "avif"])
def test_image_files_are_told_by_their_content(ending, tmp_path):
    draw_picture(0).save(tmp_path / f"photo.{ending}")
    (tmp_path / f"photo.{ending}").rename(tmp_path / "photo.of_mine")
    assert open_image(tmp_path / "photo.of_mine").size == (48, 48)


def test_image_files_that_are_not_read_say_why(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    draw_picture(0).save(tmp_path / "photo.png")
    assert open_image("~/photo.png").size == (48, 48)
    (tmp_path / "cut.png").write_bytes((tmp_path / "photo.png").read_bytes()[:200])
    with pytest.raises(ValueError, match="cut.png is not an image that can be read"):
        open_image(tmp_path / "cut.png")
    draw_picture(0).save(tmp_path / "drawing.eps")  # would start another program
    (tmp_path / "notes.jpg").write_text("not an image")
    for name in ("drawing.eps", "notes.jpg"):
        with pytest.raises(ValueError, match=f"{name} is not an image in a format that is read here .JPEG, PNG.*PNG"):
            open_image(tmp_path / name)
    (tmp_path / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match="pointer.png is a Git LFS pointer, not the image: run `git lfs pull`"):
        open_image(tmp_path / "pointer.png")
    Image.new("1", (MAX_PIXELS // 5000 + 1, 5000)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's own limit, which the Space sets, too
    with pytest.raises(ValueError, match="more than 100 megapixels"):
        open_image(tmp_path / "huge.png")


def test_what_are_not_latents_is_refused_by_its_shape():
    pipe = ImagePipeline(tiny_model("vae"))
    latents = pipe.sample(2, seed=0).latents
    for wrong, named in ((latents[0], r"\(8,\)"), (latents[:, :7], r"\(2, 7\)"), (latents.numpy(), "ndarray")):
        with pytest.raises(ValueError, match=rf"Latents must be a tensor \(B, 8\), .* got {named}"):
            pipe.decode(wrong)
    with pytest.raises(ValueError, match=r"Latents must be a tensor \(2, 8\), .* got \(1, 8\)"):
        pipe.interpolate_latents(latents[:1])
    with pytest.raises(ValueError, match=r"Latents must be a tensor \(1, 8\), .* got \(2, 8\)"):
        pipe.vary_latents(latents, 0, [0.0])


@pytest.mark.parametrize("family", ENCODERS)
def test_a_model_takes_tensors_of_its_own_size_only(family):
    model, image = tiny_model(family), torch.zeros(3, 28, 28)
    sizes = (image, torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 28, 28))
    for wrong in (*sizes, image[None].to(torch.uint8), draw_picture(0), [image]):
        with pytest.raises(ValueError, match=r"float tensor \(B, 3, 28, 28\) in \[-1, 1\] is needed; .*ImagePipeline"):
            model.reconstruct(wrong)
    for wrong in (torch.zeros(3, 64, 64), image[None], draw_picture(0)):
        with pytest.raises(
            ValueError, match=r"float tensor \(3, 28, 28\) in \[-1, 1\] is needed; got .*ImagePipeline"
        ):
            model.interpolate(image, wrong)


def test_noise_at_hand_moves_latents_to_the_same_place():
    pipe = ImagePipeline(tiny_model("vae", prior="code"))
    start, shifts = pipe.sample(1, seed=2).latents, torch.tensor([[1.5, -0.5], [0.0, 2.0]])
    noise = pipe.noise_of(start)
    assert torch.equal(pipe.move(start, shifts, noise), pipe.move(start, shifts))
    pipe.model.latent_prior.code.to_noise = None  # it is not looked for again
    pipe.move(start, shifts, noise)
    assert ImagePipeline(tiny_model("vae", prior="gaussian")).noise_of(start) is None
