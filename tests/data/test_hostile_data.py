"""Folders and parquet as strangers and failing disks leave them: what is usable is used, what is not is named."""

import errno
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import REPOSITORY, draw_picture
from drawings import png, write_tiny
from PIL import Image
from upload_corpus import corpus, encoded

import hf_vae.data.rows
from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.data.decoding import decode_file
from hf_vae.data.inspection import inspect_pictures
from hf_vae.data.streaming import open_stream


pytestmark = pytest.mark.fault("untrusted data", "broken files are named and skipped, or one error")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for each test, and one for the `datasets` library beside it."""
    monkeypatch.setenv("HF_VAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    """120 tiny pictures, all different: one more may be broken."""
    return write_tiny(tmp_path / "pictures")


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
        file = decode_file(name, content, 28, 3, None)
        assert file.problem.startswith(f"{name}: ") if file.problem else file.image.shape == (3, 28, 28)
        tried, decoded = tried + 1, decoded + (file.problem is None)
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
    assert "is damaged. It is removed, and the images are decoded again" in capsys.readouterr().out


PROCESSES = """
import os, subprocess, sys
from pathlib import Path
from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images

folder, home, disk, can_mount = sys.argv[1:]
data = DataConfig(train_data_dir=folder)
child = os.fork()
sums = Path(home, f"sums-{'parent' if child else 'child'}")
sums.write_text(str(load_images(data, 28, 3).train.images.sum().item()))
if not child:
    os._exit(0)
print("child:", os.waitpid(child, 0)[1], *(file.read_text() for file in Path(home).glob("sums-*")), flush=True)
if can_mount == "no":
    sys.exit()

os.environ["HF_VAE_CACHE"] = disk
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
try:
    load_images(data, 64, 3)  # 120 images need 1.4 MiB
except OSError as error:
    print(error)
print("left:", os.listdir(disk))
subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
print("loaded:", len(load_images(data, 64, 3).train.images))
"""


class Processes(NamedTuple):
    """What two processes printed that built one cache at once, and one of them then another on a small disk."""

    output: str
    errors: str
    home: Path
    can_mount: bool


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> Processes:
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    can_mount = shutil.which("unshare") and not subprocess.run([*namespace, "true"], capture_output=True).returncode
    folder = write_tiny(tmp_path_factory.mktemp("processes") / "pictures")
    home, disk = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("disk")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HOME": str(home)}
    environment.pop("HF_VAE_CACHE")
    command = [sys.executable, "-c", PROCESSES, str(folder), str(home), str(disk), "yes" if can_mount else "no"]
    command = [*namespace, *command] if can_mount else command
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return Processes(done.stdout, done.stderr, home, bool(can_mount))


def test_processes_that_build_the_same_cache_at_once_get_the_same(processes):
    found = re.search(r"^child: 0 (\d+) (\d+)$", processes.output, re.MULTILINE)
    assert found and found[1] == found[2], processes.errors


def test_the_cache_lies_under_the_home_of_huggingface_hub(processes):
    (cache,) = (processes.home / "assets" / "hf_vae" / "images" / "decoded").iterdir()
    assert {file.name for file in cache.iterdir()} == {"facts.json", "images.uint8"}


def test_a_disk_that_fills_while_the_cache_is_written_leaves_nothing(processes):
    if not processes.can_mount:
        pytest.skip("no private file system can be mounted here")
    message = "could not be written: [Errno 28] No space left on device. Make room there"
    assert message in processes.output, processes.errors
    assert "left: []" in processes.output and "loaded: 120" in processes.output


@pytest.mark.parametrize("contents", [[b""] * 55, [b"<html>403 Forbidden</html>"] * 55, [b"", b"<html>"] * 30])
def test_files_that_are_broken_alike_are_broken_and_no_copies(contents, folder, load):
    for number, content in enumerate(contents):
        (folder / f"{number:03d}-broken.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"\d+ of \d+ images cannot be used.*\n.*(the file is empty|not a JPEG)"):
        load(folder)
    found = inspect_pictures(DataConfig(train_data_dir=str(folder)))
    assert (len(found.broken), found.duplicates, found.usable) == (len(contents), 0, 0)


def test_a_few_that_are_broken_alike_are_counted_each(folder, capsys):
    for number in range(120, 250):
        Image.new("L", (4, 5), number).save(folder / f"{number:03d}.png")
    for name in ("one", "two"):
        (folder / f"{name}.png").write_bytes(b"")
        shutil.copy(folder / "000.png", folder / f"{name} more.png")
    facts = load_images(DataConfig(train_data_dir=str(folder)), 28, 3).facts
    assert (facts["pictures_found"], facts["duplicates_dropped"], facts["broken_skipped"]) == (254, 2, 2)
    printed = capsys.readouterr().out
    assert "one.png: the file is empty" in printed and "two.png: the file is empty" in printed
    found = inspect_pictures(DataConfig(train_data_dir=str(folder)))
    assert (found.count, found.duplicates, len(found.broken)) == (254, 2, 2)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, r"holds no image \(null\)"),
        ({"bytes": b"", "path": None}, "the file is empty"),
        ({"bytes": None, "path": None}, "holds no image: neither bytes nor a path"),
        ({"bytes": None, "path": "/old/machine/1.jpg"}, r"names a file instead of holding it \(/old/machine/1.jpg\)"),
    ],
)
def test_rows_without_an_image_are_broken_for_their_own_reason(row, reason, tmp_path, load):
    rows = [{"bytes": png(number), "path": None} if number % 4 else row for number in range(80)]
    path = write_rows(tmp_path / "rows.parquet", rows)
    with pytest.raises(ValueError, match=rf"(?s)\d+ of \d+ images cannot be used.*row 0: {reason}"):
        load(path, validation_fraction=0.25)  # of a stream these are the first to be read
    found = inspect_pictures(DataConfig(train_data_dir=str(path)))
    assert (len(found.broken), found.duplicates) == (20, 0) and re.fullmatch(rf"row 0: {reason}.*", found.broken[0])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 8736890\n"


def test_pointers_of_git_are_recognised(tmp_path, load):
    (tmp_path / "images").mkdir()
    for number in range(5):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(POINTER % number)
    with pytest.raises(ValueError, match=r"0.jpg: is a Git LFS pointer, .*run `git lfs pull`"):
        load(tmp_path / "images")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.parquet").write_bytes(POINTER % 1)
    for place in (tmp_path / "rows", tmp_path / "rows" / "train.parquet"):
        with pytest.raises(ValueError, match=r"train.parquet is a Git LFS pointer, .*run `git lfs pull`"):
            load(place)
    for loader in (load_images, open_stream):
        with pytest.raises(ValueError, match=r"train.parquet is a Git LFS pointer, .*run `git lfs pull`"):
            loader(DataConfig(dataset_name=str(tmp_path / "rows")), 28, 3)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda archive: archive.write_bytes(archive.read_bytes()[:-60]), "cannot be read out of train.zip"),
        (lambda archive: archive.write_bytes(archive.read_bytes().replace(b"IDAT", b"IDIT")), "cannot be read out of"),
    ],
    ids=["without its end", "with other content"],
)
def test_a_zip_that_was_damaged_after_it_was_listed_is_named(damage, reason, tmp_path):
    place = tmp_path / "zipped"
    place.mkdir()
    with zipfile.ZipFile(place / "train.zip", "w") as archive:
        for number in range(5):
            archive.writestr(f"{number}.png", png(number))
    load_images(DataConfig(dataset_name=str(place)), 28, 3)
    state = (place / "train.zip").stat()
    damage(place / "train.zip")
    os.utime(place / "train.zip", ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ValueError, match=f"{reason}|cannot be loaded"):
        load_images(DataConfig(dataset_name=str(place)), 32, 3)


def test_a_file_in_a_zip_that_stands_for_a_huge_one_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_vae.data.rows, "MAX_FILE_BYTES", 10_000)
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(200):
            archive.writestr(f"{number:03d}.png", png(number))
        archive.writestr("bomb.png", bytes(20_000))
    splits = load_images(DataConfig(dataset_name=str(tmp_path / "zipped")), 28, 3)
    assert splits.facts["broken_skipped"] == 1 and len(splits.rows) == 200


def test_files_with_different_columns_are_refused_in_one_sentence(tmp_path):
    place = tmp_path / "rows"
    place.mkdir()
    write_rows(place / "train-a.parquet", [png(number) for number in range(4)])
    pq.write_table(pa.table({"image": [png(9)], "label": [1], "extra": [1]}), place / "train-b.parquet")
    for name in ("train_data_dir", "dataset_name"):
        with pytest.raises(ValueError, match=r"its files have different columns \(extra\). Give files with") as error:
            load_images(DataConfig(image_column="image", **{name: str(place)}), 28, 3)
        assert "\n" not in str(error.value)


def test_a_name_that_is_not_utf_8_in_a_dataset_is_named(tmp_path, load):
    place = tmp_path / "named"
    place.mkdir()
    for number in range(4):
        (place / (f"{number}.png" if number else os.fsdecode(b"\xe9t\xe9.png"))).write_bytes(png(number))
    with pytest.raises(ValueError, match=r"not UTF-8: .*\\udce9t\\udce9.png. Rename it, or .*train_data_dir"):
        load_images(DataConfig(dataset_name=str(place)), 28, 3)
    assert len(load(place, validation_fraction=0.5).heldout) == 2


def refuse_to_make(monkeypatch, number: int, place: Path) -> None:
    """No folder can be made at `place`, nor below; whoever runs the tests may be allowed to."""
    mkdir, makedirs = os.mkdir, os.makedirs

    def refused(call):
        def guarded(path, *arguments, **options):
            if Path(os.fsdecode(path)).is_relative_to(place):
                raise OSError(number, os.strerror(number), str(path))
            return call(path, *arguments, **options)

        return guarded

    monkeypatch.setattr(os, "mkdir", refused(mkdir))
    monkeypatch.setattr(os, "makedirs", refused(makedirs))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_is_named_with_its_variable(number, folder, cache, tmp_path, monkeypatch):
    (tmp_path / "rows").mkdir()
    rows = write_rows(tmp_path / "rows" / "train.parquet", [png(number) for number in range(4)])
    with monkeypatch.context() as patch:
        refuse_to_make(patch, number, cache)
        with pytest.raises(
            OSError, match=rf"{os.strerror(number)}.*set HF_VAE_CACHE \(or HF_HOME\) to a folder that can be written"
        ):
            LOADERS["cached"](folder)
    with monkeypatch.context() as patch:
        refuse_to_make(patch, number, tmp_path / "datasets")
        with pytest.raises(OSError, match=rf"datasets library in .*{os.strerror(number)}.*set HF_HOME \(or") as error:
            LOADERS["cached"](rows)
        assert "parquet" not in str(error.value)
        with pytest.raises(OSError, match=r"datasets library in .*set HF_HOME \(or"):
            load_images(DataConfig(dataset_name=str(rows.parent)), 28, 3)
    assert len(LOADERS["cached"](rows).train) == 2 and len(LOADERS["cached"](folder).train) == 108


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_cache_where_a_file_lies_is_named_with_its_variable(below, folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("HF_VAE_CACHE", str(tmp_path / "file") + below)
    with pytest.raises(OSError, match=r"could not be written: .*set HF_VAE_CACHE \(or HF_HOME\) to a folder"):
        LOADERS["cached"](folder)


def test_a_user_without_a_home_is_told_where_the_cache_may_lie(folder, monkeypatch):
    def unknown(_):
        raise KeyError("uid not found")

    for name in ("HF_VAE_CACHE", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    # what huggingface_hub finds when it is imported by such a user
    monkeypatch.setattr(huggingface_hub.utils._cache_assets, "HF_ASSETS_CACHE", "~/.cache/huggingface/assets")
    message = "Could not determine home directory. Set HF_VAE_CACHE or HF_HOME to a folder"
    with pytest.raises(ValueError, match=message):
        LOADERS["cached"](folder)


def test_an_image_that_may_not_be_read_is_named_and_no_cache_is_blamed(folder, load, monkeypatch):
    read_bytes = Path.read_bytes

    def refuse(path):
        if path.name == "010.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError, match="010.png cannot be read: Permission denied. Make it readable") as error:
        load(folder)
    assert "HF_VAE_CACHE" not in str(error.value)
