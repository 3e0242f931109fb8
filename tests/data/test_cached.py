"""Images that are decoded only once, split, and given in batches."""

import dataclasses
import shutil
import time
from pathlib import Path

import pytest
import torch
from conftest import draw_picture
from drawings import all_images, as_image, draw_into, drawn, forbid_decoding, load

import hf_vae.data.cached
import hf_vae.data.decoding
from hf_vae.config import DataConfig
from hf_vae.data.cached import ImageSet, load_images
from hf_vae.data.sources import open_source


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("HF_VAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    """12 different PNGs, so that decoded values are known exactly."""
    return draw_into(tmp_path / "pictures", 12)


def test_the_split_is_complete_disjoint_and_of_the_size_asked_for(folder):
    splits = load(folder, validation_fraction=0.25)
    assert sorted(splits.train.indices.tolist() + splits.heldout.indices.tolist()) == list(range(12))
    assert (len(splits.train), len(splits.heldout)) == (9, 3)
    assert (splits.facts["train"], splits.facts["heldout"]) == (9, 3)


def test_the_split_depends_on_its_seed_alone(folder):
    torch.manual_seed(1)
    first = load(folder, validation_fraction=0.5)
    torch.manual_seed(2)
    again, other = load(folder, validation_fraction=0.5), load(folder, validation_fraction=0.5, split_seed=1)
    assert torch.equal(first.heldout.indices, again.heldout.indices)
    assert not torch.equal(first.heldout.indices, other.heldout.indices)


def test_loading_leaves_the_global_generator_alone(folder):
    before = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_second_load_decodes_nothing(folder, monkeypatch):
    first = load(folder)
    forbid_decoding(monkeypatch)
    second = load(folder)
    assert torch.equal(all_images(second), all_images(first)) and second.facts == first.facts
    other_split = load(folder, validation_fraction=0.5, split_seed=3, flip=False)  # nothing that decoding depends on
    assert len(other_split.heldout) == 6


@pytest.mark.parametrize("changed", [{"image_size": 32}, {"image_channels": 1}, {"crop_box": (8, 8, 40, 40)}])
def test_another_transform_is_decoded_anew(folder, changed):
    before = all_images(load(folder))
    after = all_images(load(folder, **changed))
    assert after.shape != before.shape or not torch.equal(after, before)
    assert torch.equal(all_images(load(folder)), before)


def test_a_changed_folder_is_decoded_anew(folder):
    load(folder)
    draw_picture(12).save(folder / "012.png")
    assert torch.equal(all_images(load(folder)), drawn(range(13)))
    (folder / "000.png").unlink()
    assert torch.equal(all_images(load(folder)), drawn(range(1, 13)))
    draw_picture(99).save(folder / "001.png")
    assert torch.equal(all_images(load(folder))[0], as_image(draw_picture(99)))


def test_an_interrupted_build_is_never_used(folder, cache, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(hf_vae.data.decoding, "picture_to_uint8", interrupt)
        load(folder)
    leftover = cache / "building-of-a-killed-process"
    leftover.mkdir()
    (leftover / "images.uint8").write_bytes(b"half")
    shutil.copytree(leftover, leftover.with_suffix(".ready"))
    assert torch.equal(all_images(load(folder)), drawn(range(12)))


def test_two_processes_that_build_the_same_cache_both_succeed(folder, cache, monkeypatch):
    build = hf_vae.data.cached._write_cache

    def build_twice(files, *arguments):
        build(dataclasses.replace(files, contents=list(files.contents)), *arguments)
        return build(open_source(DataConfig(train_data_dir=str(folder))).files(), *arguments)

    monkeypatch.setattr(hf_vae.data.cached, "_write_cache", build_twice)
    assert torch.equal(all_images(load(folder)), drawn(range(12)))
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.99, 1.0, 1.5])
def test_a_split_that_leaves_one_side_empty_is_refused(folder, share):
    with pytest.raises(ValueError, match=f"validation_fraction={share}"):
        load(folder, validation_fraction=share)


def test_a_set_on_the_cpu_stays_where_it_is(folder):
    train = load(folder).train
    assert train.to(torch.device("cpu")) is train


@pytest.mark.parametrize("batch_size", [4, 7, 30])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_every_picture_is_seen_once_an_epoch(batch_size, num_ranks):
    images = ImageSet(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), torch.arange(20))
    ranks = [images.training_batches(batch_size, 0, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    stream = torch.cat([next(batches).flatten() for _ in range(30) for batches in ranks])
    epochs = stream[: len(stream) // 20 * 20].view(-1, 20)
    assert (epochs.sort(1).values == torch.arange(20)).all()
    assert not torch.equal(epochs[0], epochs[1])


def test_the_row_of_training_pictures_goes_on_from_any_place_with_any_number_of_ranks():
    images = ImageSet(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), torch.arange(20))
    whole = next(images.training_batches(60, 0)).flatten()
    parts = [next(images.training_batches(10, 0, first_image=25, rank=rank, num_ranks=3)) for rank in range(3)]
    assert torch.equal(torch.cat(parts).flatten(), whole[25:55])


def test_a_slow_disk_takes_longer_and_changes_nothing(folder, monkeypatch):
    quick = load_images(DataConfig(train_data_dir=str(folder)), 28, 3)
    read_bytes = Path.read_bytes

    def read_slowly(path: Path) -> bytes:
        time.sleep(0.02)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read_slowly)
    monkeypatch.setenv("HF_VAE_CACHE", str(folder.parent / "another-cache"))
    slow = load_images(DataConfig(train_data_dir=str(folder)), 28, 3)
    assert torch.equal(slow.train[:], quick.train[:]) and torch.equal(slow.heldout[:], quick.heldout[:])
