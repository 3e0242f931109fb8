"""Pictures to tensors and back, and the augmentation of batches."""

from io import BytesIO

import numpy as np
import pytest
import torch
from conftest import draw_picture
from PIL import Image

from hf_vae.objectives.augmentation import augment, diff_augment, move
from hf_vae.pictures import picture_grid, picture_to_uint8, square_picture, to_float, to_pictures


# what a viewer does for each EXIF orientation, undone
STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(picture: Image.Image, **options) -> Image.Image:
    """The picture, written as PNG and opened again."""
    buffer = BytesIO()
    picture.save(buffer, "PNG", **options)
    return Image.open(buffer)


def striped(colors: list[str], vertical: bool = False) -> Image.Image:
    """Squares of 20 pixels side by side, or one below the other."""
    picture = Image.new("RGB", (20 * len(colors), 20) if not vertical else (20, 20 * len(colors)))
    for number, color in enumerate(colors):
        picture.paste(
            color, ((0, 20 * number, 20, 20 * number + 20) if vertical else (20 * number, 0, 20 * number + 20, 20))
        )
    return picture


def only_color(picture: Image.Image, border: int = 0) -> tuple[int, int, int] | int:
    """The color of a picture that has only one, but for a border that resizing may mix with its neighbours."""
    width, height = picture.size
    ((_, color),) = picture.crop((border, border, width - border, height - border)).getcolors()
    return color


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_any_picture_becomes_a_square_image(mode, channels):
    picture = Image.new(mode, (41, 30)) if mode in ("I;16", "I") else draw_picture(0, (41, 30)).convert(mode)
    images = to_float(picture_to_uint8(square_picture(picture, 28, channels)))
    assert images.shape == (channels, 28, 28)
    assert images.min() >= -1 and images.max() <= 1


@pytest.mark.parametrize("orientation", STORED_AS)
def test_exif_rotation_is_applied(orientation):
    upright = draw_picture(1, (60, 40))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = saved(upright.transpose(STORED_AS[orientation]), exif=exif)
    assert square_picture(stored, 32).tobytes() == square_picture(upright, 32).tobytes()
    crop_box = (30, 5, 60, 35)
    assert (
        square_picture(stored, 32, crop_box=crop_box).tobytes()
        == square_picture(upright, 32, crop_box=crop_box).tobytes()
    )


@pytest.mark.parametrize(("alpha", "expected"), [(0, (255, 255, 255)), (128, (255, 127, 127)), (255, (255, 0, 0))])
def test_transparency_is_laid_on_white(alpha, expected):
    color = only_color(square_picture(Image.new("RGBA", (30, 30), (255, 0, 0, alpha)), 28))
    assert np.abs(np.subtract(color, expected)).max() <= 1


def test_transparent_palette_entry_becomes_white():
    picture = Image.new("P", (40, 20), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(1, (20, 0, 40, 20))
    picture = saved(picture, transparency=0)
    assert only_color(square_picture(picture, 28, crop_box=(0, 0, 20, 20))) == (255, 255, 255)
    assert only_color(square_picture(picture, 28, crop_box=(20, 0, 40, 20))) == (0, 0, 255)


def test_transparent_grey_becomes_white():
    assert only_color(square_picture(Image.new("LA", (30, 30), (0, 0)), 28, channels=1)) == 255


def test_cmyk_keeps_its_colors():
    assert only_color(square_picture(Image.new("CMYK", (30, 30), (0, 255, 255, 0)), 28)) == (255, 0, 0)


@pytest.mark.parametrize("value", [0, 64, 128, 255])
def test_16_bit_grey_is_scaled_and_not_clipped(value):
    picture = saved(Image.fromarray(np.full((30, 30), value * 257, dtype=np.uint16)))
    assert only_color(square_picture(picture, 28, channels=1)) == value
    assert only_color(square_picture(picture, 28)) == (value, value, value)


@pytest.mark.parametrize("vertical", [False, True])
def test_centred_square_is_taken(vertical):
    assert only_color(square_picture(striped(["red", "lime", "blue"], vertical), 28), border=5) == (0, 255, 0)


def test_crop_box_is_cut_out_before_the_square():
    assert only_color(square_picture(striped(["red", "lime", "blue"]), 28, crop_box=(40, 0, 60, 20))) == (0, 0, 255)
    picture = square_picture(striped(["red", "lime", "blue", "red"]), 28, crop_box=(0, 0, 60, 20))
    assert only_color(picture, border=5) == (0, 255, 0)


@pytest.mark.parametrize(
    "crop_box", [(-1, 0, 10, 10), (0, 0, 61, 20), (0, 0, 60, 21), (10, 0, 10, 20), (0, 15, 20, 5)]
)
def test_crop_box_outside_the_picture_is_refused(crop_box):
    with pytest.raises(ValueError, match=r"crop_box=.*60x20"):
        square_picture(striped(["red", "lime", "blue"]), 28, crop_box=crop_box)


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels_are_refused(channels):
    with pytest.raises(ValueError, match=f"image_channels={channels}"):
        square_picture(draw_picture(0), 28, channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_survive_the_round_trip_exactly(channels):
    values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(channels, 1, 1)
    images = torch.stack([values, values.flip(1)])
    restored = torch.stack([picture_to_uint8(picture) for picture in to_pictures(to_float(images))])
    assert torch.equal(restored, images)


def test_what_the_network_overshoots_is_clipped():
    pictures = to_pictures(torch.tensor([-3.0, 3.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8))
    assert [only_color(picture) for picture in pictures] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize(("output_size", "expected"), [(None, 28), (28, 28), (50, 50), (20, 20)])
def test_output_size_is_the_size_of_the_pictures(output_size, expected):
    assert [picture.size for picture in to_pictures(torch.zeros(2, 3, 28, 28), output_size)] == [
        (expected, expected)
    ] * 2


def test_flip_mirrors_about_half_and_does_nothing_else():
    torch.manual_seed(0)
    images = torch.rand(1000, 3, 4, 4) * 2 - 1
    flipped = augment(images, torch.rand(1000, 4), flip=True)
    is_mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert (is_mirrored | (flipped == images).flatten(1).all(1)).all()
    assert 400 < is_mirrored.sum() < 600


def test_no_augmentation_changes_nothing():
    images = torch.rand(4, 3, 8, 8) * 2 - 1
    assert torch.equal(augment(images, torch.rand(4, 4), flip=False, color_jitter=0), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_recolors_each_image_by_at_most_its_share(channels):
    torch.manual_seed(0)
    grey = torch.full((64, channels, 4, 4), -0.2)
    recolored = augment(grey, torch.rand(64, 4), flip=False, color_jitter=0.1)
    brightness = (recolored + 1) / 0.8  # plain grey: only brightness can change it
    assert (brightness - 1).abs().max() <= 0.1 + 1e-5
    assert brightness[:, 0, 0, 0].unique().numel() > 60
    jittered = augment(torch.rand(64, channels, 8, 8) * 2 - 1, torch.rand(64, 4), color_jitter=0.9)
    assert jittered.min() >= -1 and jittered.max() <= 1


def test_a_shift_moves_images_by_at_most_its_share_and_fills_the_edge_with_their_mirror_images():
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 32).expand(64, 3, 32, 32)  # brighter to the right: its middle says how far it moved
    moved = move(ramp, torch.rand(64, 3), shift=0.25)
    shifts = moved[:, 0, 16, 14:18].mean(1) / 2
    assert shifts.abs().max() <= 0.25 * 32 / 31 + 1e-3
    assert shifts.min() < -0.2 and shifts.max() > 0.2
    assert moved.min() >= -1 and moved.max() <= 1
    assert (moved[shifts > 0.1, 0, 16].argmax(1) < 31).all()  # mirrored beyond the right edge
    rows = move(ramp.transpose(2, 3), torch.rand(64, 3), shift=0.25)[:, 0, 14:18, 16].mean(1) / 2
    assert rows.min() < -0.2 and rows.max() > 0.2


def test_a_zoom_keeps_the_middle_and_changes_the_size_by_at_most_its_share():
    ramp = torch.linspace(-1, 1, 32).expand(3, 3, 32, 32)
    moved = move(ramp, torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [0.5, 0.5, 1.0]]), zoom=0.5)
    slopes = (moved[:, 0, 16, 18] - moved[:, 0, 16, 13]) / (ramp[:, 0, 16, 18] - ramp[:, 0, 16, 13])
    torch.testing.assert_close(slopes, torch.tensor([1.5, 1.0, 1 / 1.5]))
    torch.testing.assert_close(moved[1], ramp[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_diff_augment_passes_gradients_and_differs_per_image(channels):
    torch.manual_seed(0)
    images = torch.rand(1, channels, 32, 32).repeat(8, 1, 1, 1).requires_grad_()
    augmented = diff_augment(images, torch.rand(8, 5))
    assert augmented.shape == images.shape
    assert torch.pdist(augmented.detach().flatten(1)).min() > 0
    augmented.square().sum().backward()
    assert (images.grad.flatten(1).abs().sum(1) > 0).all() and images.grad.isfinite().all()


def test_diff_augment_brightens_each_image_by_its_own_amount():
    torch.manual_seed(0)
    grey = torch.full((64, 3, 32, 32), 0.2)  # only brightness can change it
    centers = diff_augment(grey, torch.rand(64, 5))[:, :, 16, 16]
    assert (centers - 0.2).abs().max() <= 0.5 + 1e-5
    assert centers[:, 0].unique().numel() > 60
    torch.testing.assert_close(centers, centers[:, :1].expand(-1, 3))


def test_diff_augment_moves_content_by_up_to_an_eighth():
    torch.manual_seed(0)
    images = torch.zeros(64, 3, 32, 32)
    images[:, :, 16, 16] = 3  # brighter than anything that recolouring or filling can make
    brightest = diff_augment(images, torch.rand(64, 5)).mean(1).flatten(1).argmax(1)
    for shifts in (brightest // 32 - 16, brightest % 32 - 16):
        assert shifts.min() < 0 < shifts.max()
        assert shifts.abs().max() <= 4


def test_a_grid_holds_every_picture_in_order():
    pictures = [Image.new("RGB", (4, 3), (number, 0, 0)) for number in range(5)]
    grid = picture_grid(pictures, columns=2)
    assert grid.size == (8, 9)
    assert [grid.getpixel((4 * (n % 2), 3 * (n // 2)))[0] for n in range(5)] == list(range(5))
    assert picture_grid(pictures[:1], columns=8).size == (4, 3)
