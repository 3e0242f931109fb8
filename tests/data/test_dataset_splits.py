"""Which split of a dataset is used, by its name, and that what is left out for it is counted."""

import dataclasses
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from drawings import all_images, draw_into, drawn, load, png, rows_of

from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.data.dataset_splits import split_word
from hf_vae.data.labels import load_labels
from hf_vae.data.listing import list_folder
from hf_vae.data.streaming import open_stream


def names(folder: Path, dataset_split: str | None = None) -> list[str]:
    return [str(file.relative_to(folder)) for file in list_folder(str(folder), dataset_split).images]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        *(("train", "train"), ("Training", "training"), ("valid", "valid"), ("val", "val"), ("DEV", "dev")),
        *(
            ("test2017", "test"),
            ("seg_test", "test"),
            ("trainA", "train"),
            ("testB", "test"),
            ("training_set", "training"),
        ),
        *(("val_images", "val"), ("test-00000-of-00001", "test"), ("dev2", "dev"), ("evaluation", "evaluation")),
        *(
            ("Val_Kilmer", None),
            ("Dev Patel", None),
            ("contest", None),
            ("trainer", None),
            ("valley", None),
            ("", None),
        ),
    ],
)
def test_names_of_splits_are_told_from_others(name, word):
    assert split_word(name) == word


def test_a_name_is_no_split(tmp_path):
    assert split_word("Kapil_Dev") is None and split_word("dev") == "dev" and split_word("val2017") == "val"


@pytest.fixture(params=["folders", "parquet"])
def split_folder(request, tmp_path) -> Path:
    """Three splits: 12 to train on, 5 to test with, and 3 to validate, as folders or as parquet files."""
    numbers = {"train": range(12), "test": range(20, 25), "valid": range(30, 33)}
    for split, chosen in numbers.items():
        if request.param == "folders":
            draw_into(tmp_path / "in" / split / "faces", len(chosen), first=chosen[0])
            continue
        (tmp_path / "in" / "data").mkdir(parents=True, exist_ok=True)
        file = tmp_path / "in" / "data" / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.table({"image": list(map(png, chosen))}), file)
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("dataset_split", "found", "left_out"),
    [
        (None, 12, {"images of the split test": 5, "images of the split valid": 3}),
        ("train", 12, {"images of the split test": 5, "images of the split valid": 3}),
        ("Test", 5, {"images of the split train": 12, "images of the split valid": 3}),
        ("validation", 3, {"images of the split test": 5, "images of the split train": 12}),
        ("train+valid", 15, {"images of the split test": 5}),
        ("all", 20, {}),
    ],
)
def test_a_split_is_used_and_the_others_are_named(dataset_split, found, left_out, split_folder, capsys):
    facts = load(split_folder, dataset_split=dataset_split).facts
    assert facts["pictures_found"] == found and facts.get("left_out", {}) == left_out
    notice = next(line for line in capsys.readouterr().out.splitlines() if "with the names of splits" in line)
    assert "found in test/ 5, train/ 12, valid/ 3. Used: " in notice
    assert ("--dataset_split" in notice) == bool(left_out)
    data = DataConfig(train_data_dir=str(split_folder), dataset_split=dataset_split, validation_fraction=0.5)
    if found > 3:
        assert open_stream(data, 28, 3).facts.get("left_out", {}) == left_out
    assert "Used: " in capsys.readouterr().out or found == 3


def test_a_split_that_is_not_there_is_refused_with_those_that_are(split_folder):
    with pytest.raises(ValueError, match="no split 'full'. Splits here: test, train, valid; choose"):
        load(split_folder, dataset_split="full")
    with pytest.raises(ValueError, match="no split 'train.full'"):
        load(split_folder, dataset_split="train+full")


def test_a_folder_without_splits_is_all_train(tmp_path):
    folder = draw_into(tmp_path / "in", 4)
    assert [len(names(folder, split)) for split in (None, "train", "all")] == [4, 4, 4]
    with pytest.raises(ValueError, match="no split 'test'. Splits here: train;"):
        names(folder, "test")


def test_trains_are_vehicles_where_no_folder_is_called_test(tmp_path):
    for place, kind in enumerate(("bus", "train", "car")):
        draw_into(tmp_path / kind, 2, first=10 * place)
    listing = list_folder(str(tmp_path))
    assert len(listing.images) == 6 and not listing.left_out and not listing.notices


def test_images_beside_a_test_folder_are_what_is_trained_on(tmp_path):
    draw_into(tmp_path / "test", 3, first=20)
    assert len(names(tmp_path)) == 3, "of the only split"
    draw_into(tmp_path, 4)
    assert names(tmp_path) == [f"{number:03d}.png" for number in range(4)]
    assert list_folder(str(tmp_path)).left_out == {"images of the split test": 3}


def test_a_folder_of_test_and_validation_alone_asks_which(tmp_path):
    draw_into(tmp_path / "test", 3)
    draw_into(tmp_path / "valid", 3, first=20)
    with pytest.raises(ValueError, match="no train/: found in test/ 3, valid/ 3. Choose with --dataset_split"):
        names(tmp_path)
    assert len(names(tmp_path, "all")) == 6


@pytest.mark.parametrize(
    ("dataset_split", "numbers", "left_out"),
    [
        (None, range(8), {"images of the split test": 8}),
        ("test", range(8, 16), {"images of the split train": 8}),
        ("train+test", range(16), {}),
        ("all", range(16), {}),
    ],
)
@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_a_split_of_a_dataset_is_used_and_the_others_are_counted(kind, dataset_split, numbers, left_out, tmp_path):
    place = tmp_path / "faces"
    both = datasets.DatasetDict(train=rows_of(range(8)), test=rows_of(range(8, 16)))
    if kind == "saved":
        both.save_to_disk(place)
    else:
        (place / "data").mkdir(parents=True)
        for split, rows in both.items():
            rows.to_parquet(place / "data" / f"{split}-00000-of-00001.parquet")
    data = DataConfig(dataset_name=str(place), dataset_split=dataset_split)
    splits = load_images(data, 28, 3)
    assert torch.equal(all_images(splits), drawn(numbers)) and splits.facts.get("left_out", {}) == left_out
    assert load_labels(data, "label", splits) == [["even", "odd"][number % 2] for number in numbers]
    streamed = open_stream(dataclasses.replace(data, validation_fraction=0.25, shuffle_buffer=2), 28, 3)
    assert streamed.facts["heldout"] == len(numbers) / 4
    with pytest.raises(ValueError, match="no split 'full'. Splits here: train, test; choose one with --dataset_split"):
        load_images(dataclasses.replace(data, dataset_split="full"), 28, 3)
    with pytest.raises(ValueError, match="no split 'full'. Splits here: train, test; choose one with --dataset_split"):
        open_stream(dataclasses.replace(data, dataset_split="full"), 28, 3)


def test_the_only_split_is_used_and_said(tmp_path, capsys):
    (tmp_path / "faces").mkdir()
    rows_of(range(8)).to_parquet(tmp_path / "faces" / "test-00000-of-00001.parquet")
    data = DataConfig(dataset_name=str(tmp_path / "faces"), validation_fraction=0.25)
    for load_any in (load_images, open_stream):
        assert len(load_any(data, 28, 3).heldout) == 2
        assert "has no split called train. Its only split, test, is used." in capsys.readouterr().out
        with pytest.raises(ValueError, match="no split 'train'. Splits here: test"):
            load_any(dataclasses.replace(data, dataset_split="train"), 28, 3)
