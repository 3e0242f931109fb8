"""From flags to a run, to JSON, and back."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
import pytest
import tyro

from hf_vae.config import DataConfig, RunConfig, TrainConfig, differences
from hf_vae.families import FAMILIES
from hf_vae.flags import FLAG_STYLE, flags_from_dict, flags_to_run, run_flags_type, with_defaults
from hf_vae.ranges import Range, limited, range_of, refuse_out_of_range, with_ranges
from hf_vae.training.preflight import refuse_impossible


OTHER_FLAGS = (
    "--image_size 32 --width 16 --train_data_dir photos/ --crop_box 1 2 30 40 --no_flip --learning_rate 0.5 --seed 3"
)


def flags_type_of(family: str) -> type:
    return run_flags_type(family, FAMILIES[family].model, FAMILIES[family].objective)


def parse(family: str, line: str = "") -> RunConfig:
    """The run that a command line stands for."""
    return flags_to_run(family, tyro.cli(flags_type_of(family), args=line.split(), **FLAG_STYLE))


@pytest.mark.parametrize("line", ["", OTHER_FLAGS])
def test_a_run_survives_its_recipe(family, line, tmp_path):
    run = parse(family, line)
    run.save(tmp_path)
    sections = json.loads((tmp_path / "train_config.json").read_text())
    assert flags_to_run(family, flags_from_dict(flags_type_of(family), sections)) == run
    assert differences(run.to_dict(), sections) == []


def test_flags_reach_the_run(family):
    run = parse(family, OTHER_FLAGS)
    assert (run.family, run.model["image_size"], run.model["width"]) == (family, 32, 16)
    assert run.data == DataConfig(train_data_dir="photos/", crop_box=(1, 2, 30, 40), flip=False)
    assert (run.train.learning_rate, run.train.seed) == (0.5, 3)


def test_every_setting_of_the_objective_is_a_flag(family):
    defaults = FAMILIES[family].objective()
    for field in dataclasses.fields(defaults):
        value = getattr(defaults, field.name)
        if isinstance(value, bool):
            flag, expected = f"--no_{field.name}" if value else f"--{field.name}", not value
        else:
            choices = get_args(get_type_hints(type(defaults))[field.name])
            expected = value + 8 if isinstance(value, int | float) else choices[1] if value else ("tanh",)
            if value is None and float in choices:
                expected = 8.0
            flag = f"--{field.name} {'tanh' if expected == ('tanh',) else expected}"
        assert getattr(parse(family, flag).objective, field.name) == expected


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("--resolution 128", "--image_size 128"),
        ("--num_epochs 3", "--num_train_epochs 3"),
        ("--random_flip", "--flip"),
        ("--no_random_flip", "--no_flip"),
    ],
)
def test_names_of_diffusers_scripts_are_other_names_of_ours(family, theirs, ours):
    assert parse(family, theirs) == parse(family, ours)


def test_defaults_build_the_model_and_take_the_objective_s_training_settings(family):
    run = parse(family)
    FAMILIES[family].model(**run.model)
    assert run.objective == FAMILIES[family].objective()
    for name, value in run.objective.train_defaults.items():
        assert getattr(run.train, name) == value


def test_field_names_are_unique_across_sections(family):
    names = [
        field.name
        for section in dataclasses.fields(flags_type_of(family))
        for field in dataclasses.fields(section.default_factory())
    ]
    assert len(names) == len(set(names))


def test_help_explains_every_flag(family, capsys):
    with pytest.raises(SystemExit):
        parse(family, "--help")
    printed = capsys.readouterr().out
    for section in dataclasses.fields(flags_type_of(family)):
        for field in dataclasses.fields(section.default_factory()):
            assert f"--{field.name}" in printed or f"--no_{field.name}" in printed
    words = " ".join(printed.replace("│", " ").split())
    assert "Peak learning rate of all networks. (above 0; default: " in words
    assert "Number of latents Z. (at least 1; default: " in words


def numbers(family: str) -> Iterator[tuple[str, str, Any]]:
    """The section, name and annotation of every setting that is a number."""
    for section in dataclasses.fields(flags_type_of(family)):
        hints = get_type_hints(section.type, include_extras=True)
        for name in (field.name for field in dataclasses.fields(section.type)):
            plain = get_type_hints(section.type)[name]
            if {int, float} & {plain, *get_args(plain)} and get_args(plain)[1:] != (int, int, int):
                yield section.name, name, hints[name]


def changed_to(run: RunConfig, section: str, name: str, value: Any) -> RunConfig:
    """The same run with another value of one setting."""
    values = getattr(run, section)
    changed = {**values, name: value} if isinstance(values, dict) else dataclasses.replace(values, **{name: value})
    return dataclasses.replace(run, **{section: changed})


def test_every_number_has_a_range(family):
    names = {name for _, name, _ in numbers(family)}
    assert {"learning_rate", "seed", "train_batch_size", "init_std", "validation_fraction", "width"} <= names
    assert [name for _, name, annotation in numbers(family) if range_of(annotation) is None] == []


def test_every_number_is_refused_out_of_its_range_and_when_it_is_none(family):
    run = parse(family, "--train_data_dir photos")
    refuse_impossible(run)
    for section, name, annotation in numbers(family):
        allowed = range_of(annotation)
        below = [] if allowed.least is None else [allowed.least - 1]
        above = [] if allowed.most is None else [allowed.most + 1]
        at_the_edge = [edge for edge in (allowed.above, allowed.below) if edge is not None]
        for value in [math.nan, math.inf, -math.inf, "7", True, *below, *above, *at_the_edge]:
            with pytest.raises(ValueError, match=rf"^{name}={value} is not possible; it must be .*{allowed}"):
                refuse_impossible(changed_to(run, section, name, value))


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("train", "max_grad_norm", -1.0, "max_grad_norm=-1.0 is not possible; it must be at least 0"),
        ("train", "ema_decay", 1.5, "ema_decay=1.5 is not possible; it must be at least 0 and at most 1"),
        ("train", "learning_rate", 0.0, "learning_rate=0.0 is not possible; it must be above 0"),
        ("train", "adam_beta1", 1.0, "adam_beta1=1.0 is not possible; it must be at least 0 and below 1"),
        (
            "train",
            "max_train_steps",
            3.5,
            "max_train_steps=3.5 is not possible; it must be a whole number, at least 1",
        ),
        ("train", "learning_rate", None, "learning_rate=None is not possible; it must be a finite number, above 0"),
        ("train", "seed", 2**32, "seed=4294967296 is not possible; it must be at least 0 and at most 4294967295"),
        ("data", "color_jitter", 9, "color_jitter=9 is not possible; it must be at least 0 and at most 1"),
        ("data", "validation_fraction", 1, "validation_fraction=1 is not possible; it must be above 0 and below 1"),
        ("data", "crop_box", (10, 10, 5, 5), r"crop_box=\(10, 10, 5, 5\) is not possible; .* left below right"),
        ("data", "crop_box", (-1, 0, 5, 5), r"crop_box=\(-1, 0, 5, 5\) is not possible"),
        ("data", "data_license", "CC BY 4.0", "data_license=CC BY 4.0 .* did you mean cc-by-4.0"),
        ("model", "latent_dim", 0, "latent_dim=0 is not possible; it must be at least 1"),
        ("model", "image_channels", 2, "image_channels=2 is not possible; choose 1 .* or 3"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_what_is_allowed(section, name, value, message):
    with pytest.raises(ValueError, match=message):
        refuse_impossible(changed_to(parse("vae", "--train_data_dir photos"), section, name, value))


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("data", "flip", "no", "flip=no is not possible; it must be bool"),
        ("data", "train_data_dir", ["a", "b"], r"train_data_dir=.* must be str \| None"),
        ("data", "crop_box", [1, 2], r"crop_box=\(1, 2\) is not possible; it must be tuple"),
        ("data", "crop_box", "abcd", "crop_box=abcd is not possible"),
        ("train", "use_ema", 0, "use_ema=0 is not possible; it must be bool"),
        ("train", "lr_scheduler", "polynomial", "lr_scheduler=polynomial is not possible; it must be one of cosine, "),
        ("train", "learning_rate", "fast", "learning_rate=fast is not possible; it must be a finite number, above 0"),
        ("objective", "reconstruction_loss", "bcd", "reconstruction_loss=bcd .* must be one of calibrated, mse"),
        ("model", "block", None, "block=None is not possible; it must be one of residual, plain"),
        ("model", "width", "8", "width=8 is not possible; it must be a whole number, at least 1"),
        ("model", "encoder_layers", "tanh", "encoder_layers=tanh is not possible"),
    ],
)
def test_a_value_of_a_recipe_has_to_be_of_its_kind(section, name, value, message):
    with pytest.raises(ValueError, match=message):
        flags_from_dict(flags_type_of("vae"), {section: {name: value}})


def test_words_that_stand_for_a_number_are_none_that_is_refused():
    run = parse("vae", "--train_data_dir photos --train_batch_size auto --checkpoints_total_limit None")
    refuse_impossible(run)
    assert (run.train.train_batch_size, run.train.checkpoints_total_limit) == ("auto", None)


def test_a_function_refuses_arguments_out_of_their_ranges_before_it_runs():
    ran = []

    @with_ranges
    def draw(num: Annotated[int, limited(least=1)], seed: Annotated[int, limited(below=9)] = 3) -> None:
        ran.append((num, seed))

    draw(2)
    with pytest.raises(ValueError, match="num=0 is not possible; it must be at least 1"):
        draw(num=0)
    with pytest.raises(ValueError, match="seed=9 is not possible; it must be below 9"):
        draw(1, 9)
    assert ran == [(2, 3)]


def test_numbers_of_numpy_are_numbers():
    refuse_out_of_range(TrainConfig, {"seed": np.int64(3), "learning_rate": np.float32(0.5)})
    with pytest.raises(ValueError, match="seed=-3"):
        refuse_out_of_range(TrainConfig, {"seed": np.int64(-3)})


def test_a_range_without_bounds_takes_every_finite_number():
    assert -1e30 in Range() and math.inf not in Range()


@pytest.mark.parametrize("path", ["~", "~/photos", "~/../photos"])
def test_a_home_folder_is_one_wherever_a_path_is_taken(path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    expected = path.replace("~", "/home/somebody")
    names = ("output_dir", "pretrained_model_name_or_path", "resume_from_checkpoint", "train_data_dir", "dataset_name")
    run = parse("vae", " ".join(f"--{name} {path}" for name in names))
    of_a_recipe = flags_to_run("vae", flags_from_dict(flags_type_of("vae"), {"data": {"train_data_dir": path}}))
    found = {**dataclasses.asdict(run.data), **dataclasses.asdict(run.train)}
    assert [found[name] for name in names] == [expected] * 5
    assert of_a_recipe.data.train_data_dir == expected
    assert DataConfig(train_data_dir=Path(path)).train_data_dir == expected


def test_what_a_recipe_leaves_out_keeps_its_default(family):
    flags = flags_from_dict(flags_type_of(family), {"family": family, "data": {"split_seed": 7}})
    assert flags_to_run(family, flags) == dataclasses.replace(parse(family), data=DataConfig(split_seed=7))


@pytest.mark.parametrize(
    ("sections", "name"),
    [({"optimizer": {}}, "optimizer"), ({"data": {"folder": "x"}}, "folder"), ({"train": {"lr": 1}}, "lr")],
)
def test_unknown_parts_of_a_recipe_are_named(family, sections, name):
    with pytest.raises(ValueError, match=rf"Unknown .*\b{name}\b.*There are: "):
        flags_from_dict(flags_type_of(family), sections)


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("--image_size 128", ["model.image_size"]),
        ("--split_seed 1 --color_jitter 0.2", ["data.color_jitter", "data.split_seed"]),
        ("--max_train_steps 9 --output_dir elsewhere --learning_rate 1", []),
    ],
)
def test_differences_are_the_changed_fields_of_what_is_trained(family, line, changed):
    found = differences(parse(family, line).to_dict(), parse(family).to_dict())
    assert [text.split(":")[0] for text in found] == changed


def test_differences_say_what_was_and_what_is(family):
    before, now = parse(family).to_dict(), parse(family, "--latent_dim 32").to_dict()
    assert differences(now, before) == [f"model.latent_dim: {before['model']['latent_dim']} -> 32"]


@pytest.mark.parametrize(("line", "num_changed"), [("", 0), ("--random_shift 0.1", 1)])
def test_a_field_that_an_earlier_version_did_not_have_had_its_default(line, num_changed):
    before, now = parse("vae").to_dict(), parse("vae", line).to_dict()
    for section, name in (("model", "round_trips"), ("objective", "perceptual_weight"), ("data", "random_shift")):
        del before[section][name]
    found = differences(with_defaults(now), with_defaults(before))
    assert found == ["data.random_shift: 0.0 -> 0.1"] * num_changed


def test_another_family_is_a_difference(family):
    run = parse(family).to_dict()
    assert differences({**run, "family": "other"}, run) == [f"family: {family} -> other"]


def test_a_changed_objective_is_a_difference(family):
    run = parse(family).to_dict()
    name = next(iter(run["objective"]))
    other = {**run, "objective": {**run["objective"], name: 99}}
    assert [text.split(":")[0] for text in differences(other, run)] == [f"objective.{name}"]


@pytest.mark.parametrize(
    ("flags", "published"),
    [
        ("--train_data_dir /home/USER/CLIENT/photos", {"train_data_dir": "photos/"}),
        ("--train_data_dir ../CLIENT/photos/", {"train_data_dir": "photos/"}),
        ("--train_data_dir CLIENT/cats.parquet", {"train_data_dir": "cats.parquet"}),
        ("--dataset_name me/cats", {"dataset_name": "me/cats"}),
        ("--output_dir runs/photos-vae", {"output_dir": "runs/photos-vae"}),
        ("--output_dir /home/USER/CLIENT/run", {"output_dir": "run"}),
        ("--output_dir ../USER/run", {"output_dir": "run"}),
        ("--output_dir CLIENT/USER/run", {"output_dir": "run"}),
        ("--pretrained_model_name_or_path me/cats-vae", {"pretrained_model_name_or_path": "me/cats-vae"}),
        ("--pretrained_model_name_or_path ~/CLIENT/vae", {"pretrained_model_name_or_path": "vae"}),
    ],
)
def test_a_published_configuration_names_folders_and_no_paths(flags, published, tmp_path):
    parse("vae", flags).save(tmp_path)
    text = (tmp_path / "train_config.json").read_text()
    sections = json.loads(text)
    assert published.items() <= (sections["data"] | sections["train"]).items()
    assert "CLIENT" not in text and "USER" not in text


def test_a_local_dataset_is_published_by_its_name_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CLIENT/cats").mkdir(parents=True)
    parse("vae", "--dataset_name CLIENT/cats").save(tmp_path)
    assert json.loads((tmp_path / "train_config.json").read_text())["data"]["dataset_name"] == "cats/"
    assert json.loads((tmp_path / "paths.json").read_text())["data"]["dataset_name"] == str(tmp_path / "CLIENT/cats")


def test_the_target_of_a_link_is_not_published(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CLIENT-2024").mkdir()
    (tmp_path / "photos").symlink_to(tmp_path / "CLIENT-2024")
    parse("vae", "--train_data_dir photos").save(tmp_path)
    assert json.loads((tmp_path / "train_config.json").read_text())["data"]["train_data_dir"] == "photos/"
