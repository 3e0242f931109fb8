"""Labels become directions of latent space that tell unseen pictures apart, and stay with the model."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_model
from PIL import Image
from safetensors.torch import load_file, save_file

from hf_vae import FAMILIES
from hf_vae.commands import main
from hf_vae.config import DataConfig, RunConfig, TrainConfig
from hf_vae.data.cached import load_images
from hf_vae.data.labels import load_labels
from hf_vae.evaluation import labels as label_measures
from hf_vae.evaluation.titles import measured
from hf_vae.latents.directions import (
    DIRECTIONS_FILE,
    direction_size,
    read_directions,
    read_labelled_codes,
    write_directions,
)
from hf_vae.latents.encoding import encode_all
from hf_vae.latents.fit_directions import fit_directions, fit_labelled_codes
from hf_vae.latents.fit_prior import fit_components
from hf_vae.models.priors.base import Learning
from hf_vae.pictures import to_float
from hf_vae.pipeline import ImagePipeline
from hf_vae.run_folder import read_json, write_json


NUM_PICTURES = 400
HUES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of noise around a brightness, which their labels tell; one has none, and `word` says nothing."""
    folder = tmp_path_factory.mktemp("tones")
    chance = np.random.default_rng(0)
    lines = ["file_name,tone,level,hue,word,name"]
    for number in range(NUM_PICTURES):
        level = int(chance.integers(40, 216))
        hue = number % 3
        pixels = np.clip(chance.normal(level, 20, (28, 28, 3)), 0, 255)
        pixels[..., hue] = np.minimum(255, pixels[..., hue] + 40)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        tone = "" if number == 5 else "bright" if level > 128 else "dark"
        lines.append(f"{number}.png,{tone},{level},{HUES[hue]},{'ab'[number // 7 % 2]},n{number}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def data(folder):
    return DataConfig(train_data_dir=str(folder), split_seed=1)


@pytest.fixture(scope="module")
def splits(data):
    return load_images(data, 28, 3)


@pytest.fixture(scope="module")
def model(splits):
    torch.manual_seed(0)
    model = tiny_model("vae", latent_dim=32, prior="gaussian")
    fit_components(model, splits.train.batches(NUM_PICTURES))
    return model


@pytest.fixture(scope="module")
def code_model(splits):
    torch.manual_seed(0)
    model = tiny_model("autoencoder", latent_dim=32, code_dim=6, code_nats=10.0)  # random variances would drown all
    latents = encode_all(model, to_float(splits.train[:]))
    model.latent_prior.fit_priors(latents, 0, Learning(300))
    return model


def fitted(model, data, splits, *names):
    return fit_directions(model, splits, {name: load_labels(data, name, splits) for name in names})


def test_a_probe_tells_unseen_pictures_apart_and_chance_does_not(model, data, splits):
    tone, level, word = fitted(model, data, splits, "tone", "level", "word")
    assert (tone.name, tone.low, tone.high) == ("tone", "bright", "dark")
    assert level.low.startswith("level up to 1") and level.high.startswith("level above 1")
    assert tone.accuracy > 0.9 and level.accuracy > 0.9
    assert 0.2 < word.accuracy < 0.8
    assert len(splits.heldout) == 40 and tone.num_heldout in (39, 40) and level.num_heldout == 40


def test_its_accuracy_is_that_of_held_out_pictures_and_of_either_side_alike(model, data, splits):
    """Measured again from the direction itself: pictures are told apart by how far along it they lie."""
    (level,) = fitted(model, data, splits, "level")
    values = torch.tensor(load_labels(data, "level", splits))[splits.heldout.indices]
    is_high = values > float(level.low.removeprefix("level up to "))
    prior = model.latent_prior
    latents = model.encode(next(splits.heldout.batches(40))).latents
    unit = prior.coordinates(prior.mean + level.vector[None])[0]
    torch.testing.assert_close(unit.norm(), torch.tensor(1.0))
    along = (prior.coordinates(latents) @ unit).detach()
    best = max(
        ((along[is_high] > cut).float().mean() + (along[~is_high] <= cut).float().mean()).item() / 2 for cut in along
    )
    assert level.accuracy == pytest.approx(best, abs=0.1)


def test_of_three_words_each_is_told_from_the_others(model, data, splits):
    found = fitted(model, data, splits, "hue")
    assert [(each.low, each.high) for each in found] == [
        ("not blue", "blue"),
        ("not green", "green"),
        ("not red", "red"),
    ]


def test_labels_that_give_no_direction_are_refused(model, data, splits):
    with pytest.raises(ValueError, match="'name' has 400 different values, more than 10"):
        fitted(model, data, splits, "name")
    rare = [index == 0 for index in range(NUM_PICTURES)]
    with pytest.raises(ValueError, match="'rare' has 1 different values"):
        fit_directions(model, splits, {"rare": ["x"] * NUM_PICTURES})
    with pytest.raises(ValueError, match="'rare' has .* images of 'False' and .* of 'True'.*needs 10 of each"):
        fit_directions(model, splits, {"rare": rare})
    without = next(name for name, family in FAMILIES.items() if not family.model.has_encoder)
    with pytest.raises(ValueError, match="has no encoder"):
        fit_directions(tiny_model(without), splits, {"tone": load_labels(data, "tone", splits)})


def test_directions_are_read_as_they_were_written(model, data, splits, tmp_path):
    assert read_directions(tmp_path, 32) == []
    found = fitted(model, data, splits, "tone", "level")
    write_directions(tmp_path, found)
    again = read_directions(tmp_path, 32)
    for one, other in zip(found, again, strict=True):
        assert torch.equal(one.vector, other.vector)
        assert (one.name, one.low, one.high, one.accuracy) == (other.name, other.low, other.high, other.accuracy)
    with pytest.raises(ValueError, match="another latent space than one of 31 dimensions"):
        read_directions(tmp_path, 31)


@pytest.mark.parametrize("harm", ["truncated", "no facts", "nan", "empty", "other vectors"])
def test_a_file_that_others_made_is_refused_in_one_sentence(harm, model, data, splits, tmp_path):
    path = write_directions(tmp_path, fitted(model, data, splits, "tone"))
    vectors, facts = load_file(path), [{"name": "a", "low": "b", "high": "c", "accuracy": 1, "heldout": 1}]
    if harm == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "no facts":
        save_file(vectors, path)
    elif harm == "nan":
        save_file({"0": vectors["0"] * float("nan")}, path, {"directions": json.dumps(facts)})
    else:
        save_file({"1": vectors["0"]}, path, {"directions": json.dumps(facts)})
    with pytest.raises(ValueError, match=rf"^[^\n]*{DIRECTIONS_FILE} (cannot be read|has values)"):
        read_directions(tmp_path, 32)


def test_the_command_keeps_them_beside_the_weights_and_says_how_good_they_are(
    model, folder, splits, tmp_path, monkeypatch, capsys
):
    run_folder = tmp_path / "tones-vae"
    model.save_pretrained(run_folder)
    data = DataConfig(train_data_dir="where it was trained")
    RunConfig("vae", tiny_config("vae"), FAMILIES["vae"].objective(), data, TrainConfig()).save(run_folder)
    splits.split.save(run_folder)
    arguments = ["directions", str(run_folder), "--labels", "tone", "level", "--train_data_dir", str(folder)]
    monkeypatch.setattr(sys, "argv", ["hf-vae", *arguments])
    main.main()
    printed = capsys.readouterr().out
    found = read_directions(run_folder, 32)
    assert [each.name for each in found] == ["tone", "level"]
    for each in found:
        assert each.low in printed and each.high in printed and f"{each.accuracy:.3f}" in printed


def code_of(model, images):
    """Posterior means along the principal components of the code."""
    prior = model.latent_prior
    with torch.no_grad():
        return prior.get("code").to_noise(model.encode(images).latents, prior)[0]


def test_with_a_code_a_step_is_the_way_between_the_mean_codes_of_both_sides(code_model, data, splits):
    tone, level = fitted(code_model, data, splits, "tone", "level")
    assert tone.vector.shape == level.vector.shape == (6,)
    assert tone.accuracy > 0.9 and level.accuracy > 0.9
    assert direction_size(code_model.config) == 6
    codes, images = code_of(code_model, to_float(splits.train[:])), splits.train.indices
    tones = [load_labels(data, "tone", splits)[index] for index in images]
    means = [codes[torch.tensor([each == word for each in tones])].mean(0) for word in (tone.low, tone.high)]
    torch.testing.assert_close(tone.vector, means[1] - means[0], atol=1e-4, rtol=1e-4)
    levels = torch.tensor(load_labels(data, "level", splits))[images].float()
    slope = torch.stack([torch.cov(torch.stack([levels, code]))[0, 1] for code in codes.T]) / levels.std()
    torch.testing.assert_close(level.vector, 2 * slope, atol=0.02, rtol=0.02)


def test_a_slider_of_a_label_moves_the_code(code_model, data, splits):
    (tone,) = fitted(code_model, data, splits, "tone")
    pipeline = ImagePipeline(code_model)
    latents = code_model.encode(next(splits.heldout.batches(40))).latents.detach()
    moved = pipeline.shift(latents, 2 * tone.vector[None])
    assert torch.equal(moved, code_model.latent_prior.move(latents, 2 * tone.vector[None]))
    before, after = (code_of_latents(code_model, some) @ tone.vector for some in (latents, moved))
    assert (after - before).min() > 0
    torch.testing.assert_close(pipeline.shift(latents, 0 * tone.vector[None]), latents)


def code_of_latents(model, latents):
    with torch.no_grad():
        return model.latent_prior.get("code").to_noise(latents, model.latent_prior)[0]


def test_samples_have_the_label_that_they_are_asked_for(code_model, data, splits):
    columns = {name: load_labels(data, name, splits) for name in ("tone", "level")}
    pipeline = ImagePipeline(code_model, fit_labelled_codes(code_model, splits, columns))
    assert [label.name for label in pipeline.labels] == ["tone", "level"]
    (tone,) = fitted(code_model, data, splits, "tone")
    codes = {}
    for word in (tone.low, tone.high):
        noise = torch.Generator().manual_seed(0)
        mean, root = pipeline.codes.given({"tone": word})
        codes[word] = mean + torch.randn(200, 6, generator=noise) @ root.T
    between = (codes[tone.high] - codes[tone.low]).mean(0)
    assert torch.nn.functional.cosine_similarity(between, tone.vector, 0) > 0.9
    one, other = (pipeline.sample(8, 0, labels={"level": level}).latents for level in (60, 200))
    assert not torch.equal(one, other)
    assert torch.equal(pipeline.sample(8, 0, labels={}).latents, pipeline.sample(8, 0).latents)
    again = pipeline.sample(1, 0, labels={"level": "200"}, skip=3).latents
    torch.testing.assert_close(again[0], other[3], atol=1e-4, rtol=1e-4)


def test_the_fit_of_the_code_given_labels_is_the_same_again(code_model, data, splits):
    columns = {"level": load_labels(data, "level", splits)}
    before = torch.get_rng_state()
    one, other = (fit_labelled_codes(code_model, splits, columns) for _ in range(2))
    assert torch.equal(one.mean, other.mean) and torch.equal(one.root, other.root)
    assert torch.equal(torch.get_rng_state(), before)
    # over all training images the prior draws what the Gaussian of its code describes
    assert one.mean[:6].abs().max() < 0.2 and ((one.root @ one.root.T).diagonal()[:6] - 1).abs().max() < 0.4


@pytest.fixture
def few_samples(monkeypatch):
    monkeypatch.setattr(label_measures, "SAMPLES", 8)
    monkeypatch.setattr(label_measures, "PROBE_IMAGES", 200)


def test_with_a_code_the_command_measures_samples_and_sliders(
    code_model, folder, splits, tmp_path, monkeypatch, capsys, few_samples
):
    run_folder = tmp_path / "tones-autoencoder"
    code_model.save_pretrained(run_folder)
    data = DataConfig(train_data_dir="where it was trained")
    family = "autoencoder"
    RunConfig(family, tiny_config(family), FAMILIES[family].objective(), data, TrainConfig()).save(run_folder)
    splits.split.save(run_folder)
    others = {"image_size": 28, "label_age_samples_error": 3.0, "feature_network": "simclr", "sample_prior": "code"}
    write_json(run_folder, "metrics.json", others)
    arguments = ["directions", str(run_folder), "--labels", "tone", "level", "--train_data_dir", str(folder)]
    monkeypatch.setattr(sys, "argv", ["hf-vae", *arguments])
    main.main()
    printed = capsys.readouterr().out
    metrics = read_json(run_folder, "metrics.json")
    assert metrics["image_size"] == 28 and "label_age_samples_error" not in metrics
    found = {name: value for name, value in metrics.items() if name.startswith("label_")}
    words = {f"label_tone_{each}" for each in ("probe_accuracy", "samples_accuracy")}
    numbers = {f"label_level_{each}" for each in ("probe_error", "samples_error")}
    assert words | numbers <= set(found)
    assert metrics["label_tone_probe_accuracy"] > 0.8 and 0 < metrics["label_level_probe_error"] < 40
    assert 0 <= metrics["label_tone_samples_accuracy"] <= 1
    titles = {row.key: row.title for row in measured(metrics)}
    assert set(found) <= set(titles) and all(titles[key] in printed for key in found)
    codes = read_labelled_codes(run_folder, code_model.config)
    assert [label.name for label in codes.labels] == ["tone", "level"]
    pipeline = ImagePipeline.from_pretrained(run_folder)
    assert [label.name for label in pipeline.labels] == ["tone", "level"]
    sampled = run_folder / "samples.png"
    arguments = ["sample", str(run_folder), "--num", "1", "--label", "tone=dark", "--label", "level=90"]
    monkeypatch.setattr(sys, "argv", ["hf-vae", *arguments, "--output", str(sampled)])
    main.main()
    wanted = pipeline.sample(1, 0, labels={"tone": "dark", "level": 90}).images[0]
    assert Image.open(sampled).tobytes() == wanted.tobytes()


def test_a_pointer_of_git_lfs_is_not_taken_for_directions(tmp_path):
    (tmp_path / DIRECTIONS_FILE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=f"{DIRECTIONS_FILE} is a Git LFS pointer, not the directions: run `git lfs"):
        read_directions(tmp_path, 8)


def test_the_file_of_directions_has_the_mode_that_files_get_and_keeps_one_that_was_chosen(tmp_path):
    path = write_directions(tmp_path, [])
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    path.chmod(0o640)
    assert write_directions(tmp_path, []).stat().st_mode & 0o777 == 0o640
