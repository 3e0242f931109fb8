"""The Space without a browser: what its callbacks and its API give, and what they refuse."""

import json
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import httpx
import pytest
import torch
from conftest import draw_picture
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
import uploads
from animation import LEAST_EDGE, save_loop, there_and_back
from hf_vae.families import FAMILIES
from published import comparable_models, open_models
from tabs import gan_vs_vae, interpolate, reconstruct, sample


ENCODER = next(f"faces-{name}" for name, family in FAMILIES.items() if family.model.has_encoder)
NO_ENCODER = next(f"faces-{name}" for name, family in FAMILIES.items() if not family.model.has_encoder)


@pytest.fixture(scope="module", autouse=True)
def upload_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Makes the tests' temporary folders those that Gradio stores uploads in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.getbasetemp()))
        yield


@pytest.fixture(scope="module")
def folders(published_models: Path) -> dict[str, Path]:
    return {folder.name: folder for folder in sorted(published_models.iterdir())}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]):
    return open_models(folders)


@pytest.fixture(scope="module")
def client(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A caller of the API of a Space that runs as it does on the Hub."""
    demo = app.build_demo(folders)
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH_OPTIONS)
    yield Client(address, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))
    demo.close()


def save(picture: Image.Image, path: Path, **options) -> dict:
    """Stores a picture and gives what Gradio hands to a callback for it."""
    picture.save(path, **options)
    return {"path": str(path)}


def bomb(path: Path, width: int = 12_000, height: int = 12_000) -> Path:
    """A PNG of a few bytes whose header announces a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    image = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + image)
    return path


def refusal_of(call, *arguments) -> str:
    """The sentence that a call is refused with."""
    with pytest.raises(gr.Error) as refused:
        call(*arguments)
    assert re.fullmatch(r"[A-Z][^\n]*\.", refused.value.message)
    return refused.value.message


# ---- finding models


def test_models_are_found_in_the_named_folders(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    monkeypatch.setenv("HF_VAE_MODELS", ",".join(map(str, folders.values())))
    assert {name: Path(place) for name, place in app.find_models().items()} == folders


def test_models_are_found_in_model_cards(monkeypatch: pytest.MonkeyPatch, published_models: Path) -> None:
    monkeypatch.delenv("HF_VAE_MODELS", raising=False)
    monkeypatch.setattr(app, "MODEL_CARDS", (published_models / "absent", published_models))
    assert set(app.find_models()) == {f"faces-{name}" for name in FAMILIES}


def test_no_models_or_broken_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folders) -> None:
    monkeypatch.delenv("HF_VAE_MODELS", raising=False)
    monkeypatch.setattr(app, "MODEL_CARDS", (tmp_path, tmp_path))
    with pytest.raises(ValueError, match="HF_VAE_MODELS"):
        app.find_models()
    with pytest.raises(ValueError, match="no models"):
        app.build_demo({})
    shutil.copytree(folders[ENCODER], tmp_path / "copy")
    (tmp_path / "copy" / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"copy holds no metrics\.json"):
        app.build_demo({"copy": tmp_path / "copy"})
    monkeypatch.setenv("HF_VAE_MODELS", f"{tmp_path / 'copy'},someone/copy")
    with pytest.raises(ValueError, match="the same name"):
        app.find_models()


def test_no_weights_are_loaded_before_somebody_asks(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("config.json", "metrics.json"):
        shutil.copy(folders[ENCODER] / name, tmp_path)
    assert isinstance(app.build_demo({"faces-without-weights": tmp_path}), gr.Blocks)


def test_only_encoders_are_offered_for_uploads(folders: dict[str, Path]) -> None:
    def offered(demo: gr.Blocks) -> list[list[str]]:
        dropdowns = [block for block in demo.blocks.values() if isinstance(block, gr.Dropdown)]
        return [[value for _, value in dropdown.choices] for dropdown in dropdowns if dropdown.label == "Model"]

    every, *for_uploads = offered(app.build_demo(folders))
    assert every == list(folders)
    assert len(for_uploads) == 2
    assert all(ENCODER in names and NO_ENCODER not in names for names in for_uploads)
    assert offered(app.build_demo({NO_ENCODER: folders[NO_ENCODER]})) == [[NO_ENCODER]]


def test_data_sets_with_one_family_are_not_compared(models) -> None:
    assert list(comparable_models(models)) == ["faces"]
    assert comparable_models({ENCODER: models[ENCODER]}) == {"all models": [models[ENCODER]]}


# ---- callbacks


def test_the_seed_decides_the_samples(models, family: str) -> None:
    def drawn(seed: int) -> list[bytes]:
        return [picture.tobytes() for picture, _ in sample.draw(models, f"faces-{family}", 3, seed, 1.0)]

    assert drawn(7) == drawn(7)
    assert not set(drawn(7)) & set(drawn(8))
    assert len(set(drawn(7))) == 3


def test_captions_tell_how_to_get_the_picture_again(models) -> None:
    captions = [caption for _, caption in sample.draw(models, ENCODER, 2, 7, 1.0)]
    assert captions == [f"{ENCODER}, seed 7, 1 of 2", f"{ENCODER}, seed 7, 2 of 2"]


def test_a_new_seed_is_drawn_only_if_wanted() -> None:
    assert sample.next_seed(7, False) == 7
    assert len({sample.next_seed(7, True) for _ in range(8)}) > 1


@pytest.mark.parametrize(
    ("count", "seed", "temperature", "named"),
    [
        (0, 0, 1.0, "0"),
        (65, 0, 1.0, "65"),
        (2.5, 0, 1.0, "2.5"),
        ("many", 0, 1.0, "'many'"),
        (None, 0, 1.0, "None"),
        (4, -1, 1.0, "-1"),
        (4, 2**32, 1.0, str(2**32)),
        (4, 0, 2.5, "2.5"),
        (4, 0, float("nan"), "nan"),
        (4, 0, float("inf"), "inf"),
    ],
)
def test_values_out_of_range_are_refused(models, count, seed, temperature, named: str) -> None:
    sentence = refusal_of(sample.draw, models, ENCODER, count, seed, temperature)
    assert f"is {named}; it must be" in sentence


def test_limits_themselves_are_allowed(models) -> None:
    assert len(sample.draw(models, ENCODER, 64, 2**32 - 1, 2.0)) == 64
    assert len(sample.draw(models, ENCODER, 1, 0, 0)) == 1


def test_unknown_models_are_refused_with_the_known_ones(models) -> None:
    assert ENCODER in refusal_of(sample.draw, models, "../secrets", 4, 0, 1.0)
    assert "faces" in refusal_of(gan_vs_vae.compare_sharpness, comparable_models(models), "cats", 0)


def test_reconstruct_shows_the_square_that_the_model_sees(models, tmp_path: Path) -> None:
    upload = save(draw_picture(1, (90, 60)), tmp_path / "wide.png")
    seen, reconstructed, similarity, *sharpness = reconstruct.reconstruct(models, upload, ENCODER)
    assert seen.size == reconstructed.size == (28, 28)
    assert 0 < similarity < 100
    assert min(sharpness) > 0
    flat = save(Image.new("RGB", (50, 50), "teal"), tmp_path / "flat.png")
    assert reconstruct.reconstruct(models, flat, ENCODER)[3] == 0


def test_exif_rotation_is_applied_and_transparency_is_white(models, tmp_path: Path) -> None:
    upright = Image.new("RGB", (60, 60), "white")
    upright.paste("black", (0, 0, 60, 30))  # black above
    exif = Image.Exif()
    exif[274] = 6  # shown after a quarter turn clockwise
    turned = save(upright.transpose(Image.Transpose.ROTATE_90), tmp_path / "turned.jpg", exif=exif, quality=95)
    seen = reconstruct.reconstruct(models, turned, ENCODER)[0]
    assert max(seen.getpixel((14, 4))) < 30
    assert min(seen.getpixel((14, 23))) > 225
    clear = save(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), tmp_path / "clear.png")
    assert reconstruct.reconstruct(models, clear, ENCODER)[0].getpixel((14, 14)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["lerp", "slerp"])
def test_interpolate_runs_from_one_reconstruction_to_the_other(models, tmp_path: Path, monkeypatch, kind: str) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    start, end = (save(draw_picture(number), tmp_path / f"{number}.png") for number in (1, 2))
    strip, animation = interpolate.interpolate(models, start, end, ENCODER, 5, kind)
    assert len(strip) == 5
    for upload, (picture, _) in ((start, strip[0]), (end, strip[-1])):
        alone = reconstruct.reconstruct(models, upload, ENCODER)[1]
        difference = torch.frombuffer(bytearray(alone.tobytes()), dtype=torch.uint8).int()
        difference -= torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).int()
        assert difference.abs().max() <= 1
    assert Path(animation).is_relative_to(tmp_path)  # where Gradio deletes
    assert Image.open(animation).n_frames == 8


@pytest.mark.parametrize(("frames", "kind"), [(3, "lerp"), (61, "lerp"), (8, "teleport")])
def test_interpolate_refuses_before_it_works(models, frames: int, kind: str) -> None:
    assert "must be" in refusal_of(interpolate.interpolate, models, None, None, ENCODER, frames, kind)


def test_a_missing_picture_is_asked_for(models) -> None:
    assert "choose a picture first" in refusal_of(reconstruct.reconstruct, models, None, ENCODER)
    assert "first picture" in refusal_of(interpolate.interpolate, models, None, None, ENCODER, 8, "lerp")


def test_compare_puts_real_pictures_beside_every_family(models, folders: dict[str, Path]) -> None:
    grids, sharpness, energy, sentence = gan_vs_vae.compare_sharpness(comparable_models(models), "faces", 3)
    assert [caption for _, caption in grids] == list(models)
    assert all(grid.size == (4 * 28, 4 * 28) for grid, _ in grids)
    published = json.loads((folders[ENCODER] / "metrics.json").read_text())
    for frame, key in ((sharpness, "laplacian_variance_real"), (energy, "high_frequency_energy_real")):
        values = dict(zip(frame.iloc[:, 0], frame.iloc[:, 1], strict=True))
        assert values.pop("real faces, 28 px") == published[key]
        assert set(values) == set(models)
        assert min(values.values()) > 0
    assert all(name in sentence for name in models)
    assert "Sharper is not better: noise and checkerboards count as sharpness." in sentence


# ---- uploads


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_common_formats_are_opened(tmp_path: Path, kind: str, mode: str) -> None:
    draw_picture(1).convert(mode).save(tmp_path / "file", format=kind)
    assert uploads.open_upload(tmp_path / "file").size == (48, 48)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16", "CMYK"])
def test_large_pictures_are_scaled_down(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("large.jpg" if mode == "CMYK" else "large.png")
    picture = draw_picture(1, (3000, 1000)).convert("L").convert("I").convert(mode) if mode == "I;16" else None
    (picture or draw_picture(1, (3000, 1000)).convert(mode)).save(path)
    opened = uploads.open_upload(path)
    assert max(opened.size) <= uploads.MAX_EDGE
    assert opened.width / opened.height == pytest.approx(3, rel=0.01)


def test_exif_survives_scaling_down(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    draw_picture(1, (3000, 1500)).save(tmp_path / "large.jpg", exif=exif)
    assert uploads.open_upload(tmp_path / "large.jpg").getexif()[274] == 6


def test_the_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert uploads.open_upload(tmp_path / "two.gif").convert("RGB").getpixel((20, 20)) == (255, 0, 0)


def refused_file(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.png"
    if kind.startswith("bomb"):
        return bomb(path, *((5001, 10_000) if kind == "bomb just above the limit" else (12_000, 60_000)))
    if kind == "truncated":
        draw_picture(1).save(path)
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "tiff":
        draw_picture(1).save(path, format="TIFF")
    else:
        path.write_bytes({"text": b"<svg onload='alert(1)'/>", "empty": b""}[kind])
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("text", "no JPEG, PNG"),
        ("empty", "no JPEG, PNG"),
        ("tiff", "no JPEG, PNG"),
        ("truncated", "damaged"),
        ("bomb", "50 megapixels"),
        ("bomb just above the limit", "50 megapixels"),
    ],
)
def test_other_files_are_refused_with_a_sentence(models, tmp_path: Path, kind: str, reason: str) -> None:
    path = refused_file(kind, tmp_path)
    sentence = refusal_of(reconstruct.reconstruct, models, {"path": str(path)}, ENCODER)
    assert reason in sentence
    assert str(tmp_path) not in sentence


# ---- animation


def test_the_animation_is_lossless_and_loops_there_and_back(tmp_path: Path) -> None:
    frames = [draw_picture(number, (28, 28)) for number in range(4)]
    save_loop(frames, tmp_path / "loop.webp")
    animation = Image.open(tmp_path / "loop.webp")
    assert animation.info["loop"] == 0
    assert animation.n_frames == 6
    assert animation.width >= LEAST_EDGE
    for number, frame in enumerate(there_and_back(frames)):
        animation.seek(number)
        assert animation.convert("RGB").resize((28, 28), Image.Resampling.NEAREST).tobytes() == frame.tobytes()


# ---- the API


def test_the_api_is_what_the_readme_documents(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    readme = (Path(app.__file__).parent / "README.md").read_text()
    documented = set(re.findall(r"^\| `(/\w+)`", readme, flags=re.MULTILINE))
    assert set(endpoints) == documented == {"/sample", "/reconstruct", "/interpolate", "/compare_sharpness"}
    for name, endpoint in endpoints.items():
        parameters = [parameter["parameter_name"] for parameter in endpoint["parameters"]]
        assert f"| `{name}` | {', '.join(f'`{parameter}`' for parameter in parameters)} |" in readme


def test_the_api_gives_png_pictures_and_an_animation(client: Client, tmp_path: Path) -> None:
    pictures = client.predict(model=ENCODER, count=2, seed=7, temperature=1.0, api_name="/sample")
    assert [Image.open(picture["image"]).format for picture in pictures] == ["PNG", "PNG"]
    assert Image.open(pictures[0]["image"]).size == (28, 28)
    for number in (1, 2):
        draw_picture(number, (80, 60)).save(tmp_path / f"{number}.jpg")
    start, end = (handle_file(tmp_path / f"{number}.jpg") for number in (1, 2))
    seen, reconstructed, *numbers = client.predict(picture=start, model=ENCODER, api_name="/reconstruct")
    assert Image.open(seen).format == Image.open(reconstructed).format == "PNG"
    assert all(number > 0 for number in numbers)
    strip, animation = client.predict(start, end, model=ENCODER, frames=4, path="lerp", api_name="/interpolate")
    assert len(strip) == 4
    assert Image.open(animation).n_frames == 6
    grids, *_, sentence = client.predict(data_set="faces", seed=0, api_name="/compare_sharpness")
    assert len(grids) == len(FAMILIES)
    assert "Sharper is not better" in sentence


def test_refusals_reach_the_caller_and_tell_no_path(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"number of pictures is 1000; it must be a whole number from 1 to 64"):
        client.predict(model=ENCODER, count=1000, seed=0, temperature=1.0, api_name="/sample")
    fake = tmp_path / "fake.png"
    fake.write_bytes(b"no picture")
    with pytest.raises(AppError, match="no JPEG, PNG") as refused:
        client.predict(picture=handle_file(fake), model=ENCODER, api_name="/reconstruct")
    assert "/" not in str(refused.value)


def test_files_of_the_server_are_not_read(client: Client, models, tmp_path: Path) -> None:
    inside = str(Path(app.__file__))
    assert "not uploaded" in refusal_of(reconstruct.reconstruct, models, {"path": inside}, ENCODER)
    (tmp_path / "link.png").symlink_to(inside)
    assert "not uploaded" in refusal_of(reconstruct.reconstruct, models, {"path": str(tmp_path / "link.png")}, ENCODER)
    endpoint = f"{client.src}gradio_api/call/reconstruct"
    for file in ({"path": inside, "meta": {"_type": "gradio.FileData"}}, {"path": inside}):
        started = httpx.post(endpoint, json={"data": [file, ENCODER]}).json()
        answer = httpx.get(f"{endpoint}/{started['event_id']}").text
        assert answer.startswith("event: error")
        assert inside not in answer
