"""Which files of a folder are images, and that whatever is left out is counted."""

import os
from pathlib import Path

import pytest
from conftest import draw_picture
from drawings import draw_into, load
from PIL import Image
from upload_corpus import corpus

from hf_vae.config import DataConfig
from hf_vae.data.listing import list_folder, only_datasets_reads
from hf_vae.data.streaming import open_stream


def names(folder: Path, dataset_split: str | None = None) -> list[str]:
    listing = list_folder(str(folder), dataset_split)
    return [str(file.relative_to(folder)) for file in listing.images or listing.parquet]


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
    first = load(folder).facts
    assert first["left_out"] == expected and first["pictures_found"] == 4
    assert load(folder).facts == first, "from the cache"
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
    facts = load(tmp_path / "in").facts
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
