"""Whole samples: which images OpenCV's cascades find a face in, and what is made of that."""

import sys

import pytest
import torch
from conftest import draw_picture, tiny_model

from hf_vae.evaluation import faces
from hf_vae.evaluation.evaluate import evaluate
from hf_vae.evaluation.faces import CASCADES, contain_faces, find_faces, open_cascade
from hf_vae.evaluation.titles import measured
from hf_vae.models.base import DecoderOutput
from hf_vae.pictures import picture_to_uint8, square_picture, to_float


FACE_MEASURES = {"faces_cascade", "faces_found_real", "faces_found_samples", "faces_found_samples_ratio"}


@pytest.fixture
def drawn() -> torch.Tensor:
    """Twelve drawings, the first eight of them brighter than the last four."""
    images = torch.stack([picture_to_uint8(square_picture(draw_picture(number), 28)) for number in range(12)])
    images = 0.2 * to_float(images)
    images[:8] += 0.7
    return images


@pytest.fixture
def bright_is_a_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the cascades: it takes bright images for cat faces, and finds no human ones."""
    monkeypatch.setattr(
        faces, "contain_faces", lambda images, kind: (images.mean((1, 2, 3)) > 0.3) & (kind == "cat faces")
    )


@pytest.mark.parametrize("kind", CASCADES)
def test_no_cascade_finds_a_face_in_noise_of_any_size_or_number_of_channels(kind, images):
    assert contain_faces(images, kind).tolist() == [False] * 7
    large = torch.rand(2, 1, 200, 200, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert contain_faces(large, kind).tolist() == [False] * 2


def test_cascades_search_each_image_once_in_grey_with_a_border(monkeypatch, images):
    class Spy:
        searched = []

        def detectMultiScale(self, grey, scale, min_neighbors, minSize):  # noqa: N802, N803  # OpenCV's names
            self.searched.append((grey, min_neighbors))
            return [(0, 0, 9, 9)] if grey.mean() > 200 else ()

    monkeypatch.setattr(faces, "open_cascade", lambda kind: Spy())
    images[3:5] = 1
    assert contain_faces(images, "cat faces").tolist() == [number in (3, 4) for number in range(7)]
    assert len(Spy.searched) == 7
    for grey, min_neighbors in Spy.searched:
        assert grey.shape == (320, 320) and grey.dtype == "uint8"
        assert (grey[:64] == grey[64]).all() and min_neighbors == CASCADES["cat faces"].min_neighbors


def test_images_without_faces_get_no_measure_of_them(family, images):
    assert find_faces(images) is None
    found = evaluate(tiny_model(family), images)
    assert not [name for name in found if "faces" in name]
    assert not [row.title for row in measured(found) if "face" in row.title]


def test_the_cascade_that_finds_more_real_faces_is_taken_if_they_are_half(bright_is_a_face, drawn):
    found = find_faces(drawn)
    assert (found.kind, found.share_real) == ("cat faces", pytest.approx(2 / 3))
    assert find_faces(drawn[4:]).share_real == 0.5
    assert find_faces(drawn[5:]) is None


def test_faces_are_counted_as_a_ratio_to_real_images(bright_is_a_face, family, drawn, monkeypatch):
    model = tiny_model(family)
    monkeypatch.setattr(model, "decode", lambda latents: DecoderOutput(torch.full((len(latents), 3, 28, 28), 0.9)))
    found = evaluate(model, drawn)
    assert found.keys() >= FACE_MEASURES
    assert (found["faces_cascade"], found["faces_found_samples"]) == ("cat faces", 1.0)
    assert found["faces_found_real"] == pytest.approx(2 / 3)
    ratios = {name: value for name, value in found.items() if "faces" in name and name.endswith("_ratio")}
    paths = [f"interpolation_{kind}_faces_found_ratio" for kind in model.latent_prior.paths if model.has_encoder]
    assert ratios.keys() == {"faces_found_samples_ratio", "slider_faces_found_ratio", *paths}
    assert all(value == pytest.approx(1.5) for value in ratios.values())
    assert {row.key for row in measured(found)} >= ratios.keys()


@pytest.mark.parametrize("missing", [None, object()], ids=["no OpenCV", "no cascades"])
def test_a_missing_opencv_is_one_clear_error(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", missing)
    open_cascade.cache_clear()
    with pytest.raises(ValueError, match=r"OpenCV 4, which is not installed: pip install 'opencv-python-headless"):
        faces.open_cascades()
