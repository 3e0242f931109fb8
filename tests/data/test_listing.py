"""Which files of a folder are images, and that whatever is left out is counted."""

import os
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_picture
from PIL import Image
from upload_corpus import corpus

from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.data.dataset_splits import split_word
from hf_vae.data.listing import IMAGE_ENDINGS, list_folder, only_datasets_reads
from hf_vae.data.streaming import open_stream


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    """Empty caches for each test."""
    monkeypatch.setenv("HF_VAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def draw_into(folder: Path, count: int, first: int = 0, ending: str = ".png", **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        draw_picture(number).save(folder / f"{number:03d}{ending}", **options)
    return folder


def names(folder: Path, dataset_split: str | None = None) -> list[str]:
    listing = list_folder(str(folder), dataset_split)
    return [str(file.relative_to(folder)) for file in listing.images or listing.parquet]


def load(folder: Path, **options) -> dict:
    return load_images(DataConfig(train_data_dir=str(folder), **options), 28, 3).facts


FORMATS = {".jfif": "JPEG", ".jpe": "JPEG", ".pbm": "PPM", ".pnm": "PPM", ".jpc": "JPEG2000"}
READ = [
    *("jpg", "JPEG", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "tif", "TIFF", "avif", "pgm", "ppm", "pnm"),
    *("jp2", "j2k", "qoi", "tga"),
]


@pytest.mark.parametrize("ending", READ)
def test_whatever_pillow_tells_by_its_content_is_read_under_any_of_its_endings(ending, tmp_path):
    draw_into(tmp_path / "in", 4, ending=f".{ending}", format=FORMATS.get(f".{ending}"))
    assert load(tmp_path / "in") == {
        "pictures_found": 4,
        "duplicates_dropped": 0,
        "broken_skipped": 0,
        "train": 2,
        "heldout": 2,
    }


def test_no_format_that_calls_programs_is_read(tmp_path):
    draw_into(tmp_path / "in", 200)
    draw_picture(999).save(tmp_path / "in" / "999.eps")
    (tmp_path / "in" / "999.eps").rename(tmp_path / "in" / "999.jpg")
    draw_picture(998).save(tmp_path / "in" / "998.eps")
    facts = load(tmp_path / "in")
    assert (facts["pictures_found"], facts["broken_skipped"]) == (201, 1)
    assert facts["left_out"] == {"files with the ending .eps": 1}
    assert not IMAGE_ENDINGS & {".eps", ".ps", ".pdf", ".ico", ".psd", ".wmf", ".svg", ".heic"}


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [draw_picture(number) for number in range(4)]
    for ending in ("gif", "tif", "webp"):
        for number in range(4):
            rest = frames[:number] + frames[number + 1 :]
            options = {"lossless": True} if ending == "webp" else {}
            place = tmp_path / ending / f"{number}.{ending}"
            place.parent.mkdir(exist_ok=True)
            frames[number].save(place, save_all=True, append_images=rest, **options)
        images = load_images(DataConfig(train_data_dir=str(tmp_path / ending)), 28, 3).train.images
        alone = load_images(DataConfig(train_data_dir=str(draw_into(tmp_path / "alone", 4))), 28, 3).train.images
        assert (images.float() - alone.float()).abs().mean() < 6  # what 256 colours lose is less


def test_values_of_unknown_range_are_named(tmp_path, capsys):
    draw_into(tmp_path, 200)
    Image.fromarray(np.random.default_rng(0).random((8, 8), dtype=np.float32)).save(tmp_path / "unit.tiff")
    Image.fromarray(np.full((8, 8), 2**20, dtype=np.int32)).save(tmp_path / "counts.tiff")
    assert load(tmp_path)["broken_skipped"] == 2
    printed = capsys.readouterr().out
    assert all(f"{name}.tiff: holds values whose range is not known" in printed for name in ("unit", "counts"))


def test_files_of_other_kinds_are_counted_by_their_ending(tmp_path):
    folder = draw_into(tmp_path / "in", 4)
    for name in ("a.heic", "b.HEIC", "c.txt", "README", "d.json", "metadata.csv", "Thumbs.db", "desktop.ini"):
        (folder / name).write_text("file_name,age\n000.png,3\n")
    expected = {
        "files with the ending .heic": 2,
        "files with the ending .txt": 1,
        "files without an ending that are not images": 1,
        "files with the ending .json": 1,
    }
    first = load(folder)
    assert first["left_out"] == expected and first["pictures_found"] == 4
    assert load(folder) == first, "from the cache"
    streamed = DataConfig(train_data_dir=str(folder), validation_fraction=0.5)
    assert open_stream(streamed, 28, 3).facts == {"heldout": 2, "left_out": expected}


def test_many_endings_are_counted_together(tmp_path):
    draw_into(tmp_path, 4)
    for number in range(15):
        (tmp_path / f"x.e{number:02d}").touch()
        (tmp_path / f"y.e{number:02d}").write_text("a") if number < 9 else None
    left_out = list_folder(str(tmp_path)).left_out
    assert len(left_out) == 11 and left_out["files with other endings"] == 5 and sum(left_out.values()) == 24


def test_no_file_without_an_ending_stops_the_search(tmp_path):
    for number, (_, content, _) in enumerate(corpus()):
        (tmp_path / f"{number}").write_bytes(content)
    listing = list_folder(str(tmp_path))
    assert listing.images and listing.left_out["files without an ending that are not images"] > 0


def test_images_without_an_ending_are_found_by_their_content(tmp_path):
    draw_into(tmp_path, 4)
    for number, name in enumerate(["picture", "f3a9"]):
        draw_picture(10 + number).save(tmp_path / name, format="JPEG")
    (tmp_path / "LICENSE").write_text("all rights")
    assert names(tmp_path)[-2:] == ["f3a9", "picture"]


HIDDEN = [
    ".ipynb_checkpoints",
    ".venv/lib/images",
    "__MACOSX",
    "a/@eaDir/p.jpg",
    ".thumbnails",
    "b/__pycache__",
    "venv",
]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_what_programs_leave_behind_is_counted_and_not_trained_on(hidden, tmp_path):
    draw_into(tmp_path / "in" / "a", 4)
    draw_into(tmp_path / "in" / hidden, 3, first=10)
    (tmp_path / "in" / hidden / "notes.txt").write_text("is not missed")
    (tmp_path / "in" / "._000.png").write_bytes(b"not an image")
    (tmp_path / "in" / ".DS_Store").write_bytes(b"not an image")
    facts = load(tmp_path / "in")
    assert facts["pictures_found"] == 4
    assert facts["left_out"] == {"hidden images": 1, "images in hidden folders": 3}


def test_a_folder_that_lies_below_a_hidden_one_is_read(tmp_path):
    assert len(names(draw_into(tmp_path / ".cache" / "in", 4))) == 4


def test_linked_folders_are_read_once_and_end_where_they_lead_back(tmp_path):
    folder = draw_into(tmp_path / "in", 3)
    draw_into(folder / "z", 2, first=3)
    draw_into(tmp_path / "elsewhere" / "below", 5, first=10)
    (tmp_path / "elsewhere" / "home").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere" / "below")
    (folder / "a").symlink_to(folder / "z")
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere.jpg").symlink_to(folder / "missing.jpg")
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    os.mkfifo(folder / "pipe.jpg")
    found = names(folder)
    assert len(found) == 10 and found == sorted(found) and {"z/003.png", "again/010.png"} <= set(found)
    assert list_folder(str(folder)).left_out == {
        "links that lead nowhere": 2,
        "pipes, sockets and devices": 1,
        "linked folders that were read already": 4,
    }


def test_a_link_is_a_folder_too(tmp_path):
    (tmp_path / "link").symlink_to(draw_into(tmp_path / "in", 4))
    assert len(names(tmp_path / "link")) == 4


def test_a_folder_that_may_not_be_read_is_counted(tmp_path, monkeypatch):
    draw_into(tmp_path, 4)
    (tmp_path / "private").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "private":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list_folder(str(tmp_path)).left_out == {"folders that may not be read": 1}


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


@pytest.fixture(params=["folders", "parquet"])
def split_folder(request, tmp_path) -> Path:
    """Three splits: 12 to train on, 5 to test with, and 3 to validate, as folders or as parquet files."""
    numbers = {"train": range(12), "test": range(20, 25), "valid": range(30, 33)}
    for split, chosen in numbers.items():
        if request.param == "folders":
            draw_into(tmp_path / "in" / split / "faces", len(chosen), first=chosen[0])
            continue
        (tmp_path / "in" / "data").mkdir(parents=True, exist_ok=True)
        contents = []
        for number in chosen:
            draw_picture(number).save(buffer := BytesIO(), "PNG")
            contents.append(buffer.getvalue())
        pq.write_table(pa.table({"image": contents}), tmp_path / "in" / "data" / f"{split}-00000-of-00001.parquet")
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
    facts = load(split_folder, dataset_split=dataset_split)
    assert facts["pictures_found"] == found and facts.get("left_out", {}) == left_out
    notice = next(line for line in capsys.readouterr().out.splitlines() if "called like splits" in line)
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
    ("name", "message"),
    [
        ("p.png", "is an image file; give the folder that holds it"),
        ("noending", "is an image file; give the folder"),
        ("p.zip", "is an archive; unpack it and give that folder, or put it into a folder .* --dataset_name"),
        ("p.tar.gz", "is an archive; .* --dataset_name"),
        ("p.7z", "is an archive; unpack it"),
        ("p.npy", "holds arrays; save each as an image file"),
        ("p.csv", "is a table; give the folder of the images"),
        ("p.arrow", "is an Arrow file; give the folder that holds it as --dataset_name"),
        ("p.mp4", "is a file; give a folder of images, or a parquet file"),
    ],
)
def test_a_file_gets_the_way_out(name, message, tmp_path):
    if name.endswith(".mp4"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypmp42")
    else:
        draw_picture(0).save(tmp_path / name, "PNG")
    with pytest.raises(ValueError, match=f"{name} {message}"):
        list_folder(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train.zip", r"\.zip: 1\. Give the folder as --dataset_name"),
        ("shard-000.tar", r"\.tar: 1\. Give the folder as --dataset_name"),
        ("data.arrow", r"\.arrow: 1\. Give the folder as --dataset_name"),
        ("p.rar", r"\.rar: 1\. Unpack the archives"),
        ("p.npz", r"\.npz: 1\. Save arrays as image files"),
        ("p.heic", r"\.heic: 1\. Convert images in other formats to JPEG or PNG"),
        (".p.jpg", r"hidden images: 1"),
        (None, r"such as .jpg or .png, and no .parquet file\.$"),
    ],
)
def test_a_folder_without_images_says_what_it_holds_and_the_way_out(name, message, tmp_path):
    if name:
        (tmp_path / name).write_text("not an image")
    with pytest.raises(ValueError, match=message):
        list_folder(str(tmp_path))
    assert only_datasets_reads(tmp_path) == bool(name and name.endswith((".zip", ".tar", ".arrow")))


def test_an_unknown_ending_hides_no_image(tmp_path):
    for number, name in enumerate(("subject01.happy", "photo.jpg_large", "shot.jpeg!d")):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / name, "GIF" if number == 0 else "JPEG")
    Image.new("RGB", (32, 32)).save(tmp_path / "raw.arw", "TIFF")
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.jpg.bak", "JPEG")
    (tmp_path / "notes.md").write_text("text")
    found = list_folder(str(tmp_path))
    assert {file.name for file in found.images} == {"subject01.happy", "photo.jpg_large", "shot.jpeg!d"}
    assert sum(found.left_out.values()) == 3


def test_a_name_is_no_split(tmp_path):
    assert split_word("Kapil_Dev") is None and split_word("dev") == "dev" and split_word("val2017") == "val"
