"""Folders and parquet as strangers and failing disks leave them: what is usable is used, what is not is named."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import REPOSITORY, draw_picture
from PIL import Image
from upload_corpus import corpus, encoded

from hf_vae.config import DataConfig
from hf_vae.datasets import decode_picture, load_images
from hf_vae.streaming import open_stream


pytestmark = pytest.mark.fault("data from strangers", "what is broken is named and left out, or one error")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for each test, and one for the `datasets` library beside it."""
    monkeypatch.setenv("HF_VAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    """120 tiny pictures, all different: one more may be broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(120):
        Image.new("L", (4, 4), number).save(folder / f"{number:03d}.png")
    return folder


LOADERS = {
    "cached": lambda path, **options: load_images(DataConfig(train_data_dir=str(path), **options), 28, 3),
    "streamed": lambda path, **options: open_stream(DataConfig(train_data_dir=str(path), **options), 28, 3),
}


@pytest.fixture(params=LOADERS)
def load(request) -> Callable:
    return LOADERS[request.param]


def test_every_file_of_the_corpus_is_decoded_or_named(record_property):
    tried = decoded = 0
    for name, content, _ in corpus():
        found = decode_picture(name, content, 28, 3, None)
        assert found.startswith(f"{name}: ") if isinstance(found, str) else found.shape == (3, 28, 28)
        tried, decoded = tried + 1, decoded + (not isinstance(found, str))
    record_property("tried", tried)
    assert decoded > tried / 3


def test_links_that_loop_or_lead_nowhere_are_no_pictures(folder, load):
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "self.png").symlink_to(folder / "self.png")
    (folder / "nowhere.png").symlink_to(folder / "missing.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    splits = load(folder)
    assert splits.facts.get("pictures_found", 120) == 120  # a stream does not count them
    assert len(splits.heldout) == 12


NAMES = ["кошка.png", "猫.png", "قطة.png", "🐈.png", "a b'c\"d;$(e).png", "[x]*?.png", "new\nline.png", "-rf.png"]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xff\xfe.png"), "\x1b[2J.png"])
@pytest.mark.parametrize("is_broken", [False, True])
def test_names_in_any_script_are_read_and_printed(name, is_broken, folder, load, capsys):
    draw_picture(0).save(folder / "picture.png")
    content = b"broken" if is_broken else (folder / "picture.png").read_bytes()
    (folder / "picture.png").unlink()
    (folder / name).write_bytes(content)
    if is_broken:
        (folder / "000.png").unlink()
    load(folder, validation_fraction=0.5)  # of a stream every other one is read at once
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    printed.encode()  # no half of a character


def test_a_picture_that_is_enormous_is_named_and_not_decoded(folder, capsys):
    (folder / "bomb.png").write_bytes(encoded(Image.new("1", (12_000, 12_000)), "png"))
    assert load_images(DataConfig(train_data_dir=str(folder)), 28, 3).facts["broken_skipped"] == 1
    assert re.search(r"bomb\.png: .*(100 megapixels|exceeds limit)", capsys.readouterr().out)  # ours, or Pillow's own


@pytest.mark.parametrize("contents", [[], [0], [0, 0, 0], [0, 1]], ids=["none", "one", "copies of one", "two"])
def test_too_few_pictures_are_refused(contents, tmp_path, load):
    (tmp_path / "few").mkdir()
    for place, number in enumerate(contents):
        draw_picture(number).save(tmp_path / "few" / f"{place}.png")
    with pytest.raises(ValueError, match="holds no|found: [12]; at least 3 are needed|Too few distinct"):
        load(tmp_path / "few")


def png(number: int) -> bytes:
    return encoded(draw_picture(number), "png")


def write_rows(path: Path, values: list, column: str = "image") -> Path:
    pq.write_table(pa.table({column: values, "label": list(range(len(values)))}), path)
    return path


def test_a_null_among_many_rows_is_left_out(tmp_path, load):
    rows = [{"bytes": png(number), "path": None} for number in range(120)]
    splits = load(write_rows(tmp_path / "rows.parquet", [*rows, None]), validation_fraction=0.5)
    assert len(splits.heldout) == 60  # of 120: the null is in neither half


@pytest.mark.parametrize("place", ["{secret}", "/dev/zero", "http://127.0.0.1:9/x.png", "file:///etc/passwd", None])
def test_a_row_does_not_choose_what_is_read(place, tmp_path, load):
    draw_picture(999).save(tmp_path / "secret.png")
    path = place and place.format(secret=tmp_path / "secret.png")
    rows = [{"bytes": None, "path": path} for _ in range(60)]
    with pytest.raises(ValueError, match="row 0: names a file instead of holding it" if path else "neither bytes nor"):
        load(write_rows(tmp_path / "rows.parquet", rows), validation_fraction=0.5)


def test_a_row_of_a_hub_dataset_does_not_choose_what_is_read_either(tmp_path):
    draw_picture(999).save(tmp_path / "secret.png")
    (tmp_path / "dataset").mkdir()
    places = [str(tmp_path / "secret.png"), str(tmp_path / "dataset"), "", None]
    places += [f"zip://secret.png::{tmp_path / 'secret.zip'}", f"zip://x::file://{tmp_path / 'dataset' / 'x'}"]
    places += [f"tar://x::{tmp_path / 'dataset' / 'x.tar'}", f"zip://a::zip://b::{tmp_path / 'dataset' / 'b.zip'}"]
    rows = [{"bytes": None, "path": place} for place in 15 * places]
    write_rows(tmp_path / "dataset" / "train-00000-of-00001.parquet", rows)
    for load in (load_images, open_stream):
        with pytest.raises(ValueError, match="row 0: names a file instead of holding it"):
            load(DataConfig(dataset_name=str(tmp_path / "dataset"), image_column="image"), 28, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a.png", "b.png"], "Image columns here: none"),
        ([1.0, 2.0], "Image columns here: none"),
        ([None, None], "Image columns here: none"),
        ([[1, 2], [3, 4]], "Image columns here: none"),
        ([b"", b""], "cannot be used|Too few"),
    ],
    ids=["texts", "numbers", "nulls", "lists", "empty bytes"],
)
def test_columns_without_pictures_are_refused(values, message, tmp_path, load):
    with pytest.raises(ValueError, match=message):
        load(write_rows(tmp_path / "rows.parquet", values))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet" * 99, b"PAR1" + bytes(99) + b"PAR1"])
def test_a_file_that_is_no_parquet_is_refused(content, tmp_path, load):
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(ValueError, match="(?i)parquet"):
        load(tmp_path / "rows.parquet")


def test_parquet_that_is_cut_is_refused(tmp_path, load):
    path = write_rows(tmp_path / "rows.parquet", [png(number) for number in range(20)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="(?i)parquet"):
        load(path)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "a bit is flipped": lambda cache: flip(cache / "images.uint8"),
    "a page is cut off": lambda cache: os.truncate(cache / "images.uint8", 4096),
    "there are no images": lambda cache: (cache / "images.uint8").unlink(),
    "there are no facts": lambda cache: (cache / "facts.json").unlink(),
    "the facts are half": lambda cache: os.truncate(cache / "facts.json", 20),
    "the facts are a list": lambda cache: (cache / "facts.json").write_text("[]"),
    "the facts have no digest": lambda cache: (cache / "facts.json").write_text(json.dumps({"images": 120})),
    "it is empty": lambda cache: [file.unlink() for file in cache.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_built_again(damage, folder, cache, capsys):
    before = LOADERS["cached"](folder)
    images, facts = before.train.images.clone(), before.facts
    (only,) = cache.iterdir()
    DAMAGES[damage](only)
    after = LOADERS["cached"](folder)
    assert torch.equal(after.train.images, images) and after.facts == facts
    assert "is not as it was written" in capsys.readouterr().out


BUILD = """
import sys
from hf_vae.config import DataConfig
from hf_vae.datasets import load_images
print(load_images(DataConfig(train_data_dir=sys.argv[1]), 28, 3).train.images.sum().item())
"""


def test_processes_that_build_the_same_cache_at_once_get_the_same(folder, cache):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BUILD, str(folder)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate(timeout=300)[0].splitlines()[-1] for process in running}
    assert [process.returncode for process in running] == [0, 0] and len(sums) == 1
    assert len(list(cache.iterdir())) == 1


ON_A_SMALL_DISK = """
import os, subprocess, sys
from hf_vae.config import DataConfig
from hf_vae.datasets import load_images

folder, cache = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", cache], check=True)
data = DataConfig(train_data_dir=folder)
try:
    load_images(data, 64, 3)  # 120 pictures need 1.4 MiB
except OSError as error:
    print(error)
print("left:", os.listdir(cache))
subprocess.run(["mount", "-o", "remount,size=64m", cache], check=True)
print("loaded:", len(load_images(data, 64, 3).train.images))
"""


def test_a_disk_that_fills_while_the_cache_is_written_leaves_nothing(folder, cache):
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("no private file system can be mounted here")
    cache.mkdir()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [*namespace, sys.executable, "-c", ON_A_SMALL_DISK, str(folder), str(cache)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert "could not be written: [Errno 28] No space left on device. Make room there" in done.stdout, done.stderr
    assert "left: []" in done.stdout and "loaded: 120" in done.stdout
