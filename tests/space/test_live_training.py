"""The Space's short training runs: what goes in, what is shown, that it ends, and who may use the model."""

import json
import re
import shutil
import time
import zipfile
from pathlib import Path

import gradio as gr
import psutil
import pytest
from conftest import draw_picture
from PIL import Image, ImageStat

import app
import checks
import live_training
import published
from hf_vae import ImagePipeline
from live_training import collect_pictures, train_live
from published import Models, by_data_set, open_models, own_name, split_name
from tabs import generate, model_choices, morph, train_your_own
from tabs.train_your_own import progress, train
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


def test_two_thousand_images_are_collected_from_zips_and_one_more_is_refused(tmp_path):
    """Each zip as small as Gradio lets through."""
    (tmp_path / "photos").mkdir()
    tiny = [tmp_path / "photos" / f"{number}.png" for number in range(2001)]
    for number, path in enumerate(tiny):
        Image.new("RGB", (4, 4), (number % 256, number // 256, 0)).save(path)
    archives = [zipped(tiny[:1500], tmp_path / "one.zip"), zipped(tiny[1500:2000], tmp_path / "two.zip")]
    assert collect_pictures(archives, tmp_path / "run" / "pictures") == 2000
    with pytest.raises(UploadError, match="more than 2000 images"):
        collect_pictures([*archives, tiny[2000]], tmp_path / "more" / "pictures")


@pytest.mark.parametrize(
    ("load", "minutes", "left"), [(0.5, 1, 500), (2.0, 1, 500), (16.0, 1, 250), (16.0, 2, 500), (400.0, 1, 200)]
)
def test_a_busy_machine_trains_on_fewer_images_in_a_short_time(load, minutes, left, tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    names = [f"{number:04d}.png" for number in range(1, 501)]
    for name in names:
        (tmp_path / name).touch()
    assert live_training.thin_out(tmp_path, minutes) == left
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) == left and kept[0] == names[0] and kept[-1] > names[-4]


def test_a_visitor_is_told_how_many_images_are_used(photos, tmp_path, models, twenty_steps, monkeypatch):
    monkeypatch.setattr(psutil, "getloadavg", lambda: (1e6, 1e6, 1e6))
    monkeypatch.setattr(live_training, "FEWEST_ON_BUSY", 20)
    *_, last = train(models, [{"path": str(photo)} for photo in photos], "vae", 32, 1, 0)
    assert "with 20 of 24 images, as this machine is busy" in last.sentence


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "timed_training.py" in " ".join(child.cmdline())]


@pytest.fixture
def twenty_steps(monkeypatch) -> None:
    """Runs of twenty steps instead of minutes."""
    settings_of = live_training.run_settings

    def shortened(*args) -> dict:
        settings = settings_of(*args) | {"max_train_steps": 20, "logging_steps": 5, "preview_steps": 10}
        del settings["max_train_minutes"]
        return settings

    monkeypatch.setattr(live_training, "run_settings", shortened)


@pytest.fixture
def models(published_models, tmp_path, monkeypatch) -> Models:
    """The models of a Space whose uploads are in tmp_path."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return open_models({folder.name: folder for folder in sorted(published_models.iterdir())}).models


def assert_whole(moments: list, models: Models, tmp_path: Path) -> str:
    """What a finished run shows can be used: samples, losses, the model in other tabs and its zip."""
    sentences = [moment.sentence for moment in moments]
    assert [sentence for sentence in sentences if sentence.startswith("**Preparing**")]
    assert re.match(r"\*\*Done\*\* in .*, with 24 images", sentences[-1]) and "Your VAE, 32 px" in sentences[-1]
    last = moments[-1]
    assert max(ImageStat.Stat(last.preview["value"].convert("L")).var) > 1
    curves = {curve["title"]: curve["points"] for curve in last.losses["value"]["curves"]}
    assert [type(part) for part in curves["Loss"][0]] == [int, float], "numbers, not strings"
    steps = [step for step, _ in curves["Reconstruction error (MSE)"]]
    assert len(steps) > 1 and steps == sorted(steps)
    assert all(value > 0 for _, value in curves["Reconstruction error (MSE)"])
    assert Image.open(last.timelapse["value"]).n_frames > 1
    with zipfile.ZipFile(last.download["value"]) as archive:
        archive.extractall(tmp_path / "downloaded")
        everything = b"".join(map(archive.read, archive.namelist()))
    assert str(tmp_path).encode() not in everything, "no path of the server"
    (folder,) = (tmp_path / "downloaded").iterdir()
    assert {"README.md", "metrics.json", "config.json", "samples.png"} <= {file.name for file in folder.iterdir()}
    mine = ImagePipeline.from_pretrained(folder).sample(2, seed=3).images
    drawn, _ = generate.draw(models, last.name, 2, 3, 1.0, "own")
    assert [picture.tobytes() for picture, _ in drawn] == [picture.tobytes() for picture in mine]
    assert model_choices(models, [last.name])[0] == ("Your VAE, 32 px", last.name)
    assert not children()
    assert not list(tmp_path.glob("*/pictures")) and not list(tmp_path.glob("*/cache")), "the images are deleted"
    return last.name


def test_a_run_ends_with_a_model_that_is_used_and_downloaded(photos, tmp_path, models, twenty_steps):
    """From the files that a visitor uploads to what the page shows; a second model takes the place of the first."""
    files = [{"path": str(photo)} for photo in photos]
    first = assert_whole(list(train(models, files, "vae", 32, 1, 0)), models, tmp_path)
    home = models[first].home
    *_, last = train(models, files, "vae", 32, 1, 0, first)
    assert last.name in models and first not in models
    assert not home.exists()


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 64])
def test_a_run_by_the_clock_ends_with_a_model_too(size, photos, tmp_path, models):
    moments = list(train(models, [{"path": str(photo)} for photo in photos], "vae", size, 1.5, 0))
    assert moments[-1].name in models
    sentences = [moment.sentence for moment in moments]
    assert [sentence for sentence in sentences if re.match(r"\*\*Training\*\*, about .* left, 24 images", sentence)]


def test_who_stops_waiting_stops_the_run_and_nothing_is_left(photos, tmp_path, models):
    folder = tmp_path / "empty"
    folder.mkdir()
    moments = train(models, [{"path": str(photo)} for photo in photos], "dcgan", 32, 10, 0)
    while not children():
        next(moments)
    before = {path.name for path in tmp_path.iterdir()}
    moments.close()
    assert not children()
    assert {path.name for path in tmp_path.iterdir()} < before, "the folder of the run is gone"
    assert not models.own.models


@pytest.mark.parametrize("script", ["raise SystemExit(1)", pytest.param(None, marks=pytest.mark.slow)])
def test_a_run_that_fails_says_so(script, tmp_path, monkeypatch):
    """With a script that fails at once, and with the real one, which finds no images."""
    if script:
        (tmp_path / "failing.py").write_text(script)
        monkeypatch.setattr(live_training, "SCRIPT", tmp_path / "failing.py")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError, match="The run failed"):
        list(train_live(tmp_path / "empty", tmp_path / "run", "vae", 32, 1, 0))


def test_a_machine_that_is_too_busy_is_a_sentence(tmp_path, monkeypatch, caplog):
    reason = f"Error: max_train_minutes=1 is not enough on this machine, see {tmp_path}."
    (tmp_path / "failing.py").write_text(f"raise SystemExit({reason!r})")
    monkeypatch.setattr(live_training, "SCRIPT", tmp_path / "failing.py")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(RuntimeError) as failed:
        list(train_live(tmp_path / "pictures", tmp_path / "run", "vae", 32, 1, 0))
    assert str(failed.value) == (
        "This machine is too busy for a run of 1 minute now. Choose more minutes, or try again later."
    )
    assert reason in caplog.text


@pytest.mark.parametrize(
    "family, size, minutes, seed, sentence",
    [
        ("gpt", 32, 1, 0, "The family"),
        ("vae", 128, 1, 0, "The size"),
        ("vae", 32, 11, 0, "The number of minutes"),
        ("vae", 32, float("nan"), 0, "The number of minutes"),
        ("vae", 32, 1, -1, "The seed"),
    ],
)
def test_settings_that_are_not_offered_are_refused(family, size, minutes, seed, sentence, models):
    with pytest.raises(gr.Error, match=f"{sentence} is .* must be"):
        next(train(models, [], family, size, minutes, seed))


def test_curves_are_short_however_long_the_run_is():
    points = [(step, float(step)) for step in range(1, 4801)]
    curve = live_training._curve(points)
    assert len(curve) == live_training.MOST_POINTS and curve[-1][0] == 4800
    assert [value for _, value in curve] == sorted(value for _, value in curve)
    assert live_training._curve(points[:7]) == points[:7] and live_training._curve([]) == []


def test_a_long_run_holds_out_as_few_images_as_are_measured_in_seconds():
    few, many = (live_training.run_settings(count, "vae", 32, 1, 0)["validation_fraction"] for count in (20, 2000))
    assert few == 0.1 and many * 2000 == live_training.MOST_HELDOUT


def test_progress_is_in_words():
    now = live_training.LiveRun("Training", 1200, 2400, 0.0, {}, None, None)
    assert progress(now, "50 images", 42) == "**Training**, about 40 seconds left, 50 images. Step 1,200 of 2,400."
    assert "about 3 minutes left" in progress(now, "50 images", 185)
    assert "a few seconds left" in progress(now, "50 images", -20)


@pytest.fixture
def kept(models, published_models, tmp_path) -> str:
    """The name of a model that a visitor has trained."""
    home = tmp_path / "home"
    shutil.copytree(published_models / "faces-vae", home / "my-model")
    return models.own.keep(own_name("vae"), home / "my-model", home).name


def test_a_visitors_model_is_found_by_its_name_and_not_listed(models, kept):
    assert kept in models and models[kept].title == "Your VAE, 28 px" == models.get(kept).title
    listed = [*models, *models.keys(), *dict(models.items()), *(model.name for model in models.values())]
    assert kept not in listed and len(models) == 4
    assert kept not in repr(models) and kept not in str(by_data_set(models))
    assert models.get("my-vae-0") is None and "my-vae-0" not in models and [] not in [*models]
    with pytest.raises(KeyError):
        models["my-vae-0"]
    with pytest.raises(gr.Error) as refused:
        checks.choice("The model", "gpt", models)
    assert "faces-vae" in str(refused.value) and kept not in str(refused.value)
    assert split_name(kept) == ("my", "vae")
    assert own_name("vae") != own_name("vae") and len(kept) >= len("my-vae-") + 16


def test_a_visitors_model_morphs_under_its_title(models, kept):
    """Also beside a published one, although it is in no list."""
    player, *_ = morph.play(models, [kept, "faces-vae"], None, None, 0, 1, "own", 4, 16)
    assert [row["title"] for row in player["rows"]] == [models[kept].title, models["faces-vae"].title]
    (_, caption), *_ = generate.show(generate.draw, models, kept, 1, 7, 1.0, "own")[0]
    assert caption == "Your VAE, 28 px: seed 7, image 1, temperature 1"


def test_names_are_not_in_what_any_browser_gets(models, kept, monkeypatch):
    monkeypatch.setattr(app, "open_models", lambda _: published.OpenedModels(models, {}))
    sent = json.dumps(app.build_demo({}).config, default=str)
    assert "faces-vae" in sent and kept not in sent


def test_only_models_that_can_do_it_are_found(models, kept, published_models, tmp_path):
    encoders = models.only(lambda model: model.has_encoder)
    assert "faces-dcgan" not in encoders and kept in encoders and set(encoders) < set(models)
    shutil.copytree(published_models / "faces-dcgan", tmp_path / "other" / "my-model")
    other = models.own.keep(own_name("dcgan"), tmp_path / "other" / "my-model", tmp_path / "other").name
    assert other in models and other not in encoders, "what is trained later too"
    assert [name for _, name in model_choices(encoders, [kept, other, ""])][:2] == [kept, "faces-autoencoder"]


def test_a_visitors_model_goes_after_an_hour(models, kept, monkeypatch):
    home = models[kept].home
    now = time.monotonic()
    monkeypatch.setattr(published.time, "monotonic", lambda: now + 3595)
    assert kept in models
    monkeypatch.setattr(published.time, "monotonic", lambda: now + 3605)
    assert kept not in models and not home.exists()
    with pytest.raises(gr.Error, match="Your model was kept for an hour"):
        checks.choice("The model", kept, models)


def test_a_visitors_model_goes_with_the_session(models, kept, monkeypatch):
    """As Gradio calls it when the session ends, also for a visitor who has trained nothing."""
    home = models[kept].home
    with gr.Blocks():
        own = train_your_own.build(models)
    assert own.name.time_to_live == published.OWN_SECONDS
    own.name.delete_callback(kept)
    own.name.delete_callback("")
    assert kept not in models and not home.exists()


def test_the_number_of_visitors_models_is_bounded(models, published_models, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "MAX_OWN", 2)
    names = []
    for number in range(3):
        home = tmp_path / f"home-{number}"
        shutil.copytree(published_models / "faces-vae", home / "my-model")
        names.append(models.own.keep(own_name("vae"), home / "my-model", home).name)
    assert [name in models for name in names] == [False, True, True]
    assert not (tmp_path / "home-0").exists() and (tmp_path / "home-2").exists()


def test_without_the_packages_the_tab_shows_commands_only(models, monkeypatch):
    monkeypatch.setattr(live_training, "NEEDED", ("a_package_that_nobody_has",))
    with gr.Blocks() as demo:
        own = train_your_own.build(models)
    ids = {block.elem_id for block in demo.blocks.values()}
    assert "command" in ids and not ids & {"train", "train-files"}
    assert own.name.value == "" and own.trained is None


def test_before_a_run_nothing_is_shown_empty(models):
    with gr.Blocks() as demo:
        train_your_own.build(models)
    blocks = {block.elem_id: block for block in demo.blocks.values() if block.elem_id}
    assert all(not blocks[name].visible for name in ("live", "timelapse", "losses", "download-model"))
    assert "appear here" in blocks["train-sentence"].value
