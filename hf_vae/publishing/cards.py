"""A run folder to its model card."""

import dataclasses
import itertools
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..config import RunConfig, is_local_dataset, shown_path, without_paths
from ..data.licenses import check_license
from ..data.presets import with_preset
from ..families import FAMILIES
from ..flags import run_from_recipe, training_command
from ..latents.directions import Direction, read_directions
from ..models import ImageGenerator
from ..models.auto import AutoGenerator
from ..pictures import picture_grid
from ..pipeline import ImagePipeline
from ..run_folder import (
    CARD_FILE,
    CONFIG_FILE,
    FACTS_FILE,
    METRICS_FILE,
    RECONSTRUCTIONS_FILE,
    SAMPLES_FILE,
    TIMELAPSES,
    read_json,
    write_json,
)
from ..sheets import draw_reconstructions
from .hub import NO_ORIGIN


TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
SAMPLES_IN_CARD = 64
SAMPLES_SEED = 0
RECONSTRUCTIONS_IN_CARD = 8
METRIC_NAMES = {
    "reconstruction_mse": "Reconstruction MSE, images in [-1, 1]",
    "reconstruction_mse_without_details": "Reconstruction MSE without residual latents, images in [-1, 1]",
    "reconstruction_psnr": "Reconstruction PSNR, dB",
    "reconstruction_psnr_without_details": "Reconstruction PSNR without residual latents, dB",
    "reconstruction_ssim": "Reconstruction SSIM",
    "reconstruction_ssim_without_details": "Reconstruction SSIM without residual latents",
    "laplacian_variance_reconstructions_ratio": "Variance of the Laplacian of reconstructions, ratio to real",
    "laplacian_variance_reconstructions_without_details_ratio": (
        "Variance of the Laplacian of reconstructions without residual latents, ratio to real"
    ),
    "laplacian_variance_samples_ratio": "Variance of the Laplacian of samples, ratio to real",
    "high_frequency_energy_reconstructions_ratio": "High-frequency energy of reconstructions, ratio to real",
    "high_frequency_energy_reconstructions_without_details_ratio": (
        "High-frequency energy of reconstructions without residual latents, ratio to real"
    ),
    "high_frequency_energy_samples_ratio": "High-frequency energy of samples, ratio to real",
    "median_distance_samples_ratio": "Median distance between samples, ratio to real",
    "nearest_distance_samples_ratio": "Median distance of a sample to the nearest other one, ratio to real",
    "training_distance_samples_ratio": "Median distance to the nearest training picture, samples to held-out",
    "interpolation_lerp_sharpness_middle_ratio": "Variance of the Laplacian midway on a line, ratio to the ends",
    "interpolation_slerp_sharpness_middle_ratio": "Variance of the Laplacian midway on a circle, ratio to the ends",
    "interpolation_flow_sharpness_middle_ratio": "Variance of the Laplacian midway in the flow, ratio to the ends",
}
FEATURE_NOTES = {
    "simclr": "simclr is a small network of hf_vae, which is blind to part of what eyes see",
    "efficientnet": "efficientnet is EfficientNet-Lite0, trained on ImageNet, at 128x128 pixels",
    "inception": "inception is the network of FID, at 299x299 pixels",
}
FEATURE_METRIC_NAMES = {
    "frechet": "Frechet distance",
    "kernel": "Kernel distance",
    "precision": "Precision",
    "recall": "Recall",
}


def write_card(folder: Path) -> None:
    """Writes `README.md`, `samples.png` and, of a model with an encoder, `reconstructions.png` into a run folder, from
    the model, `train_config.json`, `training.json` and `metrics.json` in it; doing so again changes nothing.

    `samples.png` shows what `ImagePipeline.sample(64, seed=0)` gives. The reconstructions are of the model's own
    samples, as the images that it learned from may not be shown. `co2_eq_emissions` in `training.json`, as the Hub
    wants them (`emissions` in grams, `source` and others), are repeated.

    Raises:
        ValueError: If one of those files is missing.
    """
    card, model = _fill_in(folder)
    samples = ImagePipeline(model).sample(SAMPLES_IN_CARD, seed=SAMPLES_SEED)
    picture_grid(samples.images).save(folder / SAMPLES_FILE)
    if model.has_encoder:
        draw_reconstructions(model, samples.tensors[:RECONSTRUCTIONS_IN_CARD]).save(folder / RECONSTRUCTIONS_FILE)
    card.save(folder / CARD_FILE)


def differs(folder: Path) -> bool:
    """Whether `write_card` would replace a card that says something else.

    Raises:
        ValueError: As `write_card` does.
    """
    card, _ = _fill_in(folder)
    return (folder / CARD_FILE).is_file() and ModelCard.load(folder / CARD_FILE).content != card.content


def describe_data(folder: Path, notes: str | None, license_id: str | None) -> None:
    """Writes what a card says of the training images into the `train_config.json` of a run folder; None leaves what is
    there.

    Raises:
        ValueError: If the file is missing, or the Hub does not know the licence.
    """
    if license_id is not None:
        check_license(license_id)
    config = read_json(folder, CONFIG_FILE)
    config["data"] |= {"data_notes": notes} if notes is not None else {}
    config["data"] |= {"data_license": license_id} if license_id is not None else {}
    write_json(folder, CONFIG_FILE, config)


def _fill_in(folder: Path) -> tuple[ModelCard, ImageGenerator]:
    AutoGenerator.class_of(folder)  # which says what a folder is that holds no finished model
    config, training, metrics = (read_json(folder, name) for name in (CONFIG_FILE, FACTS_FILE, METRICS_FILE))
    config = without_paths(config)
    run = run_from_recipe(config)
    run = dataclasses.replace(run, data=with_preset(run.data))
    model = AutoGenerator.from_pretrained(folder)
    name = folder.resolve().name
    rows = measure_titles(metrics)
    has_timelapse = (folder / TIMELAPSES[0]).is_file()
    directions = read_directions(folder, model.config.latent_dim)
    card = ModelCard.from_template(
        _metadata(name, run, rows, training, has_timelapse),
        template_path=str(TEMPLATE),
        name=name,
        model_id=shown_path(os.path.relpath(folder)),
        description=FAMILIES[run.family].description,
        has_encoder=model.has_encoder,
        num_values=model.config.image_channels * model.config.image_size**2,
        num_parameters=model.num_parameters(),
        no_origin=NO_ORIGIN,
        config=config,
        detail_dim=config["model"].get("detail_dim") or 0,
        minutes=_minutes,
        resumes=training.get("launches", [])[1:],
        feature_notes=_feature_notes(metrics),
        data=run.data,
        training=training,
        metrics=metrics,
        rows={title: f"{value:.4g}" for title, value in rows.items()},
        command=training_command(run),
        has_timelapse=has_timelapse,
        directions=direction_rows(directions),
        labels=" ".join(dict.fromkeys(each.name for each in directions)),
    )
    return card, model


def direction_rows(directions: list[Direction]) -> list[list[str]]:
    """A row for each labelled direction: label, from, to, balanced accuracy and on how many held-out pictures."""
    return [[each.name, each.low, each.high, f"{each.accuracy:.3f}", str(each.num_heldout)] for each in directions]


def measure_titles(metrics: dict[str, Any]) -> dict[str, float]:
    """What a card says of `metrics.json`, by title."""
    rows = {title: metrics[key] for key, title in METRIC_NAMES.items() if key in metrics}
    for group in ("samples", "reconstructions"):
        bands = [value for key, value in metrics.items() if re.fullmatch(rf"spectrum_band_\d_{group}_ratio", key)]
        if bands:
            title = f"Power spectrum of {group} against real images"
            rows[f"{title}: smallest ratio over 8 frequency bands"] = min(bands)
            rows[f"{title}: largest ratio over 8 frequency bands"] = max(bands)
    networks = metrics.get("feature_networks", [metrics["feature_network"]])
    for measure, network in itertools.product(FEATURE_METRIC_NAMES, networks):
        prefix, title = f"{measure}_{network}_", f"{FEATURE_METRIC_NAMES[measure]} ({network} features)"
        if (measure, network) == ("frechet", "inception"):
            title = f"FID of {metrics['num_samples']:,} images"
        for key in (key for key in metrics if key.startswith(prefix)):
            group = key.removeprefix(prefix)
            if measure == "frechet" or group in (f"prior_{metrics['sample_prior']}", "training_images"):
                what = "training images" if group == "training_images" else f"samples, {group.split('_')[1]} prior"
                rows[f"{title}, {what}"] = metrics[key]
    return rows


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _feature_notes(metrics: dict[str, Any]) -> str:
    """What the networks are whose features distances are measured in."""
    networks = metrics.get("feature_networks", [metrics["feature_network"]])
    no_fid = "" if "inception" in networks else " These values are not FID."
    return (
        "; ".join(FEATURE_NOTES.get(name, f"{name} is a network of the trainer's own") for name in networks)
        + "."
        + no_fid
    )


def _metadata(
    name: str, run: RunConfig, rows: dict[str, float], training: dict[str, Any], has_timelapse: bool
) -> ModelCardData:
    gallery = {SAMPLES_FILE: f"{SAMPLES_IN_CARD} samples, seed {SAMPLES_SEED}, not selected"}
    if FAMILIES[run.family].model.has_encoder:
        text = f"{RECONSTRUCTIONS_IN_CARD} of its samples, and below each the reconstruction"
        gallery[RECONSTRUCTIONS_FILE] = text
    if has_timelapse:
        gallery[TIMELAPSES[0]] = "Samples of the same noise during training"
    hub_dataset = None if is_local_dataset(run.data.dataset_name) else run.data.dataset_name
    dataset = (run.data.dataset_name or run.data.train_data_dir).rstrip("/")
    return ModelCardData(
        model_name=name,
        license=run.data.data_license or "other",
        license_name=None if run.data.data_license else "terms-of-the-training-pictures",
        library_name="diffusers",
        pipeline_tag="unconditional-image-generation",
        tags=["hf_vae", run.family, "image-generation", "latent-space"],
        datasets=[hub_dataset] if hub_dataset else None,
        eval_results=[
            EvalResult(
                task_type="unconditional-image-generation",
                dataset_type=hub_dataset or "imagefolder",
                dataset_name=f"{dataset}, held-out pictures",
                metric_type=title.split(",")[0].lower().replace(" ", "_"),
                metric_name=title,
                metric_value=value,
            )
            for title, value in rows.items()
        ],
        thumbnail=SAMPLES_FILE,
        widget=[{"text": text, "output": {"url": name}} for name, text in gallery.items()],
        co2_eq_emissions=training.get("co2_eq_emissions"),  # None is left out
        ignore_metadata_errors=False,
    )
