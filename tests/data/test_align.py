"""Faces whose eyes are put at the same places."""

import json
import re

import pytest
import torch
from conftest import draw_picture
from dotted_faces import FACE, dot_network, draw_dots, turned  # noqa: F401  # a fixture
from drawings import load
from PIL import Image

from hf_vae.config import DataConfig
from hf_vae.data.align import align_faces
from hf_vae.data.labels import load_labels
from hf_vae.data.landmarks import find_landmarks
from hf_vae.pictures import picture_to_uint8, to_float


pytestmark = pytest.mark.usefixtures("dot_network")


@pytest.fixture
def faces(tmp_path):
    """Eight crooked faces in images of 64x64 pixels with an age each, a drawing without a face, and a broken file."""
    folder = tmp_path / "faces"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number, angle in enumerate((-20, -12, -5, 0, 4, 8, 14, 20)):
        place = 64 * turned(0.85 * FACE + 0.075, angle) + 6 * torch.rand(2, generator=generator) - 3
        draw_dots(place, (64, 64), 110 + 5 * number).save(folder / f"face{number}.png")
    draw_picture(3).save(folder / "house.png")
    (folder / "broken.png").write_bytes(b"no image")
    rows = [{"file_name": f"face{number}.png", "age": 20 + number} for number in range(7)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def points(folder):
    files = sorted(folder.glob("*.png"))
    images = to_float(torch.stack([picture_to_uint8(Image.open(file)) for file in files]))
    return find_landmarks(images)


def test_eyes_lie_where_they_were_asked_for(faces, tmp_path):
    done = align_faces(DataConfig(train_data_dir=str(faces)), tmp_path / "out", 80, 0.4, 0.35)
    found = points(tmp_path / "out")
    assert found.found.all() and len(found.points) == done.written == 8
    eyes = torch.tensor([[24.0, 28.0], [56.0, 28.0]])
    assert (found.points[:, :2] - eyes).abs().max() < 2
    assert found.rolls.abs().max() < 3
    assert done.before.roll > 10 and done.after.roll < 2
    assert done.before.x > 1 > done.after.x
    assert done.without_face == ["house.png"] and len(done.broken) == 1 and done.beyond == []
    assert "no face found, skipped: 1\n  house.png" in str(done) and "broken.png: not a" in str(done)


def test_the_framing_is_that_of_the_median_image_unless_asked_for(faces, tmp_path):
    done = align_faces(DataConfig(train_data_dir=str(faces)), tmp_path / "out")
    assert done.framing.edge == 64
    assert done.framing.eye_distance == pytest.approx(0.34, abs=0.02)
    assert 0.3 < done.framing.eye_height < 0.5


def test_faces_in_photos_are_cropped_out_of_them(tmp_path):
    (tmp_path / "photos").mkdir()
    for number, (x, y) in enumerate([(20, 30), (150, 60), (60, 10)]):
        draw_dots(60 * FACE + torch.tensor([x, y]), (260, 140)).save(tmp_path / "photos" / f"{number}.png")
    done = align_faces(DataConfig(train_data_dir=str(tmp_path / "photos")), tmp_path / "out", 64)
    assert (done.framing.eye_distance, done.framing.eye_height) == (0.35, 0.42)
    found = points(tmp_path / "out")
    assert found.found.all() and (found.eye_distances - 0.35 * 64).abs().max() < 2


def test_a_large_photo_gives_the_same_face_as_a_small_one(tmp_path):
    (tmp_path / "photos").mkdir()
    place = turned(FACE, 10)
    draw_dots(800 * place, (800, 800)).save(tmp_path / "photos" / "0.png")
    draw_dots(80 * place, (80, 80)).save(tmp_path / "photos" / "1.png")
    align_faces(DataConfig(train_data_dir=str(tmp_path / "photos")), tmp_path / "out", 64, 0.35, 0.4)
    large, small = (picture_to_uint8(Image.open(file)).float() for file in sorted((tmp_path / "out").glob("*.png")))
    assert (large - small).abs().mean() < 8  # of 255


def test_labels_follow_into_the_new_folder_and_training_reads_it(faces, tmp_path):
    align_faces(DataConfig(train_data_dir=str(faces)), tmp_path / "out", 32)
    splits = load(tmp_path / "out")
    ages = load_labels(DataConfig(train_data_dir=str(tmp_path / "out")), "age", splits)
    assert sorted(ages, key=str) == [20, 21, 22, 23, 24, 25, 26, None]


def test_a_face_that_needs_too_much_from_outside_of_its_photo_is_skipped(faces, tmp_path):
    draw_dots(64 * FACE - torch.tensor([18.0, 0]), (64, 64)).save(faces / "edge.png")
    done = align_faces(DataConfig(train_data_dir=str(faces)), tmp_path / "out", max_beyond=0.2)
    assert done.beyond == ["edge.png"] and done.written == len(list((tmp_path / "out").glob("*.png"))) == 8


@pytest.mark.parametrize("what", ["a file", "a full folder", "no parent"])
def test_nothing_is_ever_overwritten(what, faces, tmp_path):
    output = tmp_path / "out"
    if what == "a file":
        output.write_text("mine")
    elif what == "a full folder":
        output.mkdir()
        (output / "mine.txt").write_text("mine")
    else:
        output = tmp_path / "nowhere" / "out"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(str(output.parent))):
        align_faces(DataConfig(train_data_dir=str(faces)), output)
    assert sorted(tmp_path.rglob("*")) == before


def test_images_without_faces_are_refused_and_nothing_is_written(picture_folder, tmp_path):
    with pytest.raises(ValueError, match="No face was found in 40 images"):
        align_faces(DataConfig(train_data_dir=str(picture_folder)), tmp_path / "out")
    assert not list(tmp_path.iterdir())
