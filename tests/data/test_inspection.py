"""What a dataset holds, found before training."""

import json
import re
import shutil
import sys

import datasets
import pytest
from conftest import draw_picture
from PIL import Image

from hf_vae.commands import main
from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.data.inspection import contact_sheet, inspect_pictures
from hf_vae.pictures import square_picture


@pytest.fixture
def folder(tmp_path):
    """150 JPEGs of two sizes, one PNG with transparency, one copy, and one broken file; with labels for some."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(150):
        size = (48, 64) if number % 3 else (90, 30)
        draw_picture(number, size).save(folder / f"{number:03d}.jpg")
    draw_picture(151, (20, 40)).convert("RGBA").save(folder / "900.png")
    (folder / "901.jpg").write_bytes((folder / "000.jpg").read_bytes())
    (folder / "902.jpg").write_bytes(b"no picture")
    (folder / "metadata.csv").write_text("file_name,kind\n000.jpg,wide\n003.jpg,wide\n001.jpg,tall\n")
    return folder


def test_what_is_counted_is_what_training_would_find(folder):
    data = DataConfig(train_data_dir=str(folder))
    findings = inspect_pictures(data)
    facts = load_images(data, 28, 3).facts
    assert findings.count == facts["pictures_found"] == 153
    assert findings.duplicates == facts["duplicates_dropped"] == 1
    assert len(findings.broken) == facts["broken_skipped"] == 1 and "902.jpg" in findings.broken[0]
    assert findings.usable == facts["train"] + facts["heldout"] == 151
    assert findings.sizes == {(48, 64): 100, (90, 30): 51, (20, 40): 1}
    assert findings.modes == {"RGB": 151, "RGBA": 1} and findings.formats == {"JPEG": 151, "PNG": 1}
    assert findings.labels["kind"] == {"wide": 2, "tall": 1, None: 150}
    assert "shorter edge 20 to 48 pixels, median 48" in str(findings)


def test_what_is_left_out_is_shown_as_training_says_it(folder, monkeypatch, capsys):
    (folder / "notes.txt").write_text("not an image")
    (folder / ".thumbnails").mkdir()
    for split, numbers in {"test": (200, 201), ".thumbnails": (300,)}.items():
        (folder / split).mkdir(exist_ok=True)
        for number in numbers:
            draw_picture(number).save(folder / split / f"{number}.jpg")
    expected = {"images in hidden folders": 1, "files with the ending .txt": 1, "images of the split test": 2}
    assert load_images(DataConfig(train_data_dir=str(folder)), 28, 3).facts["left_out"] == expected
    capsys.readouterr()

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hf-vae", "inspect", str(folder), *arguments])
        main.main()
        return capsys.readouterr().out

    text = run()
    assert (
        "\nleft out     images in hidden folders: 1, files with the ending .txt: 1, images of the split test: 2\n"
        in text
    )
    assert "found in other folders 153, test/ 2. Used: other folders. Pass --dataset_split" in text
    found = json.loads(run("--json"))
    assert found["left_out"] == expected and "Used: other folders" in found["notices"][0]
    assert "of which training would use 2\n" not in run("--dataset_split", "all")
    assert json.loads(run("--dataset_split", "test", "--json"))["count"] == 2


@pytest.mark.parametrize("kind", ["zip", "saved"])
def test_what_datasets_reads_is_inspected_by_its_folder(kind, tmp_path, monkeypatch, capsys):
    for number in range(6):
        place = tmp_path / "faces" / ("a" if number < 3 else "b") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(number).save(place)
    source = tmp_path / "source"
    if kind == "zip":
        source.mkdir()
        shutil.make_archive(str(source / "train"), "zip", tmp_path / "faces")
    else:
        datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "faces"), split="train").save_to_disk(source)
    monkeypatch.setattr(sys, "argv", ["hf-vae", "inspect", str(source), "--json"])
    main.main()
    found = json.loads(capsys.readouterr().out)
    assert (found["count"], found["usable"], found["broken"]) == (6, 6, [])
    assert found["labels"] == ({} if kind == "zip" else {"label": {"a": 3, "b": 3}})


def test_the_contact_sheet_shows_pictures_as_training_sees_them(folder):
    findings = inspect_pictures(DataConfig(train_data_dir=str(folder)))
    sheet = contact_sheet(findings)
    assert sheet.size == (8 * 64, 8 * 64)
    with Image.open(folder / "000.jpg") as first:
        seen = square_picture(first, 64)
    assert list(sheet.crop((0, 0, 64, 64)).get_flattened_data()) == list(seen.get_flattened_data())


def test_a_set_that_training_would_refuse_is_said_to_be(folder):
    for number in range(5):
        (folder / f"broken-{number}.jpg").write_bytes(b"%d" % number)
    findings = inspect_pictures(DataConfig(train_data_dir=str(folder)))
    assert findings.usable == 0 and "Training would refuse this dataset" in str(findings)
    with pytest.raises(ValueError, match="cannot be used"):
        load_images(DataConfig(train_data_dir=str(folder)), 28, 3)


def test_the_command_writes_the_sheet_and_prints_json(folder, monkeypatch, capsys, tmp_path):
    sheet = tmp_path / "sheet.png"

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hf-vae", "inspect", *arguments])
        main.main()
        return capsys.readouterr().out

    found = json.loads(run(str(folder), "--json", "--sheet", str(sheet)))
    assert found["count"] == 153 and found["sizes"]["48x64"] == 100 and found["labels"]["kind"]["wide"] == 2
    assert Image.open(sheet).size == (512, 512)
    assert "images       153, of which training would use 151" in run(str(folder))
    with pytest.raises(SystemExit, match="exists; choose another --sheet"):
        run(str(folder), "--sheet", str(sheet))
    with pytest.raises(SystemExit, match="cannot be loaded from the Hub"):
        run("nobody/nothing")


def test_columns_of_parquet_are_counted(tmp_path):
    columns = {"image": [draw_picture(number) for number in range(3)], "age": [1, 1, 30]}
    features = datasets.Features(image=datasets.Image(), age=datasets.Value("int32"))
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "train.parquet")
    findings = inspect_pictures(DataConfig(train_data_dir=str(tmp_path / "train.parquet")))
    assert findings.labels == {"age": {1: 2, 30: 1}} and len(findings.examples) == 3


@pytest.mark.parametrize("place", ["nowhere/", "./nowhere", "/nowhere/at/all"])
def test_a_path_to_nothing_is_refused_without_asking_the_hub(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hf-vae", "inspect", place])
    with pytest.raises(SystemExit, match=f"^Error: {re.escape(place)} does not exist. Pass a folder of images"):
        main.main()
