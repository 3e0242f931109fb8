"""Presets fill in what the caller left out, and nothing else."""

import dataclasses

import pytest

from hf_vae.config import PRESET_NAMES, DataConfig, is_local_dataset
from hf_vae.data.presets import PRESETS, with_preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_in_what_the_caller_left_out(name):
    filled = with_preset(DataConfig(dataset_name=name, validation_fraction=0.2, split_seed=5))
    values = dataclasses.asdict(PRESETS[name]) | {"validation_fraction": 0.2, "split_seed": 5}
    assert values.pop("labels") is not None and filled == DataConfig(**values)


@pytest.mark.parametrize(
    "chosen",
    [
        {"revision": "v1"},
        {"image_column": "face"},
        {"crop_box": (1, 2, 3, 4)},
        {"data_notes": "mine"},
        {"flip": False},
        {"color_jitter": 0.3},
        {"validation_fraction": 0.5},
    ],
    ids=str,
)
def test_the_callers_values_win_over_a_preset(chosen):
    filled = with_preset(DataConfig(dataset_name="lfw", **chosen))
    assert {name: getattr(filled, name) for name in chosen} == chosen


def test_without_a_preset_nothing_is_filled_in():
    data = DataConfig(dataset_name="someone/pictures")
    assert with_preset(data) == data


def test_the_names_of_presets_stand_for_no_folders(tmp_path, monkeypatch):
    assert set(PRESET_NAMES) == set(PRESETS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cats").mkdir()
    assert not is_local_dataset("cats")
