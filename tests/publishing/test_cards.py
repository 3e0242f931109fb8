"""Model cards: filled in, true, and the same when written again."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, reset_accelerate, skip_without_encoder, tiny_config
from huggingface_hub import ModelCard
from PIL import Image

from hf_vae import FAMILIES, AutoGenerator, ImagePipeline
from hf_vae.commands import main
from hf_vae.config import DataConfig, RunConfig, TrainConfig
from hf_vae.data.presets import PRESETS
from hf_vae.data.split import read_split
from hf_vae.evaluation.evaluate import evaluate_folder
from hf_vae.evaluation.titles import measured
from hf_vae.flags import run_from_recipe, training_command
from hf_vae.latents.directions import Direction, write_directions
from hf_vae.latents.labelled_codes import LabelledCodes
from hf_vae.pictures import picture_grid, to_pictures
from hf_vae.publishing.cards import describe_data, write_card
from hf_vae.training.loop import train


SHIPPED = sorted(path.parent for path in (REPOSITORY / "model_cards").glob("*/config.json"))
SECTIONS = [
    "Use",
    "Intended use and misuse",
    "Training data",
    "Training procedure",
    "Evaluation",
    "Sliders",
    "How to reproduce",
    "Bias, risks and limits",
    "Licence",
]
MAX_WEIGHT_BYTES = 16 * 2**20


@pytest.fixture(scope="module")
def finished_runs(picture_folder, tmp_path_factory):
    """One short run of each family, trained, evaluated and with its card."""
    folders = {}
    for name, family in FAMILIES.items():
        folder = tmp_path_factory.mktemp("runs") / f"faces-{name}"
        data = DataConfig(train_data_dir=str(picture_folder), data_notes="Drawn faces.", data_license="cc0-1.0")
        settings = TrainConfig(
            output_dir=str(folder), train_batch_size=4, max_train_steps=2, preview_steps=1, prior_steps=2
        )
        train(RunConfig(name, tiny_config(name), family.objective(), data, settings))
        reset_accelerate()
        evaluate_folder(folder, data)
        write_card(folder)
        folders[name] = folder
    return folders


def assert_filled_in_and_true(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    training = json.loads((folder / "training.json").read_text())
    assert not re.search(r"\{\{|\{%|\bNone\b|undefined|More Information Needed|TODO", text)
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    titles = [section.split("\n")[0] for section in sections]
    assert [title for title in titles if title != "Labelled directions"] == SECTIONS
    assert all(len(section.split()) > 15 for section in sections)
    card = ModelCard.load(folder / "README.md")
    published = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert published == {row.title: row.value for row in measured(metrics)} and len(published) > 8
    assert len({result.metric_type for result in card.data.eval_results}) == len(published)
    assert all(value in metrics.values() for value in published.values())
    for title, value in published.items():
        assert f"| {title} | {value:.4g} |" in text
    assert f"{training['steps']:,} updates" in text and f"{training['pictures']['train']:,} were trained on" in text
    assert card.data.license and card.data.library_name == "diffusers"
    shown = [card.data.thumbnail, *(example["output"]["url"] for example in card.data.widget)]
    # a script that trained a model without the loop, as its notes say, has drawn no previews
    has_timelapse = (folder / "timelapse.webp").is_file()
    assert ("timelapse.webp" in shown) is has_timelapse
    assert has_timelapse or "notes" in training
    assert all((folder / name).is_file() for name in shown)


def test_a_card_is_filled_in_and_true(family, finished_runs):
    assert_filled_in_and_true(finished_runs[family])
    text = (finished_runs[family] / "README.md").read_text()
    assert "Drawn faces." in text and "license: cc0-1.0" in text
    for promise in ("pipe.reconstruct", "(reconstructions.png)"):
        assert (promise in text) == FAMILIES[family].model.has_encoder


def test_a_card_shows_reconstructions_of_samples(family, finished_runs):
    skip_without_encoder(family)
    model = AutoGenerator.from_pretrained(finished_runs[family])
    samples = ImagePipeline(model).sample(64, seed=0).tensors[:8]
    with torch.no_grad():
        rows = torch.cat([samples, model.decode(model.encode(samples).latents).sample])
    shown = np.asarray(Image.open(finished_runs[family] / "reconstructions.png"))
    assert np.array_equal(shown, np.asarray(picture_grid(to_pictures(rows, model.output_size), 8)))


def test_a_card_written_again_is_the_same(family, finished_runs):
    files = ["README.md", *(path.name for path in finished_runs[family].glob("*.png"))]
    before = [(finished_runs[family] / name).read_bytes() for name in files]
    write_card(finished_runs[family])
    assert [(finished_runs[family] / name).read_bytes() for name in files] == before


def test_the_grid_of_a_card_is_what_seed_0_draws(family, finished_runs, tmp_path, monkeypatch):
    arguments = ["hf-vae", "sample", str(finished_runs[family]), "--num", "64", "--seed", "0"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--output", str(tmp_path / "grid.png")])
    main.main()
    assert np.array_equal(
        *(np.asarray(Image.open(f)) for f in (tmp_path / "grid.png", finished_runs[family] / "samples.png"))
    )


def test_the_command_tells_of_the_data_and_keeps_a_card_that_was_edited(finished_runs, tmp_path, monkeypatch):
    folder = shutil.copytree(finished_runs["vae"], tmp_path / "told")
    write_card(folder)
    monkeypatch.setattr(
        sys, "argv", ["hf-vae", "card", str(folder), "--data_notes", "My leaves.", "--data_license", "mit"]
    )
    main.main()
    text = (folder / "README.md").read_text()
    assert "My leaves." in text and "license: mit" in text and "Drawn faces." not in text
    assert json.loads((folder / "train_config.json").read_text())["data"]["data_notes"] == "My leaves."
    (folder / "README.md").write_text(text + "By hand.")
    with pytest.raises(SystemExit, match="pass --overwrite"):
        main.main()
    assert (folder / "README.md").read_text().endswith("By hand.")


def test_a_card_without_notes_says_that_the_origin_is_not_recorded(finished_runs, tmp_path):
    folder = shutil.copytree(finished_runs["vae"], tmp_path / "untold")
    describe_data(folder, "", None)
    write_card(folder)
    assert "The origin and licence of the training images were not recorded." in (folder / "README.md").read_text()


def test_a_local_dataset_is_no_id_on_the_hub(finished_runs, tmp_path):
    folder = shutil.copytree(finished_runs["vae"], tmp_path / "local")
    config = json.loads((folder / "train_config.json").read_text())
    config["data"] |= {"train_data_dir": None, "dataset_name": "photos/"}
    (folder / "train_config.json").write_text(json.dumps(config))
    write_card(folder)
    data = ModelCard.load(folder / "README.md").data
    assert data.datasets is None and {result.dataset_type for result in data.eval_results} == {"imagefolder"}


def test_a_card_tells_of_resumes_the_prior_and_what_was_left_out(finished_runs, tmp_path):
    folder = shutil.copytree(finished_runs["vae"], tmp_path / "resumed")
    training = json.loads((folder / "training.json").read_text())
    training["prior"] = {"steps": 1500, "seconds": 720, "device": "CPU, 1 thread"}
    training["launches"] = [
        {"from_step": 0, "changed": []},
        {"from_step": 500, "changed": ["train.max_train_steps: 500 -> 1000"]},
    ]
    training["pictures"]["left_out"] = {"files with the ending .heic": 3, "files in hidden folders": 4}
    (folder / "training.json").write_text(json.dumps(training))
    write_card(folder)
    text = (folder / "README.md").read_text()
    assert "learned in 1,500 updates, in 12 minutes on CPU, 1 thread." in text
    assert "resumed at update 500 with other settings: train.max_train_steps: 500 -> 1000." in text
    assert "in one launch where this run took 2" in text
    assert "Left out before that: files with the ending .heic (3), files in hidden folders (4)." in text
    assert "which have the lowest error on held-out images" not in text
    training["prior"]["kept"], training["notes"] = 1250, "It rained."
    (folder / "training.json").write_text(json.dumps(training))
    write_card(folder)
    text = (folder / "README.md").read_text()
    assert "Its weights are those after 1,250 updates, which have the lowest error on held-out images." in text
    assert "It rained." in text


def test_carbon_emissions_are_told_when_they_are_known(finished_runs, tmp_path):
    folder = shutil.copytree(finished_runs["vae"], tmp_path / "measured")
    assert "were not measured" in (folder / "README.md").read_text()
    emissions = {"emissions": 12.5, "source": "a wattmeter", "training_type": "pre-training"}
    training = json.loads((folder / "training.json").read_text()) | {"co2_eq_emissions": emissions}
    (folder / "training.json").write_text(json.dumps(training))
    write_card(folder)
    assert ModelCard.load(folder / "README.md").data.co2_eq_emissions == emissions
    assert "emitted 12.5 g of CO2 equivalents (a wattmeter)" in (folder / "README.md").read_text()


def test_a_card_tells_of_labelled_directions_and_how_they_are_learned(finished_runs, tmp_path):
    folder = shutil.copytree(finished_runs["vae"], tmp_path / "labelled")
    code_dim = AutoGenerator.from_pretrained(folder).config.code_dim
    assert "Labelled directions" not in (folder / "README.md").read_text()
    write_directions(folder, [Direction("tone", "dark", "bright", 0.875, 40, torch.ones(code_dim))])
    write_card(folder)
    text = (folder / "README.md").read_text()
    assert "| tone | dark | bright | 0.875 | 40 |\n\n## How to reproduce" in text
    assert "hf-vae directions labelled --labels tone --train_data_dir" in text
    assert "difference between the mean codes" in text and "asked for" not in text
    assert_filled_in_and_true(folder)


def test_a_card_tells_of_samples_on_request_and_how_often_they_have_the_label(finished_runs, tmp_path):
    folder = shutil.copytree(finished_runs["vae"], tmp_path / "asked")
    code_dim = AutoGenerator.from_pretrained(folder).config.code_dim
    columns = {"tone": ["dark", "bright"] * 20, "age": list(range(40))}
    codes = LabelledCodes.fit(torch.randn(40, code_dim, generator=torch.Generator().manual_seed(0)), columns)
    write_directions(folder, [Direction("tone", "dark", "bright", 0.875, 40, torch.ones(code_dim))], codes)
    measures = {"label_tone_samples_accuracy": 0.875, "label_age_samples_error": 11.25}
    metrics = json.loads((folder / "metrics.json").read_text()) | measures
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_card(folder)
    text = (folder / "README.md").read_text()
    assert 'pipe.sample(16, seed=7, labels={"tone": "dark", "age": 19.5}).images' in text
    assert (
        "| Label tone: share of samples asked for a word that have it, by this probe, mean over words | 0.875 |"
        in text
    )
    assert "| Label age: mean absolute error of samples asked for a number, by this probe | 11.25 |" in text
    assert_filled_in_and_true(folder)


def test_a_card_explains_faces_and_sliders_where_they_were_measured(finished_runs, tmp_path):
    folder = shutil.copytree(finished_runs["vae"], tmp_path / "measured")
    metrics = json.loads((folder / "metrics.json").read_text())
    faces = {"faces_cascade": "cat faces", "faces_found_real": 0.9, "faces_found_samples": 0.45}
    faces |= {"faces_found_samples_ratio": 0.5, "slider_faces_found_ratio": 0.4}
    sliders = {"slider_strength_median": 0.3, "slider_strength_component_1": 0.3}
    metrics = {name: value for name, value in metrics.items() if not name.startswith(("faces", "slider"))}
    for measures, explained in (({}, []), (faces, ["cat faces"]), (sliders, ["strength of a slider"])):
        (folder / "metrics.json").write_text(json.dumps(metrics | measures))
        write_card(folder)
        assert_filled_in_and_true(folder)
        text = (folder / "README.md").read_text()
        for sentence in ("cat faces", "strength of a slider"):
            assert (sentence in text) == (sentence in explained)
        assert ("finds them in 90.0% of the" in text) == ("cat faces" in explained)


@pytest.mark.parametrize("missing", ["metrics.json", "training.json", "train_config.json"])
def test_an_unfinished_run_gets_no_card(missing, finished_runs, tmp_path):
    for path in finished_runs["vae"].glob("*.json"):
        if path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=f"has no {missing}"):
        write_card(tmp_path)


def test_the_command_in_a_card_names_what_differs_from_the_defaults():
    data = DataConfig(dataset_name="cats", flip=False, crop_box=(1, 2, 3, 4))
    model = {"image_size": 32, "latent_dim": 1024}
    settings = TrainConfig(learning_rate=1e-3, adam_weight_decay=0.5)
    command = training_command(RunConfig("vae", model, FAMILIES["vae"].objective(kl_weight=0.5), data, settings))
    flags = "--image_size 32 --kl_weight 0.5 --dataset_name cats --crop_box 1 2 3 4 --no_flip --adam_weight_decay 0.5"
    assert command.replace(" \\\n   ", "") == f"accelerate launch train_accelerate.py vae {flags}"


def test_a_preset_card_repeats_its_terms():
    assert all(preset.data_notes and preset.revision and preset.image_column for preset in PRESETS.values())


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_every_shipped_model_loads_and_its_card_agrees_with_its_metrics(folder):
    assert_filled_in_and_true(folder)
    assert all(path.stat().st_size <= MAX_WEIGHT_BYTES for path in folder.glob("*.safetensors"))
    assert not list(folder.glob("*.bin")) and not list(folder.glob("*.pkl"))
    model = AutoGenerator.from_pretrained(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["image_size"] == model.config.image_size
    drawn = ImagePipeline(model).sample(64, seed=0).images
    shown = np.asarray(Image.open(folder / "samples.png")).astype(int)
    assert abs(np.asarray(picture_grid(drawn)) - shown).mean() < 2  # grey levels
    text = (folder / "README.md").read_text()
    assert "were not recorded" not in text and f'from_pretrained("model_cards/{folder.name}")' in text
    # it names every setting that differs from a default, also from one that changed after the training
    assert training_command(run_from_recipe(json.loads((folder / "train_config.json").read_text()))) in text
    split, pictures = read_split(folder), json.loads((folder / "training.json").read_text())["pictures"]
    assert (len(split.train), len(split.heldout)) == (pictures["train"], pictures["heldout"])
    assert metrics["num_heldout"] == pictures["heldout"]
