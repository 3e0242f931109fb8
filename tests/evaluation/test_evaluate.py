"""The numbers that are published."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import draw_picture, tiny_model

from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.evaluation import metrics
from hf_vae.evaluation.evaluate import evaluate, evaluate_folder, real_spread
from hf_vae.evaluation.features import extract, open_networks
from hf_vae.evaluation.metrics import frechet_distance, kernel_distance
from hf_vae.evaluation.titles import measured, network_notes
from hf_vae.latents.directions import write_directions
from hf_vae.latents.fit_detail import fit_detail
from hf_vae.models.base import DecoderOutput
from hf_vae.pictures import picture_to_uint8, square_picture, to_float


@pytest.fixture(scope="module")
def images():
    return to_float(torch.stack([picture_to_uint8(square_picture(draw_picture(number), 28)) for number in range(12)]))


def test_what_is_measured_is_what_the_names_say(family, images):
    model = tiny_model(family)
    found = evaluate(model, images, seed=3)
    assert found["num_heldout"] == found["num_samples"] == len(images) and found["image_size"] == 28
    samples = model.sample(len(images), generator=torch.Generator().manual_seed(3))
    for name, measure in ((name, metric.measure) for name, metric in metrics.SHARPNESS.items()):
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


def test_the_spread_of_real_images_stands_beside_their_mean(images):
    found = evaluate(tiny_model("vae"), images)
    for name, metric in metrics.SHARPNESS.items():
        values = metric.measure(images).sort().values / found[f"{name}_real"]
        low, high = (found[f"{name}_real_percentile_{percentile}_ratio"] for percentile in (10, 90))
        assert values[1] < low < values[2] < 1 < values[-3] < high < values[-2]  # of 12
    # equal images have no spread, and ratios to nothing are left out
    assert real_spread("x", torch.full((5,), 3.0)) == {
        "x_real_percentile_10_ratio": 1,
        "x_real_percentile_90_ratio": 1,
    }
    plain = evaluate(tiny_model("vae"), torch.zeros_like(images))
    assert not any(name.startswith("laplacian_variance_real_percentile") for name in plain)


def test_what_is_reconstructed_without_residual_latents_stands_beside_what_is_with_them(images):
    model = tiny_model("vae", latent_size=7, latent_dim=49, detail_dim=588).requires_grad_(False)
    fit_detail(model, [images])
    found = evaluate(model, images)
    assert (found["num_latents"], found["num_image_values"]) == (49 + 588, 3 * 28 * 28)
    bare = model.decoder(model.posterior(images).latents).clamp(-1, 1)
    for name, measure in (("mse", metrics.mse), ("psnr", metrics.psnr), ("ssim", metrics.ssim)):
        without = found[f"reconstruction_{name}_without_details"]
        assert without == pytest.approx(measure(bare, images).mean().item(), rel=1e-3)
    assert found["reconstruction_mse"] < 0.9 * found["reconstruction_mse_without_details"]
    for name, metric in metrics.SHARPNESS.items():
        ratio = metric.measure(bare).mean().item() / found[f"{name}_real"]
        assert found[f"{name}_reconstructions_without_details_ratio"] == pytest.approx(ratio, rel=1e-3)
    titles = [row.title for row in measured(found)]
    place = titles.index("Reconstruction MSE, images in [-1, 1]")
    assert titles[place + 1] == "Reconstruction MSE without residual latents, images in [-1, 1]"
    assert len([title for title in titles if "without residual latents" in title]) == 5


def test_a_model_without_residual_latents_has_no_figures_of_them(family, images):
    model = tiny_model(family)
    found = evaluate(model, images)
    assert not any("without_details" in name for name in found)
    assert found.get("num_latents") == (model.config.latent_dim if model.has_encoder else None)


def test_samples_are_compared_in_two_networks_and_the_second_measures_the_own_prior_alone(images):
    model = tiny_model("vae")
    training_images = ((images.flip(3) + 1) * 127.5).round().to(torch.uint8)
    found = evaluate(model, images, training_images, seed=3)
    assert found["feature_networks"] == ["simclr", "efficientnet"] and found["feature_network"] == "simclr"
    own = f"prior_{model.config.prior}"
    groups = {key.removeprefix("frechet_efficientnet_") for key in found if key.startswith("frechet_efficientnet_")}
    assert groups == {own, "training_images", "ratio"}
    assert found.keys() >= {f"frechet_simclr_prior_{prior}" for prior in ("mixture", "gaussian", "standard")}
    samples = model.sample(len(images), generator=torch.Generator().manual_seed(3))
    for network in open_networks():
        extracted, references = extract(network, samples), extract(network, images)
        distance = frechet_distance(extracted, references)
        assert found[f"frechet_{network.name}_{own}"] == pytest.approx(distance, rel=1e-2)
        distance = kernel_distance(extracted, references)
        assert found[f"kernel_{network.name}_{own}"] == pytest.approx(distance, rel=1e-2)
        ratio = found[f"frechet_{network.name}_{own}"] / found[f"frechet_{network.name}_training_images"]
        assert found[f"frechet_{network.name}_ratio"] == pytest.approx(ratio)
    assert not [name for name in evaluate(model, images) if name.startswith("frechet_") and name.endswith("_ratio")]


def test_titles_name_the_network_call_fid_what_is_fid_and_do_not_make_a_ratio_a_frequency():
    found = {"feature_network": "simclr", "feature_networks": ["simclr", "inception"], "sample_prior": "flow"}
    found |= {"num_samples": 1200, "frechet_simclr_prior_flow": 1.0, "frechet_inception_prior_flow": 50.0}
    found |= {"frechet_inception_training_images": 20.0, "kernel_inception_prior_flow": 0.1}
    found |= {"frechet_inception_ratio": 2.5}
    found |= {f"spectrum_band_{band}_samples_ratio": band / 4 for band in range(1, 9)}
    assert {row.title: row.value for row in measured(found)} == {
        "Power spectrum of samples against real images: smallest ratio over 8 frequency bands": 0.25,
        "Power spectrum of samples against real images: largest ratio over 8 frequency bands": 2.0,
        "Frechet distance (simclr features), samples, flow prior": 1.0,
        "FID of 1,200 images, samples, flow prior": 50.0,
        "FID of 1,200 images, training images": 20.0,
        "FID of 1,200 images, samples, ratio to training images": 2.5,
        "Kernel distance (inception features), samples, flow prior": 0.1,
    }
    old = {key: value for key, value in found.items() if key != "feature_networks"}
    assert "FID of 1,200 images, samples, flow prior" not in [row.title for row in measured(old)]


class StandInForInception:
    """As many features as `frechet_distance` needs, under the name that means FID."""

    name = "inception"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :300:30]


def test_fid_is_the_distance_in_inception_alone_and_says_how_many_images_and_which_resizing(images):
    model = tiny_model("vae")
    found = evaluate(model, images, torch.zeros(12, 3, 28, 28, dtype=torch.uint8), 3, [StandInForInception()])
    samples = model.sample(len(images), generator=torch.Generator().manual_seed(3))
    distance = frechet_distance(*(extract(StandInForInception(), group) for group in (samples, images)))
    assert found["fid"] == found[f"frechet_inception_prior_{model.config.prior}"] == pytest.approx(distance, rel=1e-2)
    assert found["fid_num_images"] == 12 and "299x299 pixels, bilinear without antialiasing" in found["fid_resizing"]
    titles = [row.title for row in measured(found)]
    assert f"FID of 12 images, samples, {model.config.prior} prior" in titles
    assert {"FID of 12 images, training images", "FID of 12 images, samples, ratio to training images"} <= {*titles}
    assert found["fid_resizing"] in network_notes(found) and "not FID" not in network_notes(found)
    assert evaluate(model, images, None, 3, [StandInForInception()])["fid"] == found["fid"]
    assert not [name for name in evaluate(model, images) if name.startswith("fid")]


def disc(latents: torch.Tensor) -> DecoderOutput:
    """Images `(B, 3, 28, 28)` of a disc. The first latent is the brightness of the image, the third and the fourth
    move the disc, and the others change nothing."""
    brightness, _, x, y = latents[:, :4, None, None].unbind(1)  # (B, 1, 1) each
    places = torch.arange(28.0)
    apart = torch.hypot(places - 14 - 5 * x.tanh(), places[:, None] - 14 - 5 * y.tanh())  # (B, 28, 28)
    images = 0.4 * torch.sigmoid(6 - apart) + 0.05 * brightness
    return DecoderOutput(images[:, None].expand(-1, 3, -1, -1))


def test_the_strength_of_a_slider_is_how_far_it_moves_shapes(family, images, monkeypatch):
    model = tiny_model(family, prior="standard")  # not trained: the components are the latents
    monkeypatch.setattr(model, "decode", disc)
    found = evaluate(model, images)
    strengths = [found[f"slider_strength_component_{number}"] for number in range(1, 9)]
    assert "slider_strength_component_9" not in found
    brightness, nothing, across, down, *others = strengths
    assert brightness == pytest.approx(0, abs=1e-6) and [nothing, *others] == [0] * 5
    assert across > 0.5 and down > 0.5
    assert found["slider_strength_median"] == pytest.approx(0, abs=1e-6)
    assert "Slider strength, median of the first components (at most ten)" in {row.title for row in measured(found)}


def test_sliders_are_moved_as_the_prior_says(images, monkeypatch):
    model = tiny_model("vae")
    monkeypatch.setattr(model, "decode", disc)

    def move(latents: torch.Tensor, shifts: torch.Tensor, noise: object = None) -> torch.Tensor:
        return latents + F.pad(shifts[:, -1:], (2, 5))

    monkeypatch.setattr(model.latent_prior, "move", move)
    strengths = {value for name, value in evaluate(model, images).items() if "slider_strength" in name}
    assert len(strengths) == 1 and strengths.pop() > 0.5


def test_samples_that_are_all_alike_have_no_slider_strength(family, images, monkeypatch):
    model = tiny_model(family)
    monkeypatch.setattr(model, "decode", lambda latents: disc(torch.zeros(len(latents), 8)))
    assert not [name for name in evaluate(model, images) if name.startswith("slider")]


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
    assert all(math.isfinite(value) for value in measured.values() if isinstance(value, (int, float)))


def test_images_of_another_size_are_refused(family, images):
    with pytest.raises(ValueError, match=r"\(3, 28, 28\) do not suit.*\(3, 32, 32\)"):
        evaluate(tiny_model(family, image_size=32), images)


def test_only_held_out_pictures_are_measured_and_saved_when_told(family, published_models, picture_folder, tmp_path):
    folder = tmp_path / "model"
    tiny_model(family).save_pretrained(folder)
    data = DataConfig(train_data_dir=str(picture_folder), validation_fraction=0.25)
    with pytest.raises(ValueError, match="its training images are not known"):
        evaluate_folder(folder, data, save=False)
    load_images(data, 28, 3).split.save(folder)
    found = evaluate_folder(folder, data, save=False)
    assert found["num_heldout"] == 10 and not (folder / "metrics.json").exists()
    evaluate_folder(folder, data)
    saved = json.loads((folder / "metrics.json").read_text())
    assert saved.keys() == found.keys()
    assert saved["laplacian_variance_real"] == pytest.approx(found["laplacian_variance_real"], rel=1e-5)
    fewer = evaluate_folder(folder, data, num_heldout=4)
    assert fewer["num_heldout"] == fewer["num_samples"] == 4
    assert evaluate_folder(folder, data, num_heldout=40)["num_heldout"] == 10


def test_what_was_measured_of_labels_stays_as_long_as_the_directions_do(picture_folder, tmp_path):
    tiny_model("vae", prior="gaussian").save_pretrained(tmp_path)
    data = DataConfig(train_data_dir=str(picture_folder), validation_fraction=0.25)
    load_images(data, 28, 3).split.save(tmp_path)
    path = tmp_path / "metrics.json"
    for has_directions in (True, False):
        path.write_text(json.dumps({"label_age_samples_error": 3.0, "other": 1}))
        if has_directions:
            write_directions(tmp_path, [])
        else:
            (tmp_path / "directions.safetensors").unlink()
        evaluate_folder(tmp_path, data)
        saved = json.loads(path.read_text())
        assert ("label_age_samples_error" in saved) == has_directions and "other" not in saved
