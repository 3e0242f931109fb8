"""From a folder or parquet to decoded, split images: what is found, what is dropped, and what is decoded only once."""

import dataclasses
import shutil
import time
import zipfile
from io import BytesIO
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import draw_picture
from PIL import Image

import hf_vae.data.cached
import hf_vae.data.decoding
from hf_vae.config import DataConfig
from hf_vae.data.cached import DataSplits, ImageSet, load_images
from hf_vae.data.labels import load_labels
from hf_vae.data.presets import PRESETS
from hf_vae.data.sources import open_source
from hf_vae.data.streaming import open_stream
from hf_vae.pictures import picture_to_uint8, square_picture


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for each test, and one for the `datasets` library beside it."""
    monkeypatch.setenv("HF_VAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    """12 different PNGs, so that decoded values are known exactly."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        draw_picture(number).save(folder / f"{number:02d}.png")
    return folder


def load(path: Path, image_size: int = 28, image_channels: int = 3, **options) -> DataSplits:
    return load_images(DataConfig(train_data_dir=str(path), **options), image_size, image_channels)


def all_images(splits: DataSplits) -> torch.Tensor:
    """Every image of both splits, in the order in which they were found."""
    order = torch.cat([splits.train.indices, splits.heldout.indices]).argsort()
    return torch.cat([splits.train[:], splits.heldout[:]])[order]


def as_image(picture: Image.Image, image_size: int = 28, channels: int = 3) -> torch.Tensor:
    return picture_to_uint8(square_picture(picture, image_size, channels))


def drawn(numbers: range) -> torch.Tensor:
    return torch.stack([as_image(draw_picture(number)) for number in numbers])


def png(number: int) -> bytes:
    buffer = BytesIO()
    draw_picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a picture was decoded again")

    monkeypatch.setattr(hf_vae.data.decoding, "square_picture", refuse)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_common_kind_of_picture_is_found_and_decoded(tmp_path, channels):
    seen = [draw_picture(number) for number in range(7)]
    seen[3] = seen[3].convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    folder = tmp_path / "mixed"
    for name, stored, options in [  # in the order of their paths, which is the order they are taken in
        ("a.png", seen[0], {}),
        ("b.JPG", seen[1], {"quality": 95}),
        ("c/d.webp", seen[2], {"lossless": True}),
        ("c/e/f.jpeg", seen[3], {"quality": 95}),
        ("c/g.png", seen[4].convert("RGBA"), {}),
        ("h.jpg", seen[5].convert("CMYK"), {"quality": 95}),
        ("i.jpg", seen[6].transpose(Image.Transpose.ROTATE_90), {"quality": 95, "exif": exif}),
    ]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        stored.save(folder / name, **options)
    (folder / "notes.txt").write_text("no picture")

    splits = load(folder, image_channels=channels)
    expected = torch.stack([as_image(picture, channels=channels) for picture in seen])
    error = (all_images(splits).float() - expected).abs().mean((1, 2, 3))
    assert (error < 6).all(), f"mean error of each picture, of 255: {error}"  # what JPEG loses is less
    assert splits.facts["pictures_found"] == 7 and splits.facts["broken_skipped"] == 0


def test_images_are_what_the_space_would_show_the_model(folder):
    assert torch.equal(all_images(load(folder)), drawn(range(12)))


def test_a_crop_box_is_in_pixels_of_the_picture_however_large(tmp_path):
    colors = ["red", "blue", "green"]
    for number, color in enumerate(colors):
        picture = Image.new("RGB", (400, 400), "white")
        picture.paste(color, (300, 300, 400, 400))
        picture.save(tmp_path / f"{number}.jpg", quality=95)
    images = all_images(load(tmp_path, crop_box=(300, 300, 400, 400)))
    expected = torch.stack([as_image(Image.new("RGB", (28, 28), color)) for color in colors])
    assert (images.float() - expected).abs().mean() < 6


def test_exact_copies_are_counted_and_dropped(folder):
    for name in ("copy.png", "again/copy.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "03.png", folder / name)
    splits = load(folder)
    assert torch.equal(all_images(splits), drawn(range(12)))
    assert (splits.facts["pictures_found"], splits.facts["duplicates_dropped"]) == (14, 2)


@pytest.fixture
def large_folder(tmp_path) -> Path:
    """120 tiny pictures, all different."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(120):
        Image.new("L", (4, 4), number).save(folder / f"{number:03d}.png")
    return folder


def test_a_broken_file_is_named_counted_and_skipped(large_folder, capsys):
    whole = (large_folder / "000.png").read_bytes()
    (large_folder / "half.png").write_bytes(whole[: len(whole) // 2])
    splits = load(large_folder)
    assert len(splits.train) + len(splits.heldout) == 120
    assert (splits.facts["pictures_found"], splits.facts["broken_skipped"]) == (121, 1)
    assert "half.png" in capsys.readouterr().out


def test_more_than_one_percent_of_broken_files_stops_with_the_list(large_folder, cache):
    (large_folder / "empty.png").touch()
    (large_folder / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"(?s)2 of 122 .*empty\.png.*text\.jpg"):
        load(large_folder)
    assert not list(cache.iterdir()), "a failed build leaves nothing behind"


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
    draw_picture(12).save(folder / "12.png")
    assert torch.equal(all_images(load(folder)), drawn(range(13)))
    (folder / "00.png").unlink()
    assert torch.equal(all_images(load(folder)), drawn(range(1, 13)))
    draw_picture(99).save(folder / "01.png")
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


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.99, 1.0, 1.5])
def test_a_split_that_leaves_one_side_empty_is_refused(folder, share):
    with pytest.raises(ValueError, match=f"validation_fraction={share}"):
        load(folder, validation_fraction=share)


@pytest.mark.parametrize("num_copies", [1, 3])
def test_one_distinct_picture_is_too_few(tmp_path, num_copies):
    for number in range(num_copies):
        (tmp_path / f"{number}.png").write_bytes(png(0))
    with pytest.raises(ValueError, match="found: 1; at least 3 are needed"):
        load(tmp_path)


def test_three_pictures_are_enough(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    splits = load(tmp_path)
    assert (len(splits.train), len(splits.heldout)) == (1, 2)


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


def rows_of(numbers: range) -> datasets.Dataset:
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})
    rows = [{"picture": {"path": None, "bytes": png(number)}, "label": number % 2} for number in numbers]
    return datasets.Dataset.from_list(rows, features=features)


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


def test_images_that_the_datasets_library_passes_over_are_counted(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    for number in range(3):
        draw_picture(50 + number).save(tmp_path / "elsewhere" / f"{number}.png")
    facts = load_images(DataConfig(dataset_name=str(folder)), 28, 3).facts
    assert facts["pictures_found"] == 12
    assert facts["left_out"] == {"images that the datasets library passed over": 3}


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
