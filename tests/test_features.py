"""Distances between sets of pictures, and the network whose features they are measured in."""

import pytest
import torch
from conftest import tiny_model

from hf_vae.evaluation import evaluate
from hf_vae.feature_training import contrastive_loss, main, view
from hf_vae.features import (
    FeatureNetwork,
    extract,
    frechet_distance,
    kernel_distance,
    open_features,
    precision_and_recall,
    shipped_network,
)


def points(count: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, 4, generator=generator, dtype=torch.float64) + shift


def test_the_frechet_distance_of_gaussians_is_its_closed_form():
    first, second = points(200_000, 0), points(200_000, 1, shift=0.5, scale=3)
    assert frechet_distance(first, second) == pytest.approx(4 * (0.5**2 + (3 - 1) ** 2), rel=0.02)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-9)


def test_the_kernel_distance_tells_another_distribution_from_another_draw():
    same = [kernel_distance(points(400, seed), points(400, seed + 50)) for seed in range(8)]
    assert abs(sum(same) / 8) < 0.1 * kernel_distance(points(400, 0), points(400, 50, shift=1.0))


def test_precision_falls_where_samples_are_unreal_and_recall_where_they_lack_variety():
    real = points(500, 0)
    good, unreal, narrow = points(500, 1), points(500, 1, shift=20), points(500, 1, scale=0.1)
    precision, recall = precision_and_recall(good, real)
    assert precision > 0.7 and recall > 0.7
    assert precision_and_recall(unreal, real) == (0, 0)
    precision, recall = precision_and_recall(narrow, real)
    assert precision > 0.9 and recall < 0.2


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance, precision_and_recall])
def test_a_distance_of_one_picture_is_refused(distance):
    with pytest.raises(ValueError, match="at least 2 images in each set; got 1 and 5"):
        distance(points(1, 0), points(5, 1))


def test_the_shipped_network_takes_every_size_and_grey_pictures_and_batches_do_not_matter():
    network = shipped_network()
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = extract(network, images)
    assert found.shape == (3, 128) and found.dtype == torch.float64
    torch.testing.assert_close(found.norm(dim=1), torch.full((3,), 128.0, dtype=torch.float64).sqrt())
    torch.testing.assert_close(extract(network, images[1:2]), found[1:2], rtol=1e-4, atol=1e-4)
    assert extract(network, torch.zeros(2, 1, 28, 28)).shape == (2, 128)
    grey = images.mean(1, keepdim=True)
    torch.testing.assert_close(extract(network, grey), extract(network, grey.expand(-1, 3, -1, -1)))


def test_the_contrastive_loss_is_low_where_views_find_each_other():
    pictures = torch.eye(8)
    assert contrastive_loss(pictures.repeat(2, 1)) < 0.2
    assert contrastive_loss(torch.cat([pictures, pictures.roll(1, 0)])) > 4


def test_a_view_is_another_one_each_time_and_stays_in_range():
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    generator = torch.Generator().manual_seed(1)
    first, second = view(images, generator), view(images, generator)
    assert first.shape == images.shape and first.abs().max() <= 1
    assert (first - second).abs().mean() > 0.05


def test_a_network_is_trained_on_folders_and_loads_again(picture_folder, tmp_path, capsys):
    main([picture_folder], tmp_path / "network", steps=2, train_batch_size=8)
    assert "held-out ones" in capsys.readouterr().out
    network = open_features(str(tmp_path / "network"))
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 128)


def test_metrics_are_called_after_the_network_that_they_were_measured_in(tmp_path):
    FeatureNetwork("other", 32, 16, 4).save_pretrained(tmp_path / "other")
    images = torch.rand(4, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = evaluate(tiny_model("dcgan"), images, network=open_features(str(tmp_path / "other")))
    assert found["feature_network"] == "other" and found["frechet_other_prior_standard"] > 0
    assert not any("simclr" in name for name in found)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("fid", None, "There are no features 'fid': choose simclr, inception or"),
        ("simclr", "inception.pth", "--inception_weights are for --feature_network inception, which is simclr"),
    ],
)
def test_features_that_are_not_there_are_refused_by_name(name, weights, message):
    with pytest.raises(ValueError, match=message):
        open_features(name, weights)


def test_inception_features_say_what_they_need(tmp_path):
    try:
        import torch_fidelity  # noqa: F401
    except (ImportError, RuntimeError):  # it is not there, or torchvision does not suit torch
        missing, message = tmp_path / "none.pth", "pip install torch-fidelity"
    else:
        missing, message = tmp_path / "none.pth", "weights of Inception-v3 .*none.pth.* cannot be read"
    with pytest.raises(ValueError, match=message):
        open_features("inception", missing)
