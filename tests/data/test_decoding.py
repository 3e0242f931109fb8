"""Files to images: what is decoded, and how; what is a copy; what is broken, and how much of that is too much."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_picture
from drawings import all_images, as_image, draw_into, drawn, load, png, write_tiny
from PIL import Image

from hf_vae.data.listing import IMAGE_ENDINGS


@pytest.fixture
def folder(tmp_path) -> Path:
    """12 different PNGs, so that decoded values are known exactly."""
    return draw_into(tmp_path / "pictures", 12)


@pytest.fixture
def large_folder(tmp_path) -> Path:
    return write_tiny(tmp_path / "many")


@pytest.mark.parametrize("channels", [1, 3])
def test_every_common_kind_of_picture_is_found_and_decoded(tmp_path, channels):
    seen = [draw_picture(number) for number in range(7)]
    seen[3] = seen[3].convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    folder = tmp_path / "mixed"
    for name, stored, options in [  # in the order of their paths, which is the order they are taken in
        ("a.png", seen[0], {}),
        ("b.JPG", seen[1], {"quality": 95}),
        ("c/d.webp", seen[2], {"lossless": True}),
        ("c/e/f.jpeg", seen[3], {"quality": 95}),
        ("c/g.png", seen[4].convert("RGBA"), {}),
        ("h.jpg", seen[5].convert("CMYK"), {"quality": 95}),
        ("i.jpg", seen[6].transpose(Image.Transpose.ROTATE_90), {"quality": 95, "exif": exif}),
    ]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        stored.save(folder / name, **options)
    (folder / "notes.txt").write_text("no picture")

    splits = load(folder, image_channels=channels)
    expected = torch.stack([as_image(picture, channels=channels) for picture in seen])
    error = (all_images(splits).float() - expected).abs().mean((1, 2, 3))
    assert (error < 6).all(), f"mean error of each picture, of 255: {error}"  # what JPEG loses is less
    assert splits.facts["pictures_found"] == 7 and splits.facts["broken_skipped"] == 0


def test_images_are_what_the_space_would_show_the_model(folder):
    assert torch.equal(all_images(load(folder)), drawn(range(12)))


def test_a_crop_box_is_in_pixels_of_the_picture_however_large(tmp_path):
    colors = ["red", "blue", "green"]
    for number, color in enumerate(colors):
        picture = Image.new("RGB", (400, 400), "white")
        picture.paste(color, (300, 300, 400, 400))
        picture.save(tmp_path / f"{number}.jpg", quality=95)
    images = all_images(load(tmp_path, crop_box=(300, 300, 400, 400)))
    expected = torch.stack([as_image(Image.new("RGB", (28, 28), color)) for color in colors])
    assert (images.float() - expected).abs().mean() < 6


def test_exact_copies_are_counted_and_dropped(folder):
    for name in ("copy.png", "again/copy.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "003.png", folder / name)
    splits = load(folder)
    assert torch.equal(all_images(splits), drawn(range(12)))
    assert (splits.facts["pictures_found"], splits.facts["duplicates_dropped"]) == (14, 2)


def test_a_broken_file_is_named_counted_and_skipped(large_folder, capsys):
    whole = (large_folder / "000.png").read_bytes()
    (large_folder / "half.png").write_bytes(whole[: len(whole) // 2])
    splits = load(large_folder)
    assert len(splits.train) + len(splits.heldout) == 120
    assert (splits.facts["pictures_found"], splits.facts["broken_skipped"]) == (121, 1)
    assert "half.png" in capsys.readouterr().out


def test_more_than_one_percent_of_broken_files_stops_with_the_list(large_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_VAE_CACHE", str(tmp_path / "cache"))
    (large_folder / "empty.png").touch()
    (large_folder / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"(?s)2 of 122 .*empty\.png.*text\.jpg"):
        load(large_folder)
    assert not list((tmp_path / "cache").iterdir()), "a failed build leaves nothing behind"


@pytest.mark.parametrize("num_copies", [1, 3])
def test_one_distinct_picture_is_too_few(tmp_path, num_copies):
    for number in range(num_copies):
        (tmp_path / f"{number}.png").write_bytes(png(0))
    with pytest.raises(ValueError, match="found: 1; at least 3 are needed"):
        load(tmp_path)


def test_three_pictures_are_enough(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    splits = load(tmp_path)
    assert (len(splits.train), len(splits.heldout)) == (1, 2)


FORMATS = {".jfif": "JPEG", ".jpe": "JPEG", ".pbm": "PPM", ".pnm": "PPM", ".jpc": "JPEG2000"}


READ = [
    *("jpg", "JPEG", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "tif", "TIFF", "avif", "pgm", "ppm", "pnm"),
    *("jp2", "j2k", "qoi", "tga"),
]


@pytest.mark.parametrize("ending", READ)
def test_whatever_pillow_tells_by_its_content_is_read_under_any_of_its_endings(ending, tmp_path):
    draw_into(tmp_path / "in", 4, ending=f".{ending}", format=FORMATS.get(f".{ending}"))
    assert load(tmp_path / "in").facts == {
        "pictures_found": 4,
        "duplicates_dropped": 0,
        "broken_skipped": 0,
        "train": 2,
        "heldout": 2,
    }


def test_no_format_that_calls_programs_is_read(tmp_path):
    draw_into(tmp_path / "in", 200)
    draw_picture(999).save(tmp_path / "in" / "999.eps")
    (tmp_path / "in" / "999.eps").rename(tmp_path / "in" / "999.jpg")
    draw_picture(998).save(tmp_path / "in" / "998.eps")
    facts = load(tmp_path / "in").facts
    assert (facts["pictures_found"], facts["broken_skipped"]) == (201, 1)
    assert facts["left_out"] == {"files with the ending .eps": 1}
    assert not IMAGE_ENDINGS & {".eps", ".ps", ".pdf", ".ico", ".psd", ".wmf", ".svg", ".heic"}


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [draw_picture(number) for number in range(4)]
    for ending in ("gif", "tif", "webp"):
        for number in range(4):
            rest = frames[:number] + frames[number + 1 :]
            options = {"lossless": True} if ending == "webp" else {}
            place = tmp_path / ending / f"{number}.{ending}"
            place.parent.mkdir(exist_ok=True)
            frames[number].save(place, save_all=True, append_images=rest, **options)
        images = load(tmp_path / ending).train.images
        alone = load(draw_into(tmp_path / "alone", 4)).train.images
        assert (images.float() - alone.float()).abs().mean() < 6  # what 256 colours lose is less


def test_values_of_unknown_range_are_named(tmp_path, capsys):
    draw_into(tmp_path, 200)
    Image.fromarray(np.random.default_rng(0).random((8, 8), dtype=np.float32)).save(tmp_path / "unit.tiff")
    Image.fromarray(np.full((8, 8), 2**20, dtype=np.int32)).save(tmp_path / "counts.tiff")
    assert load(tmp_path).facts["broken_skipped"] == 2
    printed = capsys.readouterr().out
    assert all(f"{name}.tiff: holds values whose range is not known" in printed for name in ("unit", "counts"))
