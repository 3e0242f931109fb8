"""Labels stay with their pictures, whatever was dropped on the way."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw_picture

from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.data.labels import load_labels, read_columns
from hf_vae.data.sources import open_source
from hf_vae.pictures import picture_to_uint8, square_picture


@pytest.fixture
def folder(tmp_path):
    """120 drawings, the third of them a copy of the first, the fourth broken."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number in range(120):
        place = folder / "more" if number >= 100 else folder
        draw_picture(0 if number == 2 else number).save(place / f"{number:03d}.png")
    (folder / "003.png").write_bytes(b"broken")
    return folder


def columns_of(data: DataConfig) -> dict[str, list]:
    return read_columns(open_source(data))


def numbers_seen(splits) -> list[int]:
    """Which drawing each decoded image is."""
    drawn = {
        picture_to_uint8(square_picture(draw_picture(number), 28)).numpy().tobytes(): number for number in range(120)
    }
    return [drawn[image.numpy().tobytes()] for image in splits.train.images]


def test_metadata_of_a_folder_labels_its_pictures(folder):
    lines = [f"{number:03d}.png,{number * 2},n{number}" for number in reversed(range(100)) if number != 7]
    (folder / "metadata.csv").write_text("\n".join(["file_name,twice,name", *lines]))
    nested = [json.dumps({"file_name": f"{number}.png", "twice": number * 2}) for number in range(100, 120)]
    (folder / "more" / "metadata.jsonl").write_text("\n".join(nested))
    data = DataConfig(train_data_dir=str(folder))
    splits = load_images(data, 28, 3)
    numbers = numbers_seen(splits)
    assert len(numbers) == 118 and 3 not in numbers
    assert load_labels(data, "twice", splits) == [None if number == 7 else 2 * number for number in numbers]
    names = load_labels(data, "name", splits)
    assert names == [None if number == 7 or number >= 100 else f"n{number}" for number in numbers]


def test_columns_of_parquet_label_its_pictures_and_classes_have_names(folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    columns = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "age": [float(number) if number != 5 else None for number in range(120)],
        "kind": [number % 2 for number in range(120)],
    }
    features = datasets.Features(
        image=datasets.Image(), age=datasets.Value("float32"), kind=datasets.ClassLabel(names=["even", "odd"])
    )
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "train.parquet")
    data = DataConfig(train_data_dir=str(tmp_path / "train.parquet"))
    splits = load_images(data, 28, 3)
    numbers = numbers_seen(splits)
    assert load_labels(data, "age", splits) == [None if number == 5 else number for number in numbers]
    assert load_labels(data, "kind", splits) == [("even", "odd")[number % 2] for number in numbers]
    with pytest.raises(ValueError, match="no label column 'gender'; there are: age, kind"):
        load_labels(data, "gender", splits)


def test_the_labels_of_a_split_are_at_its_indices(folder):
    lines = [f"{number:03d}.png,{number}" for number in range(100)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,number", *lines]))
    data = DataConfig(train_data_dir=str(folder))
    splits = load_images(data, 28, 3)
    labels, numbers = load_labels(data, "number", splits), numbers_seen(splits)
    for split in (splits.train, splits.heldout):
        found = [labels[index] for index in split.indices]
        assert found == [numbers[index] if numbers[index] < 100 else None for index in split.indices]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "picture,age\nnobody.png,3\n", "needs a file_name in every row.* Its columns: picture, age"),
        (
            "metadata.csv",
            "file_name,age\nnobody.png,3\n",
            "describes no image in the folder; it names for instance nobody.png",
        ),
        ("metadata.csv", "file_name,age\n,3\n", "needs a file_name in every row"),
        ("metadata.csv", "a,b,age\n000.png,001.png,3\n", "each of its columns a, b names images"),
        ("metadata.csv", "picture,age\n000.png,3\nnobody.png,4\n", "needs a file_name in every row"),
        ("metadata.csv", b"file_name,age\n000.png,\xff\n", "cannot be read: 'utf-8' codec"),
        ("metadata.jsonl", '{"file_name": "000.png", "age": 3}\n{"file', "cannot be read"),
        ("metadata.jsonl", '["000.png"]', "needs a file_name in every row"),
        ("metadata.csv", "", "cannot be read"),
        ("metadata.csv", "file_name,age\n", "has no rows"),
        ("metadata.parquet", "no parquet", "cannot be read"),
    ],
)
def test_metadata_that_cannot_be_used_is_named_and_stops_no_one_who_does_not_ask_for_it(
    name, content, message, folder, capsys
):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    data = DataConfig(train_data_dir=str(folder))
    with pytest.raises(ValueError, match=f"no label column 'age'; .*{name} is not used: .*{message}"):
        load_labels(data, "age", load_images(data, 28, 3))
    assert columns_of(data) == {}
    (warning,) = capsys.readouterr().err.splitlines()
    assert f"{name} is not used: " in warning


ROWS = [(f"{number:03d}.png", number) for number in range(100)]


def table(separator: str, name: str = "file_name", folder: str = "") -> str:
    return "\n".join([f"{name}{separator}age", *(f"{folder}{file}{separator}{age}" for file, age in ROWS)])


@pytest.mark.parametrize(
    "content",
    [
        table(",").encode("utf-8-sig"),
        table(";").encode(),
        table("\t").encode(),
        table(";").encode("utf-16"),
        table(",", folder=".\\").encode(),
        table(",", folder="./").encode(),
        table(",", name="path").encode(),
        table(";", name="image").encode("utf-16"),
    ],
    ids=["byte order mark", "semicolon", "tab", "UTF-16", "backslash", "point", "path", "image"],
)
def test_metadata_as_other_programs_write_it_is_read(content, folder):
    (folder / "metadata.csv").write_bytes(content)
    assert columns_of(DataConfig(train_data_dir=str(folder))) == {"age": [*range(100), *[None] * 20]}


def test_of_several_rows_about_one_image_the_last_counts_and_it_is_said(folder, capsys):
    (folder / "metadata.csv").write_text("file_name,age\n000.png,1\n001.png,2\n000.png,3\n")
    assert columns_of(DataConfig(train_data_dir=str(folder)))["age"][:3] == [3, 2, None]
    assert "several rows are about one image; the last one is used" in capsys.readouterr().err


def test_metadata_in_parquet_is_read_and_is_no_set_of_images(folder):
    names, ages = zip(*ROWS, strict=True)
    pq.write_table(pa.table({"file_name": names, "age": ages}), folder / "metadata.parquet")
    assert columns_of(DataConfig(train_data_dir=str(folder)))["age"][:100] == list(ages)


def test_folders_of_classes_are_labels(tmp_path):
    for number in range(12):
        file = tmp_path / "pictures" / ("cat" if number < 5 else "dog") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(number).save(file)
    data = DataConfig(train_data_dir=str(tmp_path / "pictures"))
    splits = load_images(data, 28, 3)
    assert load_labels(data, "label", splits) == ["cat" if number < 5 else "dog" for number in numbers_seen(splits)]
    draw_picture(99).save(tmp_path / "pictures" / "beside.png")
    assert columns_of(data) == {}, "as with datasets, where images lie beside the folders"


def test_folders_of_splits_are_no_classes(tmp_path):
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            (tmp_path / split / kind).mkdir(parents=True)
            draw_picture(len(split + kind) + ord(kind[0])).save(tmp_path / split / kind / "0.png")
            draw_picture(0).save(tmp_path / split / "1.png")
    assert columns_of(DataConfig(train_data_dir=str(tmp_path), dataset_split="all")) == {}
    for split in ("train", "test"):
        (tmp_path / split / "1.png").unlink()
    assert columns_of(DataConfig(train_data_dir=str(tmp_path)))["label"] == ["cat", "dog"]
    whole = DataConfig(train_data_dir=str(tmp_path), dataset_split="all")
    assert columns_of(whole)["label"] == ["cat", "dog", "cat", "dog"]


def test_a_folder_without_metadata_has_no_labels(folder):
    data = DataConfig(train_data_dir=str(folder))
    with pytest.raises(ValueError, match="there are: none"):
        load_labels(data, "age", load_images(data, 28, 3))
