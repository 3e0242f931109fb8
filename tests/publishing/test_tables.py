"""Our runs beside what was published."""

import json
import re

import pytest
from conftest import reset_accelerate, tiny_run

from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.models.auto import AutoGenerator
from hf_vae.pictures import to_float
from hf_vae.publishing.tables import reconstruction_error, table, table_rows
from hf_vae.training.loop import train


def test_the_table_holds_our_errors_beside_the_published_one_on_one_scale(picture_folder, tmp_path):
    recipes, runs = tmp_path / "recipes", tmp_path / "runs"
    recipes.mkdir()
    for family, published in (("vae", {"training_mse": 0.01, "pixels": "[0, 1]"}), ("dcgan", None)):
        run = tiny_run(family, picture_folder, runs / f"drawn-{family}")
        train(run)
        reset_accelerate()
        sections = json.loads(json.dumps(run.to_dict())) | ({"published": published} if published else {})
        (recipes / f"drawn-{family}.json").write_text(json.dumps(sections))
    lines = table(table_rows(recipes, "drawn", runs, str(picture_folder))).splitlines()
    assert len({len(line) for line in lines}) == 1  # aligned
    header, _, gan, vae = (re.sub(" +", " ", line) for line in lines)
    assert header.startswith("| recipe | epochs | training MSE | held-out MSE | published")
    assert gan == "| drawn-dcgan | 1 | - | - | - | - |"
    splits = load_images(DataConfig(train_data_dir=str(picture_folder)), 28, 3)
    model = AutoGenerator.from_pretrained(runs / "drawn-vae")
    ours = [
        reconstruction_error(model, to_float(part[: len(splits.heldout)])) for part in (splits.train, splits.heldout)
    ]
    assert vae == f"| drawn-vae | 1 | {ours[0]:.4f} | {ours[1]:.4f} | 0.0100 on [0, 1] | 0.0400 |"
    with pytest.raises(ValueError, match="no finished run of a recipe cats"):
        table_rows(recipes, "cats", runs, str(picture_folder))
