"""The Space's short training runs: what goes in, what is shown, and that it ends."""

import zipfile
from pathlib import Path

import psutil
import pytest
from conftest import draw_picture
from PIL import Image

import live_training
from live_training import collect_pictures, train_live
from tabs.train_your_own import train
from uploads import UploadError


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """24 different pictures of several formats and sizes."""
    (tmp_path / "photos").mkdir()
    paths = [tmp_path / "photos" / f"{number}.{'png' if number % 2 else 'jpg'}" for number in range(24)]
    for number, path in enumerate(paths):
        draw_picture(number, (60 + 10 * number, 300)).save(path)
    return paths


def zipped(paths: list[Path], target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in paths:
            archive.write(path, prefix + path.name)
    return target


def test_pictures_and_zips_of_them_are_collected_once_and_small(photos, tmp_path):
    files = [*photos[:4], zipped(photos, tmp_path / "all.zip")]
    assert collect_pictures(files, tmp_path / "run" / "pictures") == 24
    sizes = [Image.open(file).size for file in (tmp_path / "run" / "pictures").iterdir()]
    assert len(sizes) == 24 and max(max(size) for size in sizes) == live_training.PICTURE_EDGE


def test_what_a_zip_holds_beside_pictures_is_passed_over(photos, tmp_path):
    archive = zipped(photos, tmp_path / "mac.zip", prefix="photos/")
    with zipfile.ZipFile(archive, "a") as opened:
        for name in ("photos/.DS_Store", "__MACOSX/photos/._1.png", "photos/metadata.csv"):
            opened.writestr(name, "no picture")
    assert collect_pictures([archive], tmp_path / "run" / "pictures") == 24


def test_a_damaged_zip_is_refused(photos, tmp_path):
    archive = zipped(photos, tmp_path / "damaged.zip")
    content = bytearray(archive.read_bytes())
    content[200] ^= 255  # in the first picture, whose checksum does not fit then
    archive.write_bytes(content)
    with pytest.raises(UploadError, match="This zip is damaged"):
        collect_pictures([archive], tmp_path / "run" / "pictures")


def test_a_zip_cannot_write_elsewhere(photos, tmp_path):
    archive = zipped(photos, tmp_path / "evil.zip", prefix="../../outside-")
    assert collect_pictures([archive], tmp_path / "a" / "b" / "pictures") == 24
    assert not list(tmp_path.rglob("outside-*"))


def test_too_few_too_many_and_no_pictures_are_refused(photos, tmp_path, monkeypatch):
    with pytest.raises(UploadError, match="Found 3 different images; upload at least 20"):
        collect_pictures([*photos[:3], photos[0]], tmp_path / "few")
    with pytest.raises(UploadError, match="Found 0 different images"):
        collect_pictures([], tmp_path / "none")
    monkeypatch.setattr(live_training, "MAX_PICTURES", 22)
    with pytest.raises(UploadError, match="more than 22 images"):
        collect_pictures(photos, tmp_path / "many")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UploadError, match="not a JPEG, PNG"):
        collect_pictures([tmp_path / "text.jpg"], tmp_path / "text")


def test_a_zip_of_large_files_is_refused_before_they_are_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("huge.png", bytes(21 * 2**20))
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    with pytest.raises(UploadError, match="larger than 20 MB"):
        collect_pictures([tmp_path / "bomb.zip"], tmp_path / "pictures")


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "train_accelerate.py" in " ".join(child.cmdline())]


def test_a_run_shows_losses_previews_and_in_the_end_a_timelapse(photos, tmp_path, monkeypatch):
    """From the files that a visitor uploads to what the page shows."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    *_, (shown, losses, sentence) = train([{"path": str(photo)} for photo in photos], "vae", 20, 0)
    assert sentence == "Step 20 of 20, 24 images."
    assert list(losses[losses.loss == "mse"].step) == [5, 10, 15, 20]
    assert (losses[losses.loss == "mse"].value > 0).all()
    assert Image.open(shown).n_frames == 2
    assert not children()


def test_who_stops_waiting_stops_the_run(photos, tmp_path):
    collect_pictures(photos, tmp_path / "pictures")
    moments = train_live("dcgan", tmp_path / "pictures", tmp_path / "run", num_steps=300, seed=0)
    next(moments)
    assert children()
    moments.close()
    assert not children()


@pytest.mark.parametrize("script", ["raise SystemExit(1)", pytest.param(None, marks=pytest.mark.slow)])
def test_a_run_that_fails_says_so(script, tmp_path, monkeypatch):
    """With a script that fails at once, and with the real one, which finds no images."""
    if script:
        (tmp_path / "failing.py").write_text(script)
        monkeypatch.setattr(live_training, "SCRIPT_PLACES", [tmp_path / "failing.py"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError, match="The run failed"):
        list(train_live("vae", tmp_path / "empty", tmp_path / "run", num_steps=20, seed=0))
