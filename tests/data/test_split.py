"""Which images a run holds out: known by their content, recorded, and kept by what follows."""

import json
import re
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from conftest import draw_picture, reset_accelerate, tiny_run, weights

from hf_vae.commands import main
from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.data.split import Split, draw_split, first_edition_split, read_split
from hf_vae.data.streaming import open_stream
from hf_vae.evaluation.evaluate import evaluate_folder, open_recorded
from hf_vae.publishing.cards import write_card
from hf_vae.training.loop import train


DIGESTS = [f"{number:016x}" for number in range(100)]


@pytest.fixture
def photos(picture_folder, tmp_path):
    """The 40 images in a folder that a test may change."""
    return shutil.copytree(picture_folder, tmp_path / "photos")


def add_images(folder, count, name="new"):
    for number in range(count):
        draw_picture(1000 + number).save(folder / f"{name}{number:02d}.jpg", quality=95)


def retrain(folder, output_dir, **changes):
    """A tiny run whose prior is fitted in milliseconds: no prior decides what is held out."""
    reset_accelerate()
    run = tiny_run("vae", folder, output_dir, **changes)
    return train(replace(run, model=run.model | {"prior": "mixture"}))


def evaluate_command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["hf-vae", "evaluate", *arguments, "--feature_network", "simclr", "--json"])
    main.main()


def test_a_split_follows_from_content_and_seed_alone():
    split = draw_split(DIGESTS, 0.1, 0)
    assert len(split.heldout) == 10 and len(split.train) == 90 and not set(split.train) & set(split.heldout)
    assert draw_split(DIGESTS[::-1], 0.1, 0) == split
    assert draw_split(DIGESTS, 0.1, 1).heldout != split.heldout


def test_images_that_are_known_stay_on_their_side():
    before = draw_split(DIGESTS[:60], 0.1, 0)
    after = draw_split(DIGESTS, 0.1, 5, known=before)
    assert set(before.train) <= set(after.train) and set(before.heldout) <= set(after.heldout)
    assert len(after.heldout) == 6 + 4
    assert draw_split(DIGESTS[:60], 0.3, 7, known=before) == before


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 0.99, float("nan")])
def test_a_split_without_training_or_heldout_images_is_refused(fraction):
    with pytest.raises(ValueError, match=f"validation_fraction={fraction} of 20 images"):
        draw_split(DIGESTS[:20], fraction, 0)


def test_renamed_files_and_another_spelling_keep_the_split(photos, tmp_path, monkeypatch):
    before = load_images(DataConfig(train_data_dir=str(photos)), 28, 3)
    for number, file in enumerate(sorted(photos.iterdir(), reverse=True)):
        file.rename(photos / f"renamed-{number:02d}.jpg")
    (tmp_path / "moved").mkdir()
    photos.rename(tmp_path / "moved" / "photos")
    monkeypatch.chdir(tmp_path / "moved")
    after = load_images(DataConfig(train_data_dir="../moved/photos/"), 28, 3)
    assert after.split == before.split
    assert (after.train[:] == before.train[:]).all() and (after.heldout[:] == before.heldout[:]).all()


def test_a_run_resumes_on_the_same_images_wherever_they_are(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    retrain("photos", "run", max_train_steps=3)
    photos.rename(tmp_path / "elsewhere")
    retrain("./elsewhere/", "run", max_train_steps=6, resume_from_checkpoint="latest")
    retrain("elsewhere", "whole")
    assert (tmp_path / "run/diffusion_pytorch_model.safetensors").read_bytes() == (
        tmp_path / "whole/diffusion_pytorch_model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("name", ["zzz", "000"])
def test_a_run_does_not_resume_on_other_images(name, photos, tmp_path):
    retrain(photos, tmp_path / "run", max_train_steps=3)
    recorded = (tmp_path / "run/split.json").read_bytes()
    add_images(photos, 7, name)
    (photos / "03.jpg").unlink()
    with pytest.raises(ValueError) as refused:
        retrain(photos, tmp_path / "run", max_train_steps=6, resume_from_checkpoint="latest")
    assert f"7 new ({name}00.jpg, {name}01.jpg" in str(refused.value) and "and 2 more" in str(refused.value)
    assert re.search(r"1 of \d+ (training|held-out) images missing", str(refused.value))
    assert "--output_dir" in str(refused.value) and (tmp_path / "run/split.json").read_bytes() == recorded


def test_a_run_without_its_split_does_not_resume(photos, tmp_path):
    retrain(photos, tmp_path / "run", max_train_steps=3)
    (tmp_path / "run/split.json").unlink()
    with pytest.raises(ValueError, match="has no split.json"):
        retrain(photos, tmp_path / "run", max_train_steps=6, resume_from_checkpoint="latest")
    (tmp_path / "run/split.json").write_text("{}")
    with pytest.raises(ValueError, match="split.json cannot be read"):
        retrain(photos, tmp_path / "run", max_train_steps=6, resume_from_checkpoint="latest")


def test_a_checkpoint_of_a_run_on_other_images_is_refused(photos, tmp_path):
    retrain(photos, tmp_path / "one", max_train_steps=3)
    add_images(photos, 3)
    retrain(photos, tmp_path / "two", max_train_steps=3)
    shutil.rmtree(tmp_path / "two/checkpoint-3")
    shutil.copytree(tmp_path / "one/checkpoint-3", tmp_path / "two/checkpoint-3")
    with pytest.raises(ValueError, match="it has other images, or another split of them"):
        retrain(photos, tmp_path / "two", max_train_steps=6, resume_from_checkpoint="latest")


def test_what_a_model_was_trained_on_is_not_held_out_by_a_run_that_starts_from_it(photos, tmp_path):
    retrain(photos, tmp_path / "first", max_train_steps=1)
    add_images(photos, 20)
    retrain(photos, tmp_path / "second", max_train_steps=1, pretrained_model_name_or_path=str(tmp_path / "first"))
    first, second = read_split(tmp_path / "first"), read_split(tmp_path / "second")
    assert set(first.train) <= set(second.train) and set(first.heldout) <= set(second.heldout)
    assert len(second.heldout) == len(first.heldout) + 2


def test_evaluation_keeps_the_recorded_split(photos, tmp_path, capsys):
    retrain(photos, tmp_path / "run", max_train_steps=1)
    data = DataConfig(train_data_dir=str(photos))
    before = open_recorded(tmp_path / "run", data, 28, 3)
    add_images(photos, 60, "000")
    after = open_recorded(tmp_path / "run", data, 28, 3)
    assert (after.heldout[:] == before.heldout[:]).all() and (after.train[:] == before.train[:]).all()
    printed = capsys.readouterr().out
    assert "60 new (00000.jpg" in printed and "New images are left out" in printed


def test_evaluation_refuses_another_dataset(photos, tmp_path, monkeypatch):
    run = retrain(photos, tmp_path / "run", max_train_steps=1)
    (tmp_path / "other").mkdir()
    add_images(tmp_path / "other", 30)
    with pytest.raises(SystemExit, match=r"4 of 4 held-out images missing\. Name the dataset"):
        evaluate_command(monkeypatch, str(run), "--train_data_dir", str(tmp_path / "other"))


def test_a_run_finds_its_images_from_any_folder_and_publishes_no_path(photos, tmp_path, monkeypatch, capsys):
    home = tmp_path / "USER" / "CLIENT"
    home.mkdir(parents=True)
    photos.rename(home / "photos")
    run = retrain(home / "photos", home / "run", max_train_steps=1, preview_steps=1)
    evaluate_folder(run, DataConfig(train_data_dir=str(home / "photos")))
    write_card(run)
    published = [path for path in run.iterdir() if path.is_file() and path.name not in ("paths.json", "log.jsonl")]
    for path in published:
        assert b"USER" not in path.read_bytes() and b"CLIENT" not in path.read_bytes(), path.name
    assert json.loads((run / "train_config.json").read_text())["data"]["train_data_dir"] == "photos/"
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    evaluate_command(monkeypatch, str(run))
    assert json.loads(capsys.readouterr().out)["num_heldout"] == 4


def test_a_model_of_the_first_edition_is_evaluated_on_the_split_that_it_had(photos, tmp_path, capsys):
    run = retrain(photos, tmp_path / "run", max_train_steps=1)
    (run / "split.json").unlink()
    data = DataConfig(train_data_dir=str(photos))
    found = load_images(data, 28, 3)
    assert open_recorded(run, data, 28, 3).split == first_edition_split(found.digests, 0.1, 0)
    assert "has no split.json" in capsys.readouterr().out
    add_images(photos, 9)
    with pytest.raises(ValueError, match="36 training and 4 held-out images instead of 44 and 5"):
        open_recorded(run, data, 28, 3)


def test_a_stream_records_what_it_holds_out_and_resumes_on_it_alone(photos, tmp_path):
    settings = {"data": {"streaming": True}, "prior_steps": 1}
    retrain(photos, tmp_path / "run", max_train_steps=3, **settings)
    recorded = read_split(tmp_path / "run").heldout
    assert len(recorded) == 4
    photos.rename(tmp_path / "elsewhere")
    settings |= {"resume_from_checkpoint": "latest"}
    retrain(tmp_path / "elsewhere", tmp_path / "run", max_train_steps=4, **settings)
    for number, file in enumerate(sorted((tmp_path / "elsewhere").iterdir(), reverse=True)):
        file.rename(tmp_path / "elsewhere" / f"renamed-{number:02d}.jpg")
    add_images(tmp_path / "elsewhere", 9, "000")  # which move every k-th image to another place
    retrain(tmp_path / "elsewhere", tmp_path / "run", max_train_steps=5, **settings)
    assert read_split(tmp_path / "run").heldout == recorded
    for file in sorted((tmp_path / "elsewhere").iterdir())[9:30]:
        file.unlink()
    with pytest.raises(ValueError, match="does not hold the images that the run recorded"):
        retrain(tmp_path / "elsewhere", tmp_path / "run", max_train_steps=6, **settings)


def test_a_stream_that_is_resumed_ends_with_the_same_weights(photos, tmp_path):
    shutil.copy(photos / "00.jpg", photos / "a_copy_of_what_is_held_out.jpg")
    (photos / "0_broken.jpg").write_bytes(b"")
    settings = {"data": {"streaming": True}, "prior_steps": 1}
    retrain(photos, tmp_path / "run", max_train_steps=3, **settings)
    retrain(photos, tmp_path / "run", max_train_steps=6, resume_from_checkpoint="latest", **settings)
    retrain(photos, tmp_path / "whole", max_train_steps=6, **settings)
    assert weights(tmp_path / "run").keys() == weights(tmp_path / "whole").keys()
    for name, value in weights(tmp_path / "run").items():
        assert torch.equal(value, weights(tmp_path / "whole")[name]), name


def test_a_stream_keeps_the_split_of_the_model_that_a_run_starts_from(photos):
    digests = load_images(DataConfig(train_data_dir=str(photos)), 28, 3).digests
    data = DataConfig(train_data_dir=str(photos), streaming=True)
    drawn = open_stream(data, 28, 3).split.heldout
    known = Split(train=(drawn[0],), heldout=tuple(digest for digest in digests if digest not in drawn)[:5])
    stream = open_stream(data, 28, 3, known=known)
    assert set(stream.split.heldout) == {*drawn[1:], *known.heldout}
    assert sum(len(batch) for batch in stream.train.batches(100)) == len(digests) - len(stream.split.heldout)


def test_of_a_streamed_model_s_images_only_those_that_it_held_out_are_held_out_again(photos, tmp_path):
    retrain(photos, tmp_path / "streamed", max_train_steps=1, data={"streaming": True}, prior_steps=1)
    start = {"pretrained_model_name_or_path": str(tmp_path / "streamed")}
    recorded = read_split(tmp_path / "streamed").heldout
    retrain(photos, tmp_path / "cached", max_train_steps=1, **start)
    assert read_split(tmp_path / "cached").heldout == recorded
    data = {"streaming": True, "validation_fraction": 0.5}
    retrain(photos, tmp_path / "again", max_train_steps=1, data=data, prior_steps=1, **start)
    assert read_split(tmp_path / "again").heldout == recorded


def test_a_stream_from_a_model_that_recorded_its_images_is_measured(photos, tmp_path):
    retrain(photos, tmp_path / "first", max_train_steps=1)
    data = {"streaming": True, "validation_fraction": 0.5}
    run = retrain(
        photos,
        tmp_path / "second",
        max_train_steps=1,
        prior_steps=1,
        data=data,
        pretrained_model_name_or_path=str(tmp_path / "first"),
    )
    assert read_split(run).heldout == read_split(tmp_path / "first").heldout
    recorded = open_recorded(run, DataConfig(train_data_dir=str(photos), **data), 28, 3)
    assert len(recorded.heldout) == len(read_split(run).heldout)


def test_a_stream_is_evaluated_on_the_images_that_it_held_out(photos, tmp_path):
    data = DataConfig(train_data_dir=str(photos), streaming=True)
    with pytest.raises(ValueError, match="the held-out images of the stream are not known"):
        open_recorded(tmp_path, data, 28, 3)
    before = open_stream(data, 28, 3)
    before.split.save(tmp_path)
    add_images(photos, 9, "000")
    assert torch.equal(open_recorded(tmp_path, data, 28, 3).heldout[:], before.heldout[:])
    for file in sorted(photos.iterdir())[9:40]:
        file.unlink()
    with pytest.raises(ValueError, match="held-out images missing"):
        open_recorded(tmp_path, data, 28, 3)


def test_a_card_says_so_if_the_model_that_a_run_starts_from_recorded_no_split(photos, tmp_path):
    first = retrain(photos, tmp_path / "first", max_train_steps=1)
    (first / "split.json").unlink()
    run = retrain(
        photos, tmp_path / "second", max_train_steps=1, preview_steps=1, pretrained_model_name_or_path=str(first)
    )
    evaluate_folder(run, DataConfig(train_data_dir=str(photos)))
    write_card(run)
    text = (run / "README.md").read_text()
    assert "it recorded no split" in text and "which it was not trained on" not in text


def test_distances_to_training_images_are_left_out_where_some_are_missing(photos, tmp_path):
    run = retrain(photos, tmp_path / "run", max_train_steps=1)
    data = DataConfig(train_data_dir=str(photos))
    digests = dict(zip(load_images(data, 28, 3).digests, sorted(photos.iterdir()), strict=True))
    assert "training_distance_samples_ratio" in evaluate_folder(run, data)
    digests[read_split(run).train[0]].unlink()
    assert "training_distance_samples_ratio" not in evaluate_folder(run, data)


def test_a_finished_run_without_checkpoints_is_not_trained_anew_over_its_model(photos, tmp_path):
    run = retrain(photos, tmp_path / "run", max_train_steps=1, checkpointing_steps=0)
    with pytest.raises(ValueError, match="holds a finished model and no checkpoint"):
        retrain(photos, run, max_train_steps=2, checkpointing_steps=0, resume_from_checkpoint="latest")
