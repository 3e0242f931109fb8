"""The numbers that are published."""

import json
import math

import pytest
import torch
from conftest import draw_picture, tiny_model

from hf_vae import metrics
from hf_vae.config import DataConfig
from hf_vae.evaluation import SHARPNESS, evaluate, evaluate_folder
from hf_vae.transforms import picture_to_uint8, square_picture, to_float


@pytest.fixture(scope="module")
def images():
    return to_float(torch.stack([picture_to_uint8(square_picture(draw_picture(number), 28)) for number in range(12)]))


def test_what_is_measured_is_what_the_names_say(family, images):
    model = tiny_model(family)
    found = evaluate(model, images, seed=3)
    assert found["num_heldout"] == found["num_samples"] == len(images) and found["image_size"] == 28
    samples = model.sample(len(images), generator=torch.Generator().manual_seed(3))
    for name, measure in SHARPNESS.items():
        assert found[f"{name}_real"] == pytest.approx(measure(images).mean().item())
        assert found[f"{name}_samples"] == pytest.approx(measure(samples).mean().item(), rel=1e-4)
        assert found[f"{name}_samples_ratio"] == pytest.approx(found[f"{name}_samples"] / found[f"{name}_real"])
    assert found["median_distance_real"] == pytest.approx(metrics.median_distance(images))
    assert ("reconstruction_mse" in found) == model.has_encoder
    if model.has_encoder:
        reconstructions = model.decode(model.encode(images).latents).sample.clamp(-1, 1)
        assert found["reconstruction_mse"] == pytest.approx(
            metrics.mse(reconstructions, images).mean().item(), rel=1e-4
        )


def test_measuring_again_gives_the_same(family, images):
    assert evaluate(tiny_model(family), images) == evaluate(tiny_model(family), images)


def test_a_model_that_always_draws_the_same_has_no_distance_between_samples(family, images):
    model = tiny_model(family)
    torch.nn.init.zeros_(model.decoder.head.weight)
    assert evaluate(model, images)["median_distance_samples_ratio"] < 0.01


def test_a_ratio_to_pictures_of_even_colour_is_left_out(family, images):
    measured = evaluate(tiny_model(family), torch.zeros_like(images), torch.zeros(9, 3, 28, 28, dtype=torch.uint8))
    assert measured["laplacian_variance_real"] == measured["nearest_distance_real"] == 0
    assert not measured.keys() & {"laplacian_variance_samples_ratio", "nearest_distance_samples_ratio"}
    assert all(math.isfinite(value) for value in measured.values() if not isinstance(value, str))


def test_images_of_another_size_are_refused(family, images):
    with pytest.raises(ValueError, match=r"\(3, 28, 28\) do not suit.*\(3, 32, 32\)"):
        evaluate(tiny_model(family, image_size=32), images)


def test_only_held_out_pictures_are_measured_and_saved_when_told(family, published_models, picture_folder, tmp_path):
    folder = tmp_path / "model"
    tiny_model(family).save_pretrained(folder)
    data = DataConfig(train_data_dir=str(picture_folder), validation_fraction=0.25)
    found = evaluate_folder(folder, data, save=False)
    assert found["num_heldout"] == 10 and not (folder / "metrics.json").exists()
    evaluate_folder(folder, data)
    saved = json.loads((folder / "metrics.json").read_text())
    assert saved.keys() == found.keys()
    assert saved["laplacian_variance_real"] == pytest.approx(found["laplacian_variance_real"], rel=1e-5)
