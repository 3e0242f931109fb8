"""The tab "Morph two photos": what its player shows, what a link restores, and what is refused."""

import re
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qsl

import gradio as gr
import pytest
from conftest import draw_picture
from PIL import Image

from hf_vae.families import FAMILIES
from hf_vae.pipeline import ImagePipeline
from published import open_models
from tabs import morph


ENCODER = next(f"faces-{name}" for name, family in FAMILIES.items() if family.model.has_encoder)
NO_ENCODER = next(f"faces-{name}" for name, family in FAMILIES.items() if not family.model.has_encoder)


@pytest.fixture(scope="module", autouse=True)
def upload_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Makes the tests' temporary folders those that Gradio stores uploads in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.getbasetemp()))
        yield


@pytest.fixture(scope="module")
def models(published_models: Path):
    return open_models({folder.name: folder for folder in sorted(published_models.iterdir())}).models


def played(models, names, start=None, end=None, seeds=(5, 9), path="own", frames=6, speed=16) -> list:
    return morph.play(models, names, start, end, *seeds, path, frames, speed)


def uploads(tmp_path: Path) -> list[dict]:
    for number in (1, 2):
        draw_picture(number, (80, 60)).save(tmp_path / f"{number}.png")
    return [{"path": str(tmp_path / f"{number}.png")} for number in (1, 2)]


def opened(url: str) -> Image.Image:
    return Image.open(BytesIO(b64decode(url.removeprefix("data:image/png;base64,")))).convert("RGB")


def frames_of(row: dict) -> list[bytes]:
    strip, size = opened(row["frames"]), row["size"]
    assert strip.size == (size * row["count"], size)
    return [strip.crop((size * each, 0, size * (each + 1), size)).tobytes() for each in range(row["count"])]


def refusal_of(call, *arguments) -> str:
    with pytest.raises(gr.Error) as refused:
        call(*arguments)
    assert re.fullmatch(r"[A-Z][^\n]*\.", refused.value.message)
    return refused.value.message


def test_the_player_shows_the_frames_of_the_endpoint(models) -> None:
    player, *_ = played(models, [ENCODER, NO_ENCODER], frames=5, speed=9)
    strip, *_ = morph.interpolate(models, [ENCODER, NO_ENCODER], None, None, 5, 9, "own", 5, 9, "gif")
    assert player["fps"] == 9
    assert [row["title"] for row in player["rows"]] == [models[name].title for name in (ENCODER, NO_ENCODER)]
    for number, row in enumerate(player["rows"]):
        given = [picture.crop((28 * number, 0, 28 * (number + 1), 28)).tobytes() for picture, _ in strip]
        assert frames_of(row) == given
        assert [opened(end).tobytes() for end in row["ends"]] == [given[0], given[-1]]


def test_a_link_restores_a_morph_of_samples(models) -> None:
    player, _, link, note = played(models, [NO_ENCODER, ENCODER], seeds=(7, 8), path="slerp", frames=9, speed=3)
    assert link.visible and not note.visible
    query = dict(parse_qsl(link.value))
    assert query.keys().isdisjoint({"model", "count", "seed", "temperature", "prior", "guidance"})  # those of Generate
    names, *seeds, path, frames, speed = morph.linked_morph(models, query)
    assert (names, seeds, path.value, frames, speed) == ([NO_ENCODER, ENCODER], [7, 8], "slerp", 9, 3)
    assert played(models, names, None, None, seeds, path.value, frames, speed)[0] == player


def test_a_link_without_settings_opens_the_first_example(models) -> None:
    names, *seeds, path, frames, speed = morph.linked_morph(models, {"morph": "1"})
    first = next(name for name, model in models.items() if model.has_encoder)
    assert (names, tuple(seeds), path.value, frames, speed) == ([first], morph.EXAMPLES[0], "own", 24, 16)


@pytest.mark.parametrize(
    "query",
    [
        {"models": "nobody"},
        {"start_seed": "-1"},
        {"end_seed": "x"},
        {"path": "teleport"},
        {"frames": "nan"},
        {"frames": "1e9"},
        {"speed": "0"},
    ],
)
def test_a_link_with_wrong_settings_is_refused(models, query: dict[str, str]) -> None:
    assert "must be" in refusal_of(morph.linked_morph, models, query)


def test_uploads_have_no_link_and_are_shown_as_the_models_see_them(models, tmp_path: Path) -> None:
    start, end = uploads(tmp_path)
    player, _, link, note = played(models, [ENCODER, NO_ENCODER], start, end)
    assert not link.visible and not link.value
    assert note.visible and note.value == "Uploads are not stored, so this morph has no link."
    for row in player["rows"]:
        for url, upload in zip(row["ends"], (start, end), strict=True):
            seen = models[ENCODER].pipeline.prepare(Image.open(upload["path"]))
            assert opened(url).tobytes() == seen.convert("RGB").tobytes()


def test_one_upload_alone_is_refused_with_the_way_out(models, tmp_path: Path) -> None:
    start, end = uploads(tmp_path)
    assert refusal_of(played, models, [ENCODER], start) == "Upload a second image, or remove the first one."
    assert refusal_of(played, models, [ENCODER], None, end) == "Upload a first image, or remove the second one."


def test_the_first_morph_is_made_once_for_all_visitors(models, monkeypatch) -> None:
    first, *_ = played(models, [ENCODER], seeds=morph.EXAMPLES[0])

    def fail(*_: object) -> None:
        pytest.fail("the model ran again")

    monkeypatch.setattr(ImagePipeline, "decode", fail)
    assert played(models, [ENCODER], seeds=morph.EXAMPLES[0], speed=30)[0]["rows"] == first["rows"]


def test_the_crop_of_an_upload_is_shown_with_a_sentence(models, tmp_path: Path) -> None:
    start, _ = uploads(tmp_path)
    shown = morph.crop(models, [ENCODER], start)
    assert shown["sentence"] == "Cropped to the largest centered square."
    assert opened(shown["image"]).size == (28, 28)
    assert morph.crop(models, [ENCODER], None) == {}
    assert morph.crop(models, [], start) == shown  # while other models are being chosen


def test_a_bad_upload_is_one_sentence_below_its_field(models, tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_bytes(b"no picture")
    shown = morph.crop(models, [ENCODER], {"path": str(tmp_path / "fake.png")})
    assert shown == {"sentence": "This file is not a JPEG, PNG, WebP, GIF or BMP image; choose another file."}


def test_paths_are_those_that_all_chosen_models_have(models) -> None:
    path, examples, *crops = morph.fit(models, [ENCODER], "mixture", None, None)
    assert path.value == "own" and crops == [{}, {}]
    assert [len(pair) for pair in examples["pairs"]] == [2, 2]
    for name in models:
        offered = [kind for _, kind in morph.path_field([models[name], models[NO_ENCODER]], "slerp").choices]
        assert offered[:3] == ["own", "lerp", "slerp"]
        for kind in offered:
            played(models, [name, NO_ENCODER], path=kind, frames=4)
    assert morph.path_field([models[NO_ENCODER]], "flow").value == "own"
    assert morph.path_field([models[NO_ENCODER]], "slerp").value == "slerp"


def test_an_example_gives_its_seeds_and_takes_uploads_away() -> None:
    assert morph.pick(gr.EventData(None, {"index": 1})) == [*morph.EXAMPLES[1], None, None, {}, {}]
    for index in (None, -1, 2, "0"):
        assert "must be" in refusal_of(morph.pick, gr.EventData(None, {"index": index}))


@pytest.mark.parametrize("kind", ["webp", "gif", "mp4"])
def test_the_morph_on_the_page_is_written_as_it_was_asked_for(models, kind: str) -> None:
    _, rows, *_ = played(models, [ENCODER, NO_ENCODER])
    path = Path(morph.animate(kind, rows, 8))
    assert path.suffix == f".{kind}" and path.stat().st_size > 100
    if kind == "webp":
        animation = Image.open(path)
        assert animation.n_frames == 10 and animation.width == 2 * animation.height


def test_a_download_before_the_first_morph_is_refused() -> None:
    assert "press Morph first" in refusal_of(morph.animate, "gif", None, 16)
