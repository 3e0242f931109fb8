"""From flags to a run, to JSON, and back."""

import dataclasses
import json
from typing import get_args, get_type_hints

import pytest
import tyro

from hf_vae.config import FLAG_STYLE, DataConfig, RunConfig, differences, flags_from_dict, flags_to_run, run_flags_type
from hf_vae.families import FAMILIES


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
            flag = f"--{field.name} {expected}" if value is not None else f"--{field.name} tanh"
        assert getattr(parse(family, flag).objective, field.name) == expected


def test_resolution_is_another_name_of_image_size(family):
    assert parse(family, "--resolution 128") == parse(family, "--image_size 128")


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
