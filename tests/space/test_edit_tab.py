"""The tab "Edit your photo": what its widgets are sent, and what they may send."""

import base64
import io
import shutil
from pathlib import Path

import gradio as gr
import pytest
import torch
from conftest import draw_picture, tiny_model
from PIL import Image

from hf_vae.latents.sliders import NamedSlider, write_sliders
from hf_vae.pipeline import ImagePipeline
from published import PublishedModel, open_models
from tabs import edit


SETTINGS = (7, 1.0, "own", None, "", 1, None, None)  # as `edit.pca_sweep` takes them after the model


@pytest.fixture(scope="module")
def models(published_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PublishedModel]:
    """A model with twelve components, ten of them with sliders, and two named sliders."""
    folder = tmp_path_factory.mktemp("models") / "faces-vae"
    tiny_model("vae", latent_dim=12, prior="gaussian").save_pretrained(folder)
    shutil.copy(published_models / "faces-vae" / "metrics.json", folder)
    turn, light = torch.eye(12)[3], 0.6 * torch.eye(12)[1] + 0.8 * torch.eye(12)[11]
    sliders = [
        NamedSlider("Head turn", "left", "right", 2.0, 0.5, turn),
        NamedSlider("Brightness", "dark", "bright", 3.0, 0.5, light),
    ]
    write_sliders(folder, sliders)
    return open_models({"faces-vae": folder}).models


def picture_of(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def refusal_of(function, *arguments) -> str:
    with pytest.raises(gr.Error) as refused:
        function(*arguments)
    return refused.value.message


def test_sliders_with_a_name_come_first(models) -> None:
    shown = edit.start_edit(models, "faces-vae", *SETTINGS)[1]["handles"]
    assert [each["title"] for each in shown[:3]] == ["Head turn", "Brightness", "Component 1"]
    assert (shown[0]["low"], shown[0]["high"]) == ("left", "right")
    assert [each["group"] for each in shown] == [edit.NAMED] * 2 + [edit.COMPONENTS] * 10
    assert [each["isRandom"] for each in shown] == [False] * 2 + [True] * 10


def test_the_start_is_the_sample_before_and_after(models) -> None:
    picture, *_ = edit.start_edit(models, "faces-vae", *SETTINGS)
    sample = models["faces-vae"].pipeline.sample(1, 7).images[0]
    assert picture["before"] == picture["after"]
    assert picture_of(picture["before"]).tobytes() == sample.tobytes()


def test_a_strip_shows_where_its_slider_leads(models) -> None:
    sent = edit.strips(models, "faces-vae", *SETTINGS)
    assert [len(row) for row in sent["strips"]] == [5] * 12
    assert len({row[2] for row in sent["strips"]}) == 1, "the middle is the start"
    positions = [0.0] * 12
    positions[1] = edit.STRIP[-1]
    moved = edit.move(models, {"positions": positions}, "faces-vae", *SETTINGS)
    assert picture_of(moved["after"]).tobytes() == picture_of(sent["strips"][1][-1]).tobytes()
    assert moved["after"] == edit.move(models, {"positions": positions}, "faces-vae", *SETTINGS)["after"]


def test_named_sliders_and_components_add_up(models) -> None:
    positions = [2.0, -1.0, *[0.0] * 9, 0.5]  # turn, light, component 10
    moved = edit.move(models, {"positions": positions}, "faces-vae", *SETTINGS)
    pipe = models["faces-vae"].pipeline
    shift = 2 * pipe.sliders[0].vector - pipe.sliders[1].vector + 0.5 * torch.eye(12)[9]
    expected = pipe.decode(pipe.move(pipe.sample(1, 7).latents, shift[None])).images[0]
    assert picture_of(moved["after"]).tobytes() == expected.tobytes()


def test_an_endpoint_takes_sliders_by_their_names(models) -> None:
    pipe = models["faces-vae"].pipeline
    moved = edit.edit(models, "faces-vae", *SETTINGS[:4], "head TURN=2, component 10=-0.5")
    shift = 2 * pipe.sliders[0].vector - 0.5 * torch.eye(12)[9]
    assert moved.tobytes() == pipe.decode(pipe.move(pipe.sample(1, 7).latents, shift[None])).images[0].tobytes()


@pytest.mark.parametrize(
    ("sliders", "message"),
    [
        (
            "smile=1",
            "The model faces-vae has no slider 'smile'; it has Head turn, Brightness, Component 1, Component 2,",
        ),
        ("head turn=4", "Head turn is 4.0; it must be a number from -3"),
        ("head turn=far", "Head turn is 'far'; it must be a number"),
        ("head turn", "The sliders are 'head turn'; write them as in smile=2, component 3=-1."),
        ("head turn=1, head turn=2", "The sliders are"),
    ],
)
def test_sliders_that_are_not_possible_are_refused(models, sliders, message) -> None:
    assert refusal_of(edit.edit, models, "faces-vae", *SETTINGS[:4], sliders).startswith(message)


def test_the_distance_is_shown_and_grows(models) -> None:
    notes = [
        edit.move(models, {"positions": [0.0, value] + [0.0] * 10}, "faces-vae", *SETTINGS)["note"]
        for value in (0.0, 0.5, 3.0)
    ]
    assert notes[0] == edit.UNTOUCHED
    small, large = (float(note.split("%")[0].split()[-1]) for note in notes[1:])
    assert small < large


def test_an_animation_goes_to_the_change_and_back(models) -> None:
    shown = edit.animate(models, {"positions": [0.0, 3.0] + [0.0] * 10}, "faces-vae", *SETTINGS)
    animation = Image.open(shown.value["path"] if isinstance(shown.value, dict) else shown.value)
    assert (animation.format, animation.n_frames) == ("GIF", 2 * edit.GIF_FRAMES - 2)
    assert "move a slider first" in refusal_of(edit.animate, models, None, "faces-vae", *SETTINGS)


@pytest.mark.parametrize("sent", [[0.0] * 11, "many", [0.0] * 13])
def test_positions_of_other_sliders_are_refused(models, sent) -> None:
    message = refusal_of(edit.move, models, {"positions": sent}, "faces-vae", *SETTINGS)
    assert message == "The positions are not those of 12 sliders; choose the model again."


def test_a_position_out_of_reach_is_refused_by_its_name(models) -> None:
    message = refusal_of(edit.move, models, {"positions": [9, *[0.0] * 11]}, "faces-vae", *SETTINGS)
    assert message.startswith("Head turn is 9; it must be a number from -3")


def test_an_upload_is_what_sliders_start_from(models, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    draw_picture(3).save(tmp_path / "photo.png")
    settings = (
        7,
        1.0,
        "own",
        {"path": str(tmp_path / "photo.png"), "meta": {"_type": "gradio.FileData"}},
        "",
        1,
        None,
    )
    picture, _, sentence, *_ = edit.start_edit(models, "faces-vae", *settings)
    expected = ImagePipeline.from_pretrained(models["faces-vae"].folder).reconstruct(draw_picture(3)).images[0]
    assert picture_of(picture["before"]).tobytes() == expected.tobytes()
    assert sentence == "The model sees the largest centered square."
