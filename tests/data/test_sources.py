"""Where images come from: folders, parquet files, saved datasets and the Hub; cached and streamed."""

import dataclasses
import shutil
import zipfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import draw_picture
from drawings import all_images, as_image, draw_into, drawn, forbid_decoding, load, png, rows_of

from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.data.presets import PRESETS
from hf_vae.data.streaming import open_stream


@pytest.fixture
def folder(tmp_path) -> Path:
    """12 different PNGs, so that decoded values are known exactly."""
    return draw_into(tmp_path / "pictures", 12)


@pytest.mark.parametrize("num_columns", [1, 2])
def test_pictures_are_found_in_parquet(tmp_path, num_columns):
    features = {"label": datasets.Value("int64"), "img": datasets.Image()}
    columns = {"label": list(range(5)), "img": [draw_picture(number) for number in range(5)]}
    if num_columns == 2:
        features["mask"], columns["mask"] = datasets.Image(), [draw_picture(number + 50) for number in range(5)]
    file = tmp_path / "pictures.parquet"
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(file)
    splits = load(file, image_column=None if num_columns == 1 else "img")
    assert torch.equal(all_images(splits), drawn(range(5)))
    if num_columns == 2:
        with pytest.raises(ValueError, match=r"(?s)img, mask"):
            load(file)


@pytest.fixture
def parquet_folder(tmp_path) -> Path:
    """Two parquet files of two pictures each, with a label column."""
    folder = tmp_path / "shards"
    folder.mkdir()
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.Value("string")})
    for shard in range(2):
        rows = [{"picture": {"path": None, "bytes": png(2 * shard + row)}, "label": "face"} for row in range(2)]
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / f"{shard}.parquet")
    return folder


def test_a_folder_of_parquet_is_read_as_one(parquet_folder):
    assert torch.equal(all_images(load(parquet_folder)), drawn(range(4)))


def test_parquet_is_decoded_only_once(parquet_folder, monkeypatch):
    first = all_images(load(parquet_folder))
    forbid_decoding(monkeypatch)
    assert torch.equal(all_images(load(parquet_folder)), first)


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_column_without_images_is_refused_with_those_that_exist(parquet_folder, column):
    with pytest.raises(ValueError, match=rf"'{column}'.*Image columns here: picture; all columns: picture, label"):
        load(parquet_folder, image_column=column)


def test_a_preset_is_loaded_from_its_place_on_the_hub(monkeypatch):
    def load_dataset(path, name, *, revision, split):
        assert (path, name, revision, split) == (PRESETS["cats"].dataset_name, None, PRESETS["cats"].revision, "train")
        features = datasets.Features({PRESETS["cats"].image_column: datasets.Image(), "mask": datasets.Image()})
        rows = [dict.fromkeys(features, {"path": None, "bytes": png(number)}) for number in range(4)]
        return datasets.Dataset.from_list(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert torch.equal(all_images(load_images(DataConfig(dataset_name="cats"), 28, 3)), drawn(range(4)))


@pytest.mark.parametrize("options", [{}, {"dataset_name": "cats", "train_data_dir": "photos"}])
def test_exactly_one_source_is_needed(options):
    with pytest.raises(ValueError, match=r"either --dataset_name .* or --train_data_dir"):
        load_images(DataConfig(**options), 28, 3)


@pytest.mark.parametrize("cell", [lambda content: content, lambda content: {"bytes": content, "path": None}])
def test_parquet_that_does_not_say_that_it_holds_images_is_read(cell, tmp_path):
    table = pa.table({"face": [cell(png(number)) for number in range(4)], "label": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "faces.parquet")
    assert torch.equal(all_images(load(tmp_path / "faces.parquet")), drawn(range(4)))


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere does not exist"):
        load(tmp_path / "nowhere")


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"holds no .*\.jpg"):
        load(tmp_path)


def test_a_folder_of_pictures_and_parquet_is_refused(folder):
    datasets.Dataset.from_dict({"label": [1]}).to_parquet(str(folder / "table.parquet"))
    with pytest.raises(ValueError, match="holds both images and parquet"):
        load(folder)


def test_hidden_files_are_no_pictures(folder):
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._00.jpg").write_bytes(b"no picture")
    assert load(folder).facts["pictures_found"] == 12


def test_a_dataset_repository_is_loaded_as_from_the_hub(tmp_path):
    """The real loading code: `datasets` reads a folder that is laid out like a repository in the same way."""
    rows = [{"img": {"path": None, "bytes": png(number)}, "label": number} for number in range(4)]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    (tmp_path / "catfaces" / "data").mkdir(parents=True)
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(str(tmp_path / "catfaces" / "data" / "train-00000-of-00001.parquet"))
    splits = load_images(DataConfig(dataset_name=str(tmp_path / "catfaces")), 28, 3)
    assert torch.equal(all_images(splits), drawn(range(4)))


def test_an_unknown_dataset_is_named():
    with pytest.raises(ValueError, match="dataset_name=nobody/nothing cannot be loaded"):
        load_images(DataConfig(dataset_name="nobody/nothing"), 28, 3)


@pytest.mark.parametrize("num_folders", [1, 2])
def test_a_zip_of_images_is_read_as_from_the_hub(num_folders, tmp_path):
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "train.zip", "w") as archive:
        for number in range(12):
            archive.writestr(f"{'images' if number < 12 / num_folders else 'others'}/{number:02d}.png", png(number))
    data = DataConfig(dataset_name=str(tmp_path / "zipped"))
    splits = load_images(data, 28, 3)
    assert torch.equal(all_images(splits), drawn(range(12))) and splits.facts["broken_skipped"] == 0
    streamed = open_stream(dataclasses.replace(data, validation_fraction=0.25), 28, 3)
    heldout, expected = (
        {image.numpy().tobytes() for image in images} for images in (streamed.heldout[:], drawn(range(0, 12, 4)))
    )
    assert heldout == expected
    assert len(next(streamed.train.training_batches(9, 0))) == 9


@pytest.mark.parametrize("field", ["train_data_dir", "dataset_name"])
def test_what_save_to_disk_wrote_is_loaded(field, tmp_path, monkeypatch):
    rows_of(range(8)).save_to_disk(tmp_path / "saved", num_shards=2)
    data = DataConfig(**{field: str(tmp_path / "saved")})
    assert torch.equal(all_images(load_images(data, 28, 3)), drawn(range(8)))
    streamed = open_stream(dataclasses.replace(data, validation_fraction=0.25), 28, 3)
    assert torch.equal(streamed.heldout[:], drawn(range(0, 8, 4)))
    epoch = next(streamed.train.training_batches(6, 0))
    assert {image.numpy().tobytes() for image in epoch} == {
        as_image(draw_picture(number)).numpy().tobytes() for number in range(8) if number % 4
    }
    with monkeypatch.context() as patch:
        forbid_decoding(patch)
        load_images(data, 28, 3)
    shutil.rmtree(tmp_path / "saved")
    rows_of(range(10, 18)).save_to_disk(tmp_path / "saved")
    assert torch.equal(all_images(load_images(data, 28, 3)), drawn(range(10, 18)))


def test_images_that_the_datasets_library_passes_over_are_counted(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    for number in range(3):
        draw_picture(50 + number).save(tmp_path / "elsewhere" / f"{number}.png")
    facts = load_images(DataConfig(dataset_name=str(folder)), 28, 3).facts
    assert facts["pictures_found"] == 12
    assert facts["left_out"] == {"images that the datasets library skipped": 3}


def test_a_file_is_no_dataset(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="photos.zip is a file; .* the folder that holds it"):
        load_images(DataConfig(dataset_name=str(tmp_path / "photos.zip")), 28, 3)


@pytest.mark.parametrize(
    ("values", "kind", "way_out"),
    [
        (["a.png", "b.png"], "text", "cast_column.*embeds them; decode base64 text to bytes"),
        ([[[1, 2]], [[3, 4]]], "lists of lists of int64", "encode arrays of numbers"),
        ([[{"bytes": b"", "path": ""}]] * 2, "lists of images", "take one image for each row"),
        ([1.5, 2.0], "float64", "holds the bytes of image files"),
        ([None, None], "nothing", "holds the bytes of image files"),
        ([{"red": 1}] * 2, r"fields \(red\)", "holds the bytes of image files"),
    ],
)
def test_what_columns_hold_instead_of_images_is_said_with_the_way_out(values, kind, way_out, tmp_path):
    pq.write_table(pa.table({"image": values}), tmp_path / "rows.parquet")
    for load_any in (load_images, open_stream):
        with pytest.raises(ValueError, match=rf"They hold: image \({kind}\)\. An image column .*{way_out}"):
            load_any(DataConfig(train_data_dir=str(tmp_path / "rows.parquet")), 28, 3)


def test_the_way_from_names_of_files_to_an_image_column_leads_there(folder, tmp_path):
    files = sorted(map(str, folder.glob("*.png")))
    table = datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image())
    table.save_to_disk(tmp_path / "saved")
    shutil.rmtree(folder)
    assert torch.equal(all_images(load(tmp_path / "saved")), drawn(range(12)))
