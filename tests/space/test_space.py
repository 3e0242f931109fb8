"""The Space without a browser: what its callbacks and its API give, and what they refuse."""

import html
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import gradio.utils
import httpx
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, draw_picture, tiny_model
from gradio.context import LocalContext
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from starlette.requests import Request

import app
import checks
import train_accelerate
import uploads
from animation import LEAST_EDGE, enlarge, save_loop, there_and_back
from gate import FAILED
from hf_vae.evaluation.evaluate import evaluate, save_metrics
from hf_vae.evaluation.metrics import mse
from hf_vae.families import FAMILIES
from hf_vae.latents.directions import Direction, write_directions
from hf_vae.latents.labelled_codes import LabelledCodes
from hf_vae.pictures import to_pictures
from hf_vae.pipeline import ImagePipeline
from published import PublishedModel, by_data_set, comparable_models, open_models, split_name
from tabs import about, compare, edit, generate, morph, reconstruct, train_your_own


ENCODER = next(f"faces-{name}" for name, family in FAMILIES.items() if family.model.has_encoder)
ENDPOINTS = {
    "/sample",
    "/sample_rows",
    "/crop_face",
    "/reconstruct",
    "/interpolate",
    "/compare_sharpness",
    "/compare_reconstructions",
    "/latent_pca",
    "/edit",
    "/pca_sweep",
}
SHIPPED = sorted(path.parent for path in (REPOSITORY / "model_cards").glob("*/config.json"))
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
    return open_models(folders).models


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
    assert list(app.find_models()) == [f"faces-{name}" for name in FAMILIES]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("cats-vae", ("cats", "vae")),
        ("cats-vaegan-2048", ("cats", "vaegan")),
        ("afhq-cat-dcgan", ("afhq-cat", "dcgan")),
        ("my-model", ("my", None)),
    ],
)
def test_a_model_s_name_says_its_dataset_and_family(name: str, parts: tuple[str, str | None]) -> None:
    assert split_name(name) == parts
    assert PublishedModel(name, Path(name)).data_set == parts[0]


def test_models_are_ordered_by_dataset_then_family_then_name(monkeypatch, tmp_path: Path) -> None:
    ordered = [f"cats-{name}{variant}" for name in FAMILIES for variant in ("", "-2048")] + ["cats-other", "dogs-vae"]
    for name in sorted(ordered, reverse=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.delenv("HF_VAE_MODELS", raising=False)
    monkeypatch.setattr(app, "MODEL_CARDS", (tmp_path, tmp_path / "absent"))
    assert list(app.find_models()) == ordered


def test_no_models_or_broken_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folders) -> None:
    monkeypatch.delenv("HF_VAE_MODELS", raising=False)
    monkeypatch.setattr(app, "MODEL_CARDS", (tmp_path, tmp_path))
    with pytest.raises(ValueError, match="HF_VAE_MODELS"):
        app.find_models()
    with pytest.raises(ValueError, match="no models"):
        app.build_demo({})
    shutil.copytree(folders[ENCODER], tmp_path / "copy")
    (tmp_path / "copy" / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"copy has no metrics\.json"):
        app.build_demo({"copy": tmp_path / "copy"})
    monkeypatch.setenv("HF_VAE_MODELS", f"{tmp_path / 'copy'},someone/copy")
    with pytest.raises(ValueError, match="the same name"):
        app.find_models()


def test_the_home_folder_may_be_named_by_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_VAE_MODELS", "~/runs/a, someone/b")
    assert app.find_models() == {"a": str(tmp_path / "runs" / "a"), "b": "someone/b"}


def test_no_weights_are_loaded_before_somebody_asks(folders: dict[str, Path], monkeypatch) -> None:
    monkeypatch.setattr(ImagePipeline, "from_pretrained", lambda *_: pytest.fail("loaded"))
    assert isinstance(app.build_demo(folders), gr.Blocks)


# ---- broken models


WEIGHTS = "diffusion_pytorch_model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 8736890\n"


def rewrite(file: Path, content: bytes | str | None) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


BREAKING = {
    "a damaged configuration": (lambda folder: rewrite(folder / "config.json", '{"_class_name": "VA'), "JSON"),
    "a configuration of nothing": (lambda folder: rewrite(folder / "config.json", "[]"), "_class_name"),
    "no configuration": (lambda folder: rewrite(folder / "config.json", None), "config.json"),
    "a model of diffusers": (
        lambda folder: rewrite(folder / "config.json", '{"_class_name": "AutoencoderKL", "act_fn": "silu"}'),
        "AutoencoderKL",
    ),
    "no metrics": (lambda folder: rewrite(folder / "metrics.json", None), "has no metrics.json"),
    "damaged metrics": (lambda folder: rewrite(folder / "metrics.json", "{"), "metrics.json is not JSON"),
    "metrics of nothing": (lambda folder: rewrite(folder / "metrics.json", "[1]"), "has no sample_prior"),
    "old metrics": (
        lambda folder: rewrite(folder / "metrics.json", '{"sample_prior": "flow", "image_size": NaN}'),
        "has no number for image_size, laplacian_variance_real",
    ),
    "no weights": (lambda folder: rewrite(folder / WEIGHTS, None), WEIGHTS),
    "a pointer for weights": (lambda folder: rewrite(folder / WEIGHTS, POINTER), WEIGHTS),
    "half of the weights": (
        lambda folder: rewrite(folder / WEIGHTS, (folder / WEIGHTS).read_bytes()[:-1000]),
        WEIGHTS,
    ),
    "empty weights": (lambda folder: rewrite(folder / WEIGHTS, b""), WEIGHTS),
    "damaged directions": (lambda folder: (folder / "directions.safetensors").write_bytes(b"x" * 99), "directions"),
    "a card in another encoding": (lambda folder: (folder / "README.md").write_bytes(b"\xff\xfe#"), "not UTF-8"),
    "an empty folder": (lambda folder: [file.unlink() for file in folder.iterdir()], "config.json"),
    "no folder": (lambda folder: shutil.rmtree(folder), "Hub"),
}


@pytest.mark.parametrize("kind", BREAKING)
def test_a_broken_model_is_named_and_the_others_are_shown(kind, folders, tmp_path, caplog) -> None:
    breaks, reason = BREAKING[kind]
    place = tmp_path / "models of <mine>" / "broken-vae"
    shutil.copytree(folders[ENCODER], place)
    breaks(place)
    demo = app.build_demo(folders | {"broken-vae": place})
    (logged,) = [record.getMessage() for record in caplog.records if "broken-vae" in record.getMessage()]
    assert logged.startswith("broken-vae cannot be loaded: ") and reason in logged
    offered = [block for block in demo.blocks.values() if isinstance(block, gr.Dropdown) and block.label == "Model"]
    assert all([value for _, value in dropdown.choices] == list(folders) for dropdown in offered)
    (shown,) = [block.value for block in demo.blocks.values() if getattr(block, "elem_id", None) == "broken"]
    assert shown.startswith("<ul><li>broken-vae cannot be loaded: ") and html.escape(reason) in shown
    assert str(tmp_path) not in shown and "models of" not in shown
    with pytest.raises(ValueError, match="None of the models can be loaded") as refused:
        app.build_demo({"broken-vae": place, "gone": tmp_path / "gone"})
    assert all(f"{name} cannot be loaded: " in str(refused.value) for name in ("broken-vae", "gone"))
    assert reason in str(refused.value)


def test_a_model_that_the_hub_does_not_give_is_named(folders) -> None:
    models, broken = open_models(folders | {"cats": "nobody/cats"})
    assert list(models) == list(folders) and list(broken) == ["cats"]
    assert broken["cats"].startswith("cats cannot be loaded: nobody/cats ")


def test_a_space_of_whole_models_does_not_speak_of_broken_ones(folders) -> None:
    blocks = app.build_demo(folders).blocks.values()
    assert not [block for block in blocks if getattr(block, "elem_id", None) == "broken"]


@pytest.fixture
def damaged_later(folders, tmp_path):
    """Whole models, one of which was damaged after the Space started."""
    shutil.copytree(folders[ENCODER], tmp_path / "broken-vae")
    models = open_models({"broken-vae": tmp_path / "broken-vae", NO_ENCODER: folders[NO_ENCODER]}).models
    rewrite(tmp_path / "broken-vae" / WEIGHTS, POINTER)
    return models


def test_weights_that_are_damaged_later_are_one_sentence_for_the_visitor(damaged_later, tmp_path, caplog) -> None:
    upload = save(draw_picture(1), tmp_path / "one.png")
    groups, compared = by_data_set(damaged_later), comparable_models(damaged_later)
    calls = [
        lambda: generate.draw(damaged_later, "broken-vae", 1, 0, 1.0, "own"),
        lambda: generate.draw_rows(damaged_later, "broken-vae", 0, "own"),
        lambda: reconstruct.crop_face(groups, upload, "broken", "centre"),
        lambda: reconstruct.reconstruct(groups, upload, "broken", "centre"),
        lambda: morphed(damaged_later, ["broken-vae"]),
        lambda: morphed(damaged_later, [NO_ENCODER, "broken-vae"], upload, upload),
        lambda: compare.compare_sharpness(compared, "all models", 0),
        lambda: compare.compare_upload(compared, upload, "all models"),
        lambda: moved(damaged_later, "broken-vae"),
        lambda: moved(damaged_later, "broken-vae", picture=upload),
        lambda: edit.pca_sweep(damaged_later, "broken-vae", 7, 1.0, "own", None),
        lambda: edit.start_edit(damaged_later, "broken-vae", 7, 1.0, "own", None, "", 1, None),
    ]
    for number, call in enumerate(calls, 1):
        with pytest.raises(gr.Error) as refused:
            call()
        assert refused.value.message == "broken-vae cannot be loaded; choose another model."
        assert not refused.value.print_exception
        assert len(caplog.records) == number and str(tmp_path) in caplog.messages[-1]
    assert len(drawn(damaged_later, NO_ENCODER, 1, 0, 1.0, "own")) == 1


def test_other_files_that_are_damaged_later_do_no_harm(damaged_later, tmp_path) -> None:
    for name in ("config.json", "metrics.json"):
        rewrite(tmp_path / "broken-vae" / name, "{")
    model = damaged_later["broken-vae"]
    assert model.has_encoder and model.priors and model.metrics["image_size"] == 28


def test_every_model_is_offered_in_every_tab(folders: dict[str, Path]) -> None:
    def offered(demo: gr.Blocks) -> list[list[str]]:
        dropdowns = [block for block in demo.blocks.values() if isinstance(block, gr.Dropdown)]
        return [[value for _, value in dropdown.choices] for dropdown in dropdowns if dropdown.label == "Model"]

    assert offered(app.build_demo(folders)) == [list(folders)] * 3  # to sample from, to move along, to read about


def test_a_space_without_encoders_offers_no_reconstructions(folders: dict[str, Path]) -> None:
    def offered(demo: gr.Blocks) -> set[str]:
        endpoints = set(demo.get_api_info()["named_endpoints"])
        (upload,) = [block for block in demo.blocks.values() if getattr(block, "elem_id", None) == "compare-upload"]
        return endpoints & {"/crop_face", "/reconstruct"} | ({"upload"} if upload.parent.parent.visible else set())

    assert offered(app.build_demo(folders)) == {"/crop_face", "/reconstruct", "upload"}
    assert offered(app.build_demo({NO_ENCODER: folders[NO_ENCODER]})) == set()


def test_files_of_visitors_are_gone_within_the_hour(folders: dict[str, Path]) -> None:
    assert sum(app.build_demo(folders).delete_cache) <= 3600  # between two looks, and as old as they may get


def test_data_sets_with_one_family_are_not_compared(models) -> None:
    assert list(comparable_models(models)) == ["faces"]
    assert comparable_models({ENCODER: models[ENCODER]}) == {"all models": [models[ENCODER]]}


# ---- callbacks


def is_nearly(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures are the same up to rounding, which differs with how many are decoded at once."""
    one, other = (torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).int() for picture in (one, other))
    return (one - other).abs().max().item() <= 1


def drawn(models, *arguments) -> list[bytes]:
    return [picture.tobytes() for picture, _ in generate.draw(models, *arguments)[0]]


def test_the_seed_decides_the_samples_and_they_are_those_of_the_model(models, family: str) -> None:
    name = f"faces-{family}"
    wanted = models[name].pipeline.model.sample(3, torch.Generator().manual_seed(7))
    pictures = [picture for picture, _ in generate.draw(models, name, 3, 7, 1.0, "own")[0]]
    assert all(is_nearly(*each) for each in zip(pictures, to_pictures(wanted), strict=True))
    assert drawn(models, name, 3, 7, 1.0, "own") == drawn(models, name, 3, 7, 1.0, "own")
    assert not set(drawn(models, name, 3, 7, 1.0, "own")) & set(drawn(models, name, 3, 17, 1.0, "own"))
    assert len(set(drawn(models, name, 3, 7, 1.0, "own"))) == 3


def test_captions_tell_how_to_get_the_picture_again(models) -> None:
    pictures, how = generate.draw(models, ENCODER, 2, 7, 0.5, "gaussian")
    assert [caption for _, caption in pictures] == [
        f"{ENCODER}, seed 7, image {image}, temperature 0.5" for image in (1, 2)
    ]
    assert how == [(ENCODER, 7, image, 0.5, "gaussian", "", None, None) for image in (1, 2)]


def test_captions_on_the_page_have_titles(models) -> None:
    pictures, how = generate.show(generate.draw, models, ENCODER, 2, 7, 0.5, "gaussian")
    title = models[ENCODER].title
    assert title.startswith("Faces, ")
    assert [caption for _, caption in pictures] == [f"{title}: seed 7, image {n}, temperature 0.5" for n in (1, 2)]
    assert how == generate.draw(models, ENCODER, 2, 7, 0.5, "gaussian")[1]
    rows, _ = generate.show(generate.draw_rows, models, ENCODER, 7, "own")
    assert len(rows) == 64 and rows[-1][1] == f"{title}: seed 7, image 8, temperature 2"
    assert f"The model {models[NO_ENCODER].title} has no" in refusal_of(
        morphed, models, [NO_ENCODER], None, None, (0, 1), "flow"
    )
    assert about.card_of(models, ENCODER) == f"{title} has no model card."


def test_guidance_changes_what_a_flow_generates_and_is_in_the_caption(asked) -> None:
    settings = ("faces-vae", 2, 7, 1.0, "own", "")
    own, (pictures, how) = drawn(asked, *settings), generate.draw(asked, *settings, 4.0)
    assert [picture.tobytes() for picture, _ in pictures] != own
    assert pictures[1][1] == "faces-vae, seed 7, image 2, temperature 1, guidance 4" and how[1].guidance == 4
    start = edit.latent_pca(asked, "faces-vae", 7, 1.0, "own", None, image=2, guidance=4.0)
    assert is_nearly(start, pictures[1][0])
    for value in (-1, 11, "x"):
        assert "The guidance" in refusal_of(generate.draw, asked, *settings, value)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_every_shipped_model_can_be_chosen_on_the_page(folder) -> None:
    opened = open_models({folder.name: folder})
    assert not opened.broken
    config = json.loads((folder / "config.json").read_text())
    own, none, strong, _, detailed, *_ = generate.own_fields(opened.models, folder.name)
    assert none is None and own.value == "own"
    for slider, name in ((strong, "guidance"), (detailed, "rest_temperature")):
        has_code = config.get("prior") == "code"
        assert slider.visible == (has_code or (name == "guidance" and config.get("prior") == "flow"))
        if has_code:
            assert slider.value == config[name]
    assert len(edit.start_fields(opened.models, folder.name)) > 1


def test_less_detail_changes_what_a_code_generates_and_is_in_the_caption(asked) -> None:
    settings = ("faces-vae", 2, 7, 1.0)
    own, (pictures, how) = drawn(asked, *settings, "own"), generate.draw(asked, *settings, "own", "", None, 0.5)
    assert [picture.tobytes() for picture, _ in pictures] != own
    assert pictures[1][1] == "faces-vae, seed 7, image 2, temperature 1, rest temperature 0.5"
    start = edit.latent_pca(asked, "faces-vae", 7, 1.0, "own", None, image=2, rest_temperature=how[1].rest_temperature)
    assert is_nearly(start, pictures[1][0])
    _, [first, *_] = generate.draw(asked, *settings, "gaussian", "", None, 0.5)
    assert first.rest_temperature is None  # another prior has no such noise, and the caption says so
    assert "The rest temperature" in refusal_of(generate.draw, asked, *settings, "own", "", None, 3)


def test_detail_is_only_for_models_with_a_code(models) -> None:
    assert "has no code" in refusal_of(generate.draw, models, NO_ENCODER, 1, 7, 1.0, "own", "", None, 0.5)
    assert generate.asked_scale(models, "rest_temperature", NO_ENCODER, 0.5) is None
    own = models[ENCODER].rest_temperature
    assert [generate.asked_scale(models, "rest_temperature", ENCODER, each) for each in (own, 0.1)] == [None, 0.1]


def test_rows_are_the_same_pictures_with_more_and_more_noise(models) -> None:
    pictures, how = generate.draw_rows(models, ENCODER, 7, "own")
    assert [each.temperature for each in how] == [0.25 * (1 + number // 8) for number in range(64)]
    assert [(each.seed, each.image) for each in how] == [(7, 1 + number % 8) for number in range(64)]
    assert is_nearly(pictures[8 * 3 + 2][0], generate.draw(models, ENCODER, 3, 7, 1.0, "own")[0][2][0])


def test_priors_that_a_model_has_not_are_refused(models) -> None:
    assert len({tuple(drawn(models, ENCODER, 1, 7, 1.0, prior)) for prior in models[ENCODER].priors}) > 1
    assert "must be one of: own, standard" in refusal_of(generate.draw, models, NO_ENCODER, 1, 7, 1.0, "flow")


def test_a_new_seed_is_drawn_only_if_wanted() -> None:
    assert generate.next_seed(7, False) == 7
    assert len({generate.next_seed(7, True) for _ in range(8)}) > 1


def linked(models, query: str) -> list:
    scope = {"type": "http", "query_string": query.encode(), "headers": [], "path": "/"}
    return generate.linked_view(models, gr.Request(request=Request(scope)))


def test_a_link_restores_the_view(models) -> None:
    model, count, seed, temperature, prior, guidance, strength, rest, detail, is_new = linked(
        models, f"model={ENCODER}&count=4&seed=9&temperature=0.5&prior=gaussian"
    )
    assert guidance is None and strength.value == models[ENCODER].guidance
    assert rest is None and detail.value == models[ENCODER].rest_temperature
    *_, guidance, strength, rest, detail, _ = linked(models, f"model={ENCODER}&guidance=4&rest_temperature=0.7")
    assert guidance == strength.value == 4 and rest == detail.value == 0.7
    *_, strength, _, detail, _ = linked(models, f"model={NO_ENCODER}")
    assert not strength.visible and not detail.visible
    assert (model, count, seed, temperature, prior.value, is_new) == (ENCODER, 4, 9, 0.5, "gaussian", False)
    assert linked(models, f"model={NO_ENCODER}&seed=3")[:4] == [NO_ENCODER, 16, 3, 1.0]
    assert all(isinstance(value, dict) and "value" not in value for value in linked(models, "utm_source=mail"))
    during = LocalContext.in_event_listener.set(True)  # where components are updates, and have no attributes
    try:
        assert len(linked(models, f"model={ENCODER}&guidance=4&rest_temperature=0.7")) == generate.NUM_LINKED
    finally:
        LocalContext.in_event_listener.reset(during)


@pytest.mark.parametrize("query", ["model=../secrets", "seed=-1", "seed=x", "count=1e9", "temperature=nan", "prior=x"])
def test_a_link_with_impossible_values_is_refused(models, query: str) -> None:
    assert "must be" in refusal_of(linked, models, query)


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
    sentence = refusal_of(generate.draw, models, ENCODER, count, seed, temperature, "own")
    assert f"is {named}; it must be" in sentence


def test_limits_themselves_are_allowed(models) -> None:
    assert len(drawn(models, ENCODER, 64, 2**32 - 1, 2.0, "own")) == 64
    assert len(drawn(models, ENCODER, 1, 0, 0, "own")) == 1


def test_unknown_models_are_refused_with_the_known_ones(models) -> None:
    assert ENCODER in refusal_of(generate.draw, models, "../secrets", 4, 0, 1.0, "own")
    assert "faces" in refusal_of(compare.compare_sharpness, comparable_models(models), "cats", 0)


@pytest.fixture
def groups(models):
    return by_data_set({name: model for name, model in models.items() if model.has_encoder})


def test_reconstruct_shows_every_family_what_it_sees_and_makes_of_it(groups, tmp_path: Path) -> None:
    upload = save(draw_picture(1, (90, 60)), tmp_path / "wide.png")
    *sliders, table = reconstruct.reconstruct(groups, upload, "faces", "centre")
    assert len(sliders) == len(groups["faces"]) == len(table) == 3
    for slider in sliders:
        seen, reconstructed = (Image.open(file["path"]) for file in slider.value)
        assert min(seen.size) >= LEAST_EDGE and seen.size == reconstructed.size
        assert seen.tobytes() != reconstructed.tobytes()
    assert list(table["model"]) == [model.name for model in groups["faces"]]
    assert all(0 < float(value) < 100 for value in table["PSNR, dB"])
    assert all(0 < float(value) < 4 for value in table["MSE"])


def seen_by(groups, upload: dict, cut: str = "centre") -> tuple[Image.Image, str]:
    seen, sentence = reconstruct.crop_face(groups, upload, "faces", cut)
    return seen.resize((28, 28), Image.Resampling.NEAREST), sentence


def test_exif_rotation_is_applied_and_transparency_is_white(groups, tmp_path: Path) -> None:
    upright = Image.new("RGB", (60, 60), "white")
    upright.paste("black", (0, 0, 60, 30))  # black above
    exif = Image.Exif()
    exif[274] = 6  # shown after a quarter turn clockwise
    turned = save(upright.transpose(Image.Transpose.ROTATE_90), tmp_path / "turned.jpg", exif=exif, quality=95)
    seen, _ = seen_by(groups, turned)
    assert max(seen.getpixel((14, 4))) < 30
    assert min(seen.getpixel((14, 23))) > 225
    clear = save(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), tmp_path / "clear.png")
    assert seen_by(groups, clear)[0].getpixel((14, 14)) == (255, 255, 255)


def test_what_is_cut_out_is_said(groups, tmp_path: Path) -> None:
    upload = save(Image.new("RGB", (80, 40), "teal"), tmp_path / "flat.png")
    assert seen_by(groups, upload, "face")[1] == "No face found; using the largest centered square."
    assert seen_by(groups, upload, "centre")[0].getpixel((14, 1)) == (0, 128, 128)
    whole, sentence = seen_by(groups, upload, "none")
    assert whole.getpixel((14, 1)) == (255, 255, 255) and "white square" in sentence
    assert "must be one of" in refusal_of(reconstruct.crop_face, groups, upload, "faces", "half")


def morphed(models, names, start=None, end=None, seeds=(0, 1), path="lerp", frames=5, speed=16, kind="webp") -> tuple:
    return morph.interpolate(models, names, start, end, *seeds, path, frames, speed, kind)


@pytest.mark.parametrize("kind", ["lerp", "slerp"])
def test_interpolate_runs_from_one_reconstruction_to_the_other(models, tmp_path: Path, monkeypatch, kind: str) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    start, end = (save(draw_picture(number), tmp_path / f"{number}.png") for number in (1, 2))
    strip, animation, _ = morphed(models, ENCODER, start, end, path=kind)
    assert len(strip) == 5
    for upload, (picture, _) in ((start, strip[0]), (end, strip[-1])):
        alone = models[ENCODER].pipeline.reconstruct(Image.open(upload["path"])).images[0]
        assert is_nearly(alone, picture)
    assert Path(animation).is_relative_to(tmp_path)  # where Gradio deletes
    assert Image.open(animation).n_frames == 8


def test_models_morph_side_by_side_also_one_without_an_encoder(models, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    start, end = (save(draw_picture(number), tmp_path / f"{number}.png") for number in (1, 2))
    strip, *_ = morphed(models, [ENCODER, NO_ENCODER], start, end, frames=4)
    assert all(picture.size == (2 * 28, 28) for picture, _ in strip)
    halves = [picture.crop((28, 0, 56, 28)).tobytes() for picture, _ in strip]
    assert len(set(halves)) == 4


def test_two_seeds_morph_into_one_another(models) -> None:
    strip, *_ = morphed(models, NO_ENCODER, seeds=(5, 9))
    for (picture, _), seed in zip((strip[0], strip[-1]), (5, 9), strict=True):
        assert is_nearly(picture, generate.draw(models, NO_ENCODER, 1, seed, 1.0, "own")[0][0][0])


@pytest.mark.parametrize("kind", ["webp", "gif", "mp4"])
def test_the_animation_is_written_as_it_was_asked_for(models, kind: str) -> None:
    _, shown, asked_for = morphed(models, NO_ENCODER, kind=kind, frames=6)
    assert Image.open(shown).format == "WEBP"
    assert Path(asked_for).suffix == f".{kind}"
    assert Path(asked_for).stat().st_size > 100


@pytest.mark.parametrize(
    "settings",
    [
        {"frames": 3},
        {"frames": 61},
        {"path": "teleport"},
        {"speed": 0},
        {"kind": "exe"},
        {"seeds": (-1, 0)},
        {"seeds": (0, "x")},
    ],
)
def test_interpolate_refuses_before_it_works(models, settings: dict) -> None:
    assert "must be" in refusal_of(lambda: morphed(models, ENCODER, **settings))


def test_a_path_that_a_model_has_not_and_no_models_are_refused(models) -> None:
    assert "no flow prior" in refusal_of(lambda: morphed(models, NO_ENCODER, path="flow"))
    assert "Choose 1 to 4" in refusal_of(lambda: morphed(models, []))


def test_a_missing_picture_is_asked_for(models, groups, tmp_path: Path) -> None:
    assert "upload an image first" in refusal_of(reconstruct.reconstruct, groups, None, "faces", "face")
    upload = save(draw_picture(1), tmp_path / "one.png")
    assert "second image" in refusal_of(lambda: morphed(models, ENCODER, upload))
    assert "first image" in refusal_of(lambda: morphed(models, ENCODER, None, upload))


def test_compare_puts_real_pictures_beside_every_family(models, folders: dict[str, Path]) -> None:
    grids, sharpness, energy, curves, sentence, table = compare.compare_sharpness(
        comparable_models(models), "faces", 3
    )
    assert [caption for _, caption in grids] == list(models) == list(table["model"])
    assert all(grid.size == (4 * 28, 4 * 28) for grid, _ in grids)
    published = json.loads((folders[ENCODER] / "metrics.json").read_text())
    for frame, key in ((sharpness, "laplacian_variance_real"), (energy, "high_frequency_energy_real")):
        values = dict(zip(frame.iloc[:, 0], frame.iloc[:, 1], strict=True))
        assert values.pop("real faces, 28 px") == published[key]
        assert set(values) == set(models)
        assert min(values.values()) > 0
    real = curves[curves.images == "real faces, 28 px"].iloc[:, 1]
    assert [10**power for power in real] == pytest.approx([published[f"spectrum_band_{k}_real"] for k in range(1, 9)])
    assert set(curves.images) == {*models, "real faces, 28 px"}
    assert all(name in sentence for name in models)
    assert "Sharper is not better: noise and checkerboards count as sharpness." in sentence


def test_compare_measures_what_models_make_of_an_upload(models, tmp_path: Path) -> None:
    upload = save(draw_picture(1), tmp_path / "one.png")
    shown, *_, sentence = compare.compare_upload(comparable_models(models), upload, "faces")
    assert [caption for _, caption in shown] == ["input", *(n for n in models if n != NO_ENCODER)]
    assert NO_ENCODER not in sentence and ENCODER in sentence


RESIDUAL = {"image_size": 32, "latent_size": 4, "latent_dim": 64, "detail_dim": 64}  # of a grid of 16 cells


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory):
    """A model that has residual latents, and one that has none, as they are published."""
    root = tmp_path_factory.mktemp("residual")
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, changes in {"cats-vaegan": {}, "cats-vae": {"detail_dim": 0}}.items():
        model = tiny_model(name.split("-")[1], **RESIDUAL | changes)
        if model.detail is not None:
            values = torch.randn(192, 192, generator=torch.Generator().manual_seed(0))
            model.detail.fit(values @ values.T)
        model.save_pretrained(root / name)
        save_metrics(evaluate(model, images), root / name)
    return open_models({name: root / name for name in ("cats-vaegan", "cats-vae")}).models


def test_errors_of_a_reconstruction_stand_beside_those_without_residual_latents(residual, tmp_path: Path) -> None:
    upload = save(draw_picture(1), tmp_path / "one.png")
    *sliders, table = reconstruct.reconstruct(by_data_set(residual), upload, "cats", "centre")
    names = ["cats-vaegan", "cats-vaegan, without residual latents", "cats-vae"]
    assert list(table["model"]) == names
    assert [slider.label for slider in sliders] == [f"{name}: input | reconstruction" for name in names]
    assert list(table["latents / values"]) == ["128 / 3072", "64 / 3072", "64 / 3072"]
    pipeline = residual["cats-vaegan"].pipeline
    seen = pipeline.to_images([Image.open(upload["path"])])
    alone = pipeline.model(seen).sample.detach().clamp(-1, 1)  # the networks without residual latents
    assert float(table["MSE"][1]) == pytest.approx(mse(alone, seen).item(), rel=1e-3)
    assert float(table["MSE"][0]) == pytest.approx(mse(pipeline.model.reconstruct(seen), seen).item(), rel=1e-3)
    assert float(table["MSE"][0]) < float(table["MSE"][1])
    alone_as_shown = enlarge(to_pictures(alone)[0])
    assert is_nearly(sliders[1].constructor_args["value"][1], alone_as_shown)


def test_an_upload_is_compared_without_residual_latents_too(residual, tmp_path: Path) -> None:
    upload = save(draw_picture(1), tmp_path / "one.png")
    shown, sharpness, *_, sentence = compare.compare_upload(comparable_models(residual), upload, "cats")
    names = ["cats-vaegan", "cats-vaegan, without residual latents", "cats-vae"]
    assert [caption for _, caption in shown] == ["input", *names]
    assert list(sharpness["images"])[1:] == names and all(re.search(rf"{name} \d+\.\d\d", sentence) for name in names)
    assert shown[1][0].tobytes() != shown[2][0].tobytes()


def published_table(residual, measures: dict) -> pd.DataFrame:
    for model in residual.values():
        known = {name: value for name, value in model.metrics.items() if not name.startswith(("frechet", "recall"))}
        model.__dict__["metrics"] = known | {"reconstruction_mse": 0.0019} | measures.get(model.name, {})
    return compare._published(list(residual.values()))


def test_the_published_error_stands_beside_that_without_residual_latents(residual) -> None:
    table = published_table(residual, {"cats-vaegan": {"reconstruction_mse_without_details": 0.0123}})
    assert list(table["MSE"]) == ["0.0019", "0.0019"]
    assert list(table["MSE without residual latents"]) == ["0.0123", "0.0019"]
    table = published_table(residual, {"cats-vaegan": {"reconstruction_mse_without_details": None}})
    assert list(table["MSE without residual latents"]) == ["-", "0.0019"]  # not measured, and nothing to leave out


def test_distances_are_labelled_with_the_network_whose_features_they_are_in(residual) -> None:
    measures = {
        name: {
            "sample_prior": prior,
            f"frechet_simclr_prior_{prior}": distance,
            "frechet_simclr_training_images": 0.1,
            f"frechet_other_net_prior_{prior}": 5.1,
            "frechet_other_net_prior_unused": 9.9,
            f"recall_other_net_prior_{prior}": 0.5,
        }
        for name, prior, distance in (("cats-vaegan", "flow", 1.1), ("cats-vae", "mixture", 1.9))
    }
    del measures["cats-vae"]["frechet_simclr_prior_mixture"]
    table = published_table(residual, measures)
    distances = {column: list(table[column]) for column in table.columns if "(" in column}
    assert distances == {
        "Frechet distance (simclr)": ["1.1", "-"],
        "recall (simclr)": ["-", "-"],
        "Frechet distance (other_net)": ["5.1", "5.1"],
        "recall (other_net)": ["0.5", "0.5"],
    }


def moved(models, model: str = ENCODER, seed: int = 7, picture: dict | None = None, **shifts) -> bytes:
    return edit.latent_pca(models, model, seed, 1.0, "own", picture, **shifts).tobytes()


def test_sliders_move_a_sample_and_nought_leaves_it(models) -> None:
    assert moved(models) == drawn(models, ENCODER, 1, 7, 1.0, "own")[0]
    assert len({moved(models), moved(models, component_1=3.0), moved(models, component_2=3.0)}) == 3
    assert "Component 3 is 4; it must be" in refusal_of(lambda: moved(models, component_3=4))


def test_sliders_move_an_upload_where_there_is_an_encoder(models, tmp_path: Path) -> None:
    upload = save(draw_picture(1), tmp_path / "one.png")
    assert moved(models, picture=upload) == models[ENCODER].pipeline.reconstruct(draw_picture(1)).images[0].tobytes()
    assert "no encoder" in refusal_of(lambda: moved(models, NO_ENCODER, picture=upload))


def test_sliders_see_the_same_crop_of_an_upload_as_the_other_tabs(models, tmp_path: Path, monkeypatch) -> None:
    face = draw_picture(2)
    monkeypatch.setattr(edit, "crop_to_face", lambda picture, data_set: face if data_set == "faces" else None)
    upload = save(draw_picture(1, (90, 60)), tmp_path / "one.png")
    assert moved(models, picture=upload) == models[ENCODER].pipeline.reconstruct(face).images[0].tobytes()


def test_a_sweep_has_a_row_for_every_component(folders, tmp_path: Path) -> None:
    model = tiny_model("vae", latent_dim=16)
    model.save_pretrained(tmp_path / "faces-vae")
    shutil.copy(folders[ENCODER] / "metrics.json", tmp_path / "faces-vae")
    strips = edit.pca_sweep(open_models({"vae": tmp_path / "faces-vae"}).models, "vae", 7, 1.0, "own", None)
    assert len(strips) == 10 * 7
    middle = {picture.tobytes() for picture, caption in strips if "+0 " in caption}
    assert len(middle) == 1 and len({picture.tobytes() for picture, _ in strips}) == 10 * 6 + 1


@pytest.fixture(scope="module")
def labelled(folders, tmp_path_factory: pytest.TempPathFactory):
    """A model without a code with two directions that labels lie along, and one without directions."""
    root = tmp_path_factory.mktemp("labelled")
    for name in ("faces-vae", "plain-vae"):
        tiny_model("vae", latent_dim=16, prior="gaussian").save_pretrained(root / name)
        shutil.copy(folders[ENCODER] / "metrics.json", root / name)
    vectors = 5 * torch.eye(16)[:2]
    found = [
        Direction("tone", "dark", "bright", 0.875, 40, vectors[0]),
        Direction("age", "a", "b", 0.5, 40, vectors[1]),
    ]
    write_directions(root / "faces-vae", found)
    return open_models({name: root / name for name in ("faces-vae", "plain-vae")}).models


def test_labels_have_sliders_that_move_along_their_directions(labelled) -> None:
    still, first, second = (
        moved(labelled, "faces-vae"),
        *(moved(labelled, "faces-vae", **{f"label_{each}": 2.0}) for each in (1, 2)),
    )
    assert len({still, first, second}) == 3
    pipeline = labelled["faces-vae"].pipeline
    latents = pipeline.sample(1, 7, 1.0).latents + 2 * 5 * torch.eye(16)[:1]
    assert first == pipeline.decode(latents).images[0].tobytes()
    message = refusal_of(lambda: moved(labelled, "faces-vae", label_3=1.0))
    assert message == "The model faces-vae has 2 labelled directions; leave the others at 0."
    assert "Label 1 is nan; it must be" in refusal_of(lambda: moved(labelled, "faces-vae", label_1=float("nan")))


def test_sliders_of_labels_are_shown_with_their_held_out_accuracy_where_there_are_some(labelled) -> None:
    _, sliders, _, meaning, *_ = edit.start_edit(labelled, "faces-vae", 7, 1.0, "own", None, "", 1, None)
    shown = [(each["title"], each["low"], each["high"]) for each in sliders["handles"] if each["group"] == edit.LABELS]
    assert shown == [("Tone, probe 88%", "dark", "bright"), ("Age, probe 50%", "a", "b")]
    assert "40 held-out images" in meaning
    _, sliders, _, meaning, *_ = edit.start_edit(labelled, "plain-vae", 7, 1.0, "own", None, "", 1, None)
    assert not any(each["group"] == edit.LABELS for each in sliders["handles"]) and "probe" not in meaning


def test_a_sweep_has_a_row_for_every_label_too(labelled) -> None:
    strips = edit.pca_sweep(labelled, "faces-vae", 7, 1.0, "own", None)
    assert len(strips) == 12 * 7
    assert strips[-1][1] == "a to b: +3 standard deviations"
    assert strips[10 * 7][1] == "dark to bright: -3 standard deviations"
    assert strips[-1][0].tobytes() == moved(labelled, "faces-vae", label_2=3.0)


@pytest.fixture(scope="module")
def asked(folders, tmp_path_factory: pytest.TempPathFactory):
    """A model with a code, two directions of it, and two labels to sample by; and one without labels."""
    root = tmp_path_factory.mktemp("asked")
    for name in ("faces-vae", "plain-vae"):
        tiny_model("vae", code_dim=12).save_pretrained(root / name)
        shutil.copy(folders[ENCODER] / "metrics.json", root / name)
    codes = torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    columns = {
        "tone": ["dark, or nearly", "bright"] * 30,
        "age": list(range(60)),
    }
    codes[:, 0] += torch.tensor([-2.0, 2.0]).repeat(30)
    codes[:, 1] += torch.arange(60) / 15
    vectors = 3 * torch.eye(12)[:2]
    found = [
        Direction("tone", "dark", "bright", 0.875, 40, vectors[0]),
        Direction("age", "a", "b", 0.5, 40, vectors[1]),
    ]
    write_directions(root / "faces-vae", found, LabelledCodes.fit(codes, columns))
    return open_models({name: root / name for name in ("faces-vae", "plain-vae")}).models


def test_samples_are_drawn_with_the_labels_that_are_asked_for(asked) -> None:
    pictures, how = generate.draw(asked, "faces-vae", 2, 7, 1.0, "own", "age=50, tone=bright")
    assert how == [("faces-vae", 7, image, 1.0, "code", "age=50,tone=bright", None, None) for image in (1, 2)]
    assert pictures[0][1] == "faces-vae, seed 7, image 1, temperature 1, age=50,tone=bright"
    wanted = asked["faces-vae"].pipeline.sample(2, 7, labels={"age": 50, "tone": "bright"}).images
    assert [picture.tobytes() for picture, _ in pictures] == [picture.tobytes() for picture in wanted]
    assert drawn(asked, "faces-vae", 1, 7, 1.0, "own") != drawn(asked, "faces-vae", 1, 7, 1.0, "own", "age=50")
    rows, how = generate.draw_rows(asked, "faces-vae", 7, "own", "age=50")
    assert {each.labels for each in how} == {"age=50"}
    assert is_nearly(rows[8 * 3][0], generate.draw(asked, "faces-vae", 1, 7, 1.0, "own", "age=50")[0][0][0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("age=99", "The label 'age' is '99'; it must be a number from 0 to 59."),
        ("tone=grey", "The label 'tone' is 'grey'; it must be one of: bright, dark, or nearly."),
        ("size=1", "The name of a label is 'size'; it must be one of: tone, age."),
        ("age=1, age=2", "The labels are 'age=1, age=2'; write them as in age=60, gender=female."),
        ("age", "The labels are 'age'; write them as in age=60, gender=female."),
        ('"age=1', "The labels are '\"age=1'; write them as in age=60, gender=female."),
        (7, "The labels are 7; write them as in age=60, gender=female."),
        (["age=1"], "The labels are ['age=1']; write them as in age=60, gender=female."),
    ],
)
def test_labels_that_cannot_be_asked_for_are_refused(asked, labels, message: str) -> None:
    assert refusal_of(generate.draw, asked, "faces-vae", 1, 7, 1.0, "own", labels) == message


def test_labels_are_refused_where_nothing_draws_by_them(asked) -> None:
    message = refusal_of(generate.draw, asked, "plain-vae", 1, 7, 1.0, "own", "age=50")
    assert message == "The model plain-vae has no labels to sample by; leave them empty."
    message = refusal_of(generate.draw, asked, "faces-vae", 1, 7, 1.0, "gaussian", "age=50")
    assert message == "Samples with labels need the prior code; the prior gaussian has no code."


def test_fields_for_labels_are_those_of_the_model(asked) -> None:
    text, *fields = generate.label_fields(asked, "faces-vae", {"age": "50", "tone": "dark, or nearly"})
    words, numbers = fields[: generate.NUM_LABELS], fields[generate.NUM_LABELS :]
    assert [field.visible for field in words] == [True, False, False, False]
    assert [field.visible for field in numbers] == [False, True, False, False]
    assert words[0].value == "dark, or nearly" and numbers[1].value == 50
    assert "a number from 0 to 59" in numbers[1].info
    wanted = generate.asked_for(asked, "faces-vae", *(field.value for field in fields))
    assert wanted == '"tone=dark, or nearly",age=50'
    assert checks.labels(asked["faces-vae"], '"tone=dark, or nearly",age=50', "code") == {
        "tone": "dark, or nearly",
        "age": "50",
    }
    nothing, *fields = generate.label_fields(asked, "plain-vae")
    assert nothing == "" and not any(field.visible for field in fields)
    assert generate.asked_for(asked, "plain-vae", *(field.value for field in fields)) == ""


def test_a_link_restores_the_labels(asked) -> None:
    def labels(query: str) -> list:
        scope = {"type": "http", "query_string": query.encode(), "headers": [], "path": "/"}
        return generate.linked_labels(asked, gr.Request(request=Request(scope)))

    text, *fields = labels("model=faces-vae&labels=age%3D50")
    assert text == "age=50" and fields[generate.NUM_LABELS + 1].value == 50
    assert "must be" in refusal_of(labels, "model=faces-vae&labels=age%3D500")
    assert len(labels("utm_source=mail")) == 9


def test_a_sample_with_labels_is_where_sliders_start(asked) -> None:
    plain, labelled = moved(asked, "faces-vae"), moved(asked, "faces-vae", labels="age=50")
    assert labelled == drawn(asked, "faces-vae", 1, 7, 1.0, "own", "age=50")[0] != plain
    prior, text, *fields = edit.start_fields(asked, "faces-vae", "age=50")
    age = fields[generate.NUM_LABELS + 1]
    assert (prior.value, text, age.value, age.visible) == ("own", "age=50", 50, True)
    assert not any(field.visible for field in edit.start_fields(asked, "plain-vae")[2:])


def test_labels_of_a_sample_are_beside_the_sliders_and_a_photo_has_sliders_for_them(asked, tmp_path) -> None:
    upload = save(draw_picture(1), tmp_path / "one.png")

    def shown(model: str, picture: dict | None) -> tuple:
        *_, note, fields = edit.start_edit(asked, model, 7, 1.0, "own", picture, "", 1, None)
        return note.value if note.visible else None, fields.visible

    assert shown("faces-vae", None) == ("**Generate a sample with these labels**", True)
    assert shown("faces-vae", upload) == (edit.BY_LABEL, False)
    assert shown("plain-vae", None) == shown("plain-vae", upload) == (None, False)
    fields = [field.value for field in generate.label_fields(asked, "faces-vae", {"age": "50"})[1:]]
    drawn = [edit.another_seed(asked, "faces-vae", *fields) for _ in range(4)]
    assert {(text, image) for text, _, image in drawn} == {("age=50", 1)} and len({seed for _, seed, _ in drawn}) > 1


def test_sliders_of_components_and_labels_move_a_code_once(asked, monkeypatch) -> None:
    pipeline = asked["faces-vae"].pipeline
    start = pipeline.sample(1, 7, 1.0).latents
    shifts = torch.zeros(1, 12)
    shifts[0, :2] = torch.tensor([1.0 + 2 * 3, 0.5 * 3])
    calls, move = [], pipeline.model.latent_prior.move
    monkeypatch.setattr(pipeline.model.latent_prior, "move", lambda *a: calls.append(a) or move(*a))
    shown = moved(asked, "faces-vae", component_1=1.0, label_1=2.0, label_2=0.5)
    assert len(calls) == 1
    assert shown == pipeline.decode(move(start, shifts)).images[0].tobytes()
    strips = edit.pca_sweep(asked, "faces-vae", 7, 1.0, "own", None)
    assert len(calls) == 2 and len(strips) == 12 * 7
    assert strips[-1][1] == "a to b: +3 steps" and "+1 is the step" in edit.meaning_of(asked["faces-vae"])
    assert is_nearly(strips[-1][0], pipeline.decode(pipeline.shift(start, 9 * torch.eye(12)[1:2])).images[0])


def test_a_damaged_part_for_labels_leaves_a_model_out(asked, tmp_path: Path) -> None:
    shutil.copytree(asked["faces-vae"].folder, tmp_path / "broken-vae")
    path = tmp_path / "broken-vae" / "directions.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path) | {"codes.mean": torch.full((16,), torch.nan)}, path, metadata)
    opened = open_models({"faces-vae": asked["faces-vae"].folder, "broken-vae": tmp_path / "broken-vae"})
    assert list(opened.models) == ["faces-vae"] and "not finite" in opened.broken["broken-vae"]


def test_a_click_on_a_sample_leads_to_the_sliders(models) -> None:
    pictures, how = generate.draw(models, ENCODER, 3, 7, 0.5, "gaussian")
    event = gr.SelectData(None, {"index": 2, "value": None})
    model, seed, temperature, prior, picture, image, guidance, rest, tabs = edit.clicked(models, how, event)
    assert (model, seed, temperature, prior.value, picture, image) == (ENCODER, 7, 0.5, "gaussian", None, 3)
    assert guidance is None and rest is None
    assert tabs.selected == "edit"
    start = edit.latent_pca(models, model, seed, temperature, prior.value, None, image=image)
    assert is_nearly(start, pictures[2][0])


def test_the_command_is_one_that_can_be_pasted() -> None:
    command = train_your_own.training_command("vaegan", "my cats; rm -rf ~", "128", 500, 2)
    launch = shlex.split(command.splitlines()[0].rstrip("\\") + command.splitlines()[1])
    assert launch[:5] == ["accelerate", "launch", "--num_processes", "2", "train_accelerate.py"]
    assert launch[launch.index("--train_data_dir") + 1] == "my cats; rm -rf ~"
    assert train_accelerate.parse_arguments(launch[5:]).train.max_train_steps == 500
    assert command.splitlines()[2] == "HF_VAE_MODELS='runs/my cats; rm -rf ~-vaegan' python space/app.py"
    assert "must be one of" in refusal_of(train_your_own.training_command, "gpt", "cats", "64", 500, 1)


def test_about_shows_the_card_without_its_metadata(models, tmp_path: Path) -> None:
    folder = tmp_path / "faces-vae"
    shutil.copytree(models[ENCODER].folder, folder)
    (folder / "README.md").write_text(
        "---\ntags: [vae]\n---\n\n# faces-vae\n\n![samples](samples.png)\n\n![more](../../etc.png)\n\n"
        "True words, [here](timelapse.webp) and [there](https://huggingface.co).\n"
    )
    (folder / "samples.png").unlink(missing_ok=True)
    opened = open_models({"faces-vae": folder}).models
    words = "True words, here and [there](https://huggingface.co)."
    assert about.card_of(opened, "faces-vae") == words  # without images that are not there
    draw_picture(1).save(folder / "samples.png")
    image, text = about.card_of(opened, "faces-vae").split("\n\n")
    assert image.startswith("![samples](data:image/webp;base64,") and text == words
    assert "no model card" in about.card_of(models, ENCODER)


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
        ("text", "not a JPEG, PNG"),
        ("empty", "not a JPEG, PNG"),
        ("tiff", "not a JPEG, PNG"),
        ("truncated", "damaged"),
        ("bomb", "50 megapixels"),
        ("bomb just above the limit", "50 megapixels"),
    ],
)
def test_other_files_are_refused_with_a_sentence(groups, tmp_path: Path, kind: str, reason: str) -> None:
    path = refused_file(kind, tmp_path)
    sentence = refusal_of(reconstruct.reconstruct, groups, {"path": str(path)}, "faces", "centre")
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


def test_the_api_does_not_promise_to_fetch_addresses(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"].values()
    files = [each for endpoint in endpoints for each in endpoint["parameters"] if each["component"] == "Image"]
    assert len(files) == 8
    for file in files:
        assert file["python_type"]["description"] == file["type"]["additional_description"]
        assert "URLs are not fetched: download the image and upload the file." in file["python_type"]["description"]
        assert "publicly available" not in json.dumps(file).lower() and "http" not in json.dumps(file)
    assert "publicly available" not in httpx.get(f"{client.src}gradio_api/openapi.json").text.lower()


def test_who_sends_an_address_is_told_to_send_the_file(client: Client) -> None:
    said = "Your image was not uploaded. URLs are not fetched: download the image and upload the file."
    with pytest.raises(AppError) as refused:
        client.predict(
            picture=handle_file("https://example.com/cat.jpg"), data_set="faces", cut="face", api_name="/reconstruct"
        )
    assert str(refused.value) == said
    endpoint = f"{client.src}gradio_api/call/reconstruct"
    for address in ("HTTP://example.com/", "data:image/png;base64,AA", "s3://bucket/cat.jpg"):
        file = {"path": address, "meta": {"_type": "gradio.FileData"}}
        started = httpx.post(endpoint, json={"data": [file, "faces", "face"]}).json()
        assert said in httpx.get(f"{endpoint}/{started['event_id']}").text


def upload_of(client: Client, tmp_path: Path) -> dict:
    draw_picture(1).save(tmp_path / "one.png")
    return handle_file(tmp_path / "one.png")


@pytest.mark.parametrize("error", [ValueError, OSError, RuntimeError, KeyError, MemoryError])
def test_no_failure_reaches_a_caller_as_a_bare_word_or_with_a_path(
    client: Client, tmp_path, monkeypatch, error
) -> None:
    def fail(*_: object) -> None:
        raise error(f"{tmp_path} is broken")

    for work in ("decode", "prepare"):
        monkeypatch.setattr(ImagePipeline, work, fail)
    picture = upload_of(client, tmp_path)
    drawing = {"model": ENCODER, "seed": 0, "temperature": 1.0, "prior": "own"}
    ends = {"start": picture, "end": picture, "start_seed": 0, "end_seed": 0}
    calls = {
        "/sample": drawing | {"count": 1},
        "/sample_rows": {"model": ENCODER, "seed": 0, "prior": "own"},
        "/crop_face": {"picture": picture, "data_set": "faces", "cut": "centre"},
        "/reconstruct": {"picture": picture, "data_set": "faces", "cut": "centre"},
        "/interpolate": ends | {"models": [ENCODER], "path": "lerp", "frames": 4, "speed": 16, "file_format": "gif"},
        "/compare_sharpness": {"data_set": "faces", "seed": 0},
        "/compare_reconstructions": {"picture": picture, "data_set": "faces"},
        "/latent_pca": drawing | {"picture": picture},
        "/edit": drawing | {"picture": picture, "sliders": "component 1=2"},
        "/pca_sweep": drawing | {"picture": picture},
    }
    assert set(calls) == ENDPOINTS
    for endpoint, values in calls.items():
        with pytest.raises(AppError) as refused:
            client.predict(**values, api_name=endpoint)
        assert str(refused.value) == FAILED


def test_events_of_the_page_fail_in_a_sentence_too(client: Client, monkeypatch, tmp_path) -> None:
    def fail(*_: object) -> None:
        raise OSError(f"{tmp_path} is full")

    monkeypatch.setattr(train_your_own, "collect_pictures", fail)
    events = httpx.get(f"{client.src}config").json()["dependencies"]
    asked = {"train": [[upload_of(client, tmp_path)], "vae", 32, 1, 0, None], "pick": []}
    for name, values in asked.items():
        (number,) = [event["id"] for event in events if event["api_name"] == name]
        for file in values[0] if name == "train" else ():
            file["path"] = str(tmp_path / "one.png")
        body = {"data": values, "fn_index": number, "session_hash": name}
        assert httpx.post(f"{client.src}gradio_api/queue/join", json=body).status_code == 200
        with httpx.stream("GET", f"{client.src}gradio_api/queue/data?session_hash={name}", timeout=60) as lines:
            message = next(line for line in lines.iter_lines() if "process_completed" in line)
        said = json.loads(message.removeprefix("data: "))["output"]["error"]
        assert re.fullmatch(r"[A-Z][^\n]+\.", said) and str(tmp_path) not in said
        assert name != "train" or said == FAILED


def test_a_model_that_is_damaged_later_is_one_sentence_for_a_caller(damaged_later, tmp_path) -> None:
    places = {name: model.folder for name, model in damaged_later.items()}
    weights = (tmp_path / "broken-vae" / WEIGHTS).read_bytes()
    shutil.copy(places[NO_ENCODER].parent / ENCODER / WEIGHTS, tmp_path / "broken-vae" / WEIGHTS)
    demo = app.build_demo(places)
    rewrite(tmp_path / "broken-vae" / WEIGHTS, weights)
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH_OPTIONS)
    try:
        caller = Client(address, verbose=False)
        settings = {"count": 1, "seed": 0, "temperature": 1.0, "prior": "own", "api_name": "/sample"}
        with pytest.raises(AppError) as refused:
            caller.predict(model="broken-vae", **settings)
        assert str(refused.value) == "broken-vae cannot be loaded; choose another model."
        assert len(caller.predict(model=NO_ENCODER, **settings)) == 1
    finally:
        demo.close(verbose=False)


def test_the_api_is_what_the_readme_documents(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    readme = (Path(app.__file__).parent / "README.md").read_text()
    documented = set(re.findall(r"^\| `(/\w+)`", readme, flags=re.MULTILINE))
    assert set(endpoints) == documented == ENDPOINTS
    for name, endpoint in endpoints.items():
        parameters = [parameter["parameter_name"] for parameter in endpoint["parameters"]]
        assert f"| `{name}` | {', '.join(f'`{parameter}`' for parameter in parameters)} |" in readme


def test_a_language_model_gets_a_description_of_every_endpoint_and_parameter(folders: dict[str, Path]) -> None:
    """As Gradio's MCP server reads them."""
    found = {}
    for each in app.build_demo(folders).fns.values():
        if each.api_visibility == "public":
            description, parameters, _ = gradio.utils.get_function_description(each.fn)
            assert each.fn.__name__ == each.api_name, "the name of the tool"
            assert each.api_description is None, "it would hide what is in the docstring"
            parameters.pop("progress", None)
            assert re.fullmatch(r"[A-Z].{40,}\.", description) and "Args" not in description
            assert len(parameters) == len(each.inputs)
            assert all(re.match("[A-Z0-9]", text) and text[-1] != "." for text in parameters.values()), parameters
            found[f"/{each.api_name}"] = description
    assert found.keys() == ENDPOINTS and len(set(found.values())) == len(ENDPOINTS)


def test_the_api_gives_png_pictures_and_an_animation(client: Client, tmp_path: Path) -> None:
    pictures = client.predict(model=ENCODER, count=2, seed=7, temperature=1.0, prior="own", api_name="/sample")
    assert [Image.open(picture["image"]).format for picture in pictures] == ["PNG", "PNG"]
    assert Image.open(pictures[0]["image"]).size == (28, 28)
    for number in (1, 2):
        draw_picture(number, (80, 60)).save(tmp_path / f"{number}.jpg")
    start, end = (handle_file(tmp_path / f"{number}.jpg") for number in (1, 2))
    *sliders, table = client.predict(picture=start, data_set="faces", cut="face", api_name="/reconstruct")
    assert all(Image.open(file).format == "PNG" for slider in sliders for file in slider["value"])
    assert len(table["data"]) == len(sliders)
    strip, animation, file = client.predict(
        models=[ENCODER],
        start=start,
        end=end,
        start_seed=0,
        end_seed=0,
        path="lerp",
        frames=4,
        speed=16,
        file_format="gif",
        api_name="/interpolate",
    )
    assert len(strip) == 4
    assert Image.open(animation).n_frames == Image.open(file).n_frames == 6
    grids, *_, sentence, _ = client.predict(data_set="faces", seed=0, api_name="/compare_sharpness")
    assert len(grids) == len(FAMILIES)
    assert "Sharper is not better" in sentence
    moved = client.predict(
        model=ENCODER, seed=7, temperature=1.0, prior="own", picture=None, component_1=2.0, api_name="/latent_pca"
    )
    assert Image.open(moved).tobytes() != Image.open(pictures[0]["image"]).tobytes()


def test_refusals_reach_the_caller_and_tell_no_path(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"number of images is 1000; it must be a whole number from 1 to 64"):
        client.predict(model=ENCODER, count=1000, seed=0, temperature=1.0, prior="own", api_name="/sample")
    fake = tmp_path / "fake.png"
    fake.write_bytes(b"no picture")
    with pytest.raises(AppError, match="not a JPEG, PNG") as refused:
        client.predict(picture=handle_file(fake), data_set="faces", cut="face", api_name="/reconstruct")
    assert "/" not in str(refused.value)


def test_files_of_the_server_are_not_read(client: Client, groups, tmp_path: Path) -> None:
    inside = str(Path(app.__file__))
    (tmp_path / "link.png").symlink_to(inside)
    for path in (inside, str(tmp_path / "link.png")):
        assert "not uploaded" in refusal_of(reconstruct.reconstruct, groups, {"path": path}, "faces", "face")
    endpoint = f"{client.src}gradio_api/call/reconstruct"
    for file in ({"path": inside, "meta": {"_type": "gradio.FileData"}}, {"path": inside}):
        started = httpx.post(endpoint, json={"data": [file, "faces", "face"]}).json()
        answer = httpx.get(f"{endpoint}/{started['event_id']}").text
        assert answer.startswith("event: error")
        assert inside not in answer


SHARED = """
import concurrent.futures, sys, torch

sys.path.insert(0, "space")
import app

before = torch.get_num_threads()
app.share_cores()
with concurrent.futures.ThreadPoolExecutor(1) as pool:  # Gradio computes in such threads
    print("threads", before, pool.submit(torch.get_num_threads).result())
"""


@pytest.mark.parametrize("wanted", [None, "2"])
def test_a_call_leaves_cores_to_others_unless_the_owner_says_otherwise(wanted):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": str(REPOSITORY)} | ({"OMP_NUM_THREADS": wanted} if wanted else {})
    command = [sys.executable, "-c", SHARED]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    before, after = map(int, done.stdout.splitlines()[-1].split()[1:])
    assert after == (before if wanted else max(1, before // 2)), done.stderr[-3000:]
