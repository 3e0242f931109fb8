"""The commands that people type."""

import json
import sys

import pytest
from conftest import draw_picture
from PIL import Image

import train_accelerate
from hf_vae import FAMILIES, cli


@pytest.fixture
def hf_vae(monkeypatch, capsys):
    """Runs `hf-vae` with arguments and returns what it printed."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hf-vae", *arguments])
        cli.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def train(monkeypatch, capsys):
    """Runs `train_accelerate.py` with arguments and returns what it printed."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train_accelerate.py", *arguments])
        train_accelerate.main()
        return capsys.readouterr().out

    return run


def test_sample_writes_a_grid_and_overwrites_only_when_told(family, hf_vae, published_models, tmp_path):
    arguments = ["sample", str(published_models / f"faces-{family}"), "--num", "6", "--columns", "3"]
    arguments += ["--output", str(tmp_path / "grid.png")]
    hf_vae(*arguments, "--seed", "1")
    first = (tmp_path / "grid.png").read_bytes()
    assert Image.open(tmp_path / "grid.png").size == (3 * 28, 2 * 28)
    with pytest.raises(SystemExit, match="exists"):
        hf_vae(*arguments, "--seed", "2")
    assert (tmp_path / "grid.png").read_bytes() == first
    hf_vae(*arguments, "--seed", "2", "--overwrite")
    assert (tmp_path / "grid.png").read_bytes() != first


def test_reconstruct_and_interpolate(family, hf_vae, published_models, tmp_path):
    model = str(published_models / f"faces-{family}")
    paths = [str(tmp_path / name) for name in ("a.png", "b.jpg")]
    for number, path in enumerate(paths):
        draw_picture(number, (60, 40)).save(path)
    commands = [
        (["reconstruct", model, *paths, "--output", str(tmp_path / "rec.png")], "rec.png", (56, 56)),
        (
            ["interpolate", model, *paths, "--frames", "5", "--output", str(tmp_path / "path.png")],
            "path.png",
            (140, 28),
        ),
    ]
    for arguments, name, size in commands:
        if FAMILIES[family].model.has_encoder:
            hf_vae(*arguments)
            assert Image.open(tmp_path / name).size == size
        else:
            with pytest.raises(SystemExit, match="has no encoder"):
                hf_vae(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "nobody/nothing"], "neither a model folder here nor"),
        (["reconstruct", "{model}", "missing.png"], "missing.png is no file"),
        (["sample", "{model}", "--num", "0"], "0 samples"),
        (["reconstruct", "{model}", "notes.txt"], "notes.txt is no picture"),
        (["card", "{model}"], "has no train_config.json"),
        (["push", "{model}", "--repo_id", "me/x"], "has no README.md"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(arguments, message, hf_vae, published_models, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    model = str(published_models / "faces-vae")
    with pytest.raises(SystemExit, match=message) as exit_with:
        hf_vae(*[argument.format(model=model) for argument in arguments])
    assert isinstance(exit_with.value.code, str)  # Python prints it and exits with 1
    assert "Traceback" not in exit_with.value.code


def test_env_names_the_versions(hf_vae):
    printed = hf_vae("env")
    assert "hf_vae 0." in printed and "torch 2." in printed


def test_dry_run_prints_and_writes_nothing(family, train, tmp_path):
    printed = train(family, "--train_data_dir", str(tmp_path), "--output_dir", str(tmp_path / "run"), "--dry_run")
    assert '"image_size": 64' in printed and "model.decoder.head" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (None, "is no file"),
        ({"family": "diffusion"}, "family 'diffusion'"),
        ({"family": "vae", "model": {"latents": 3}}, "latents"),
    ],
)
def test_a_bad_recipe_is_refused_by_name(recipe, message, train, tmp_path):
    if recipe is not None:
        (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(SystemExit, match=message):
        train("--recipe", str(tmp_path / "recipe.json"))


def test_a_recipe_is_overridden_by_flags(tmp_path):
    (tmp_path / "recipe.json").write_text(
        json.dumps({"family": "vae", "model": {"latent_dim": 9}, "data": {"crop_box": [0, 0, 5, 5], "flip": False}})
    )
    run = train_accelerate.parse_arguments(["--recipe", str(tmp_path / "recipe.json"), "--latent_dim", "10"])
    assert (run.family, run.model["latent_dim"], run.data.flip) == ("vae", 10, False)
    assert run.data.crop_box == (0, 0, 5, 5)


def test_a_recipe_that_is_no_json_is_named(train, tmp_path):
    (tmp_path / "notes.json").write_text("# notes")
    with pytest.raises(SystemExit, match="notes.json is no JSON"):
        train("--recipe", str(tmp_path / "notes.json"))


@pytest.mark.parametrize("arguments", [[], ["--image_size", "100"]])
def test_a_training_without_pictures_or_with_an_impossible_size_says_so(arguments, train, tmp_path):
    with pytest.raises(SystemExit, match="image_size=100" if arguments else "--dataset_name .* or --train_data_dir"):
        train("vae", "--output_dir", str(tmp_path / "run"), *arguments)
