"""The model card of a run folder."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..config import RunConfig, is_local_dataset, shown_path, without_paths
from ..data.licenses import check_license
from ..data.presets import with_preset
from ..evaluation.titles import Measured, measured, network_notes
from ..families import FAMILIES
from ..flags import run_from_recipe, training_command
from ..latents.directions import Direction, direction_size, read_directions, read_labelled_codes
from ..latents.labelled_codes import Label, NumberLabel
from ..latents.sliders import NamedSlider, read_sliders, slider_size
from ..models import ImageGenerator
from ..models.auto import AutoGenerator
from ..models.priors import CODE
from ..pictures import picture_grid
from ..pipeline import ImagePipeline
from ..run_folder import (
    CARD_FILE,
    CONFIG_FILE,
    FACTS_FILE,
    METRICS_FILE,
    RECONSTRUCTIONS_FILE,
    SAMPLES_FILE,
    SWEEP_FILE,
    TIMELAPSES,
    read_json,
    write_json,
)
from ..sheets import draw_reconstructions, labelled_sheet, sweep_rows
from .hub import NO_ORIGIN


TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
SAMPLES_IN_CARD = 64
SAMPLES_SEED = 0
RECONSTRUCTIONS_IN_CARD = 8


def write_card(folder: Path) -> None:
    """Writes `README.md`, `samples.png`, `sweep.webp` and, if the model has an encoder, `reconstructions.png` into a
    run folder.

    They are made from the model, `train_config.json`, `training.json` and `metrics.json` in the folder. Writing them
    again changes nothing. `samples.png` shows `ImagePipeline.sample(64, seed=0)`, and `sweep.webp` the first of these
    along the sliders. The reconstructions are those of the model's own samples, so that no training image is shown. If
    `training.json` has `co2_eq_emissions`, in the form that the Hub defines (`emissions` in grams, `source` and
    others), the card repeats them.

    Raises:
        ValueError: If one of those files is missing.
    """
    card, model = _fill_in(folder)
    samples = ImagePipeline(model).sample(SAMPLES_IN_CARD, seed=SAMPLES_SEED)
    picture_grid(samples.images).save(folder / SAMPLES_FILE)
    if model.has_encoder:
        draw_reconstructions(model, samples.tensors[:RECONSTRUCTIONS_IN_CARD]).save(folder / RECONSTRUCTIONS_FILE)
    pipeline = ImagePipeline(model, sliders=read_sliders(folder, slider_size(model.config)))
    sweep = labelled_sheet(sweep_rows(pipeline, samples.latents[:1]))
    sweep.save(folder / SWEEP_FILE, quality=90, method=4)
    card.save(folder / CARD_FILE)


def estimate_seconds(model: ImageGenerator, clock: Callable[[], float] = time.perf_counter) -> float:
    """About how long `write_card` will take for a model of this size, in seconds of `clock`."""
    begin = clock()
    model.sample(SAMPLES_IN_CARD)
    return 4 * (clock() - begin)  # the reconstructions, the sliders, and what converts and saves images


def differs(folder: Path) -> bool:
    """Whether the folder has a card that differs from the one that `write_card` would write.

    Raises:
        ValueError: As `write_card` does.
    """
    card, _ = _fill_in(folder)
    return (folder / CARD_FILE).is_file() and ModelCard.load(folder / CARD_FILE).content != card.content


def describe_data(folder: Path, notes: str | None, license_id: str | None) -> None:
    """Records the notes on the training images and their licence in the `train_config.json` of a run folder. None
    keeps the recorded value.

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
    AutoGenerator.class_of(folder)  # raises an error that explains what else the folder is
    config, training, metrics = (read_json(folder, name) for name in (CONFIG_FILE, FACTS_FILE, METRICS_FILE))
    config = without_paths(config)
    run = run_from_recipe(config)
    run = dataclasses.replace(run, data=with_preset(run.data))
    model = AutoGenerator.from_pretrained(folder)
    name = folder.resolve().name
    rows = measured(metrics)
    has_timelapse = (folder / TIMELAPSES[0]).is_file()
    directions = read_directions(folder, direction_size(model.config))
    codes = read_labelled_codes(folder, model.config)
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
        feature_notes=network_notes(metrics),
        data=run.data,
        training=training,
        metrics=metrics,
        heldout_measured=_heldout_measured(metrics["num_heldout"], training["pictures"]["heldout"]),
        rows={row.title: f"{row.value:.4g}" for row in rows},
        command=training_command(run),
        has_timelapse=has_timelapse,
        directions=direction_rows(directions),
        sliders=slider_rows(read_sliders(folder, slider_size(model.config))),
        has_code=model.config.prior == CODE,
        request=", ".join(map(_example, codes.labels)) if codes else "",
        labels=" ".join(dict.fromkeys(each.name for each in directions)),
    )
    return card, model


def _heldout_measured(measured: int, heldout: int) -> str:
    """Which images the measures are of: a run by the clock may measure a part of those that it held out."""
    return f"the {measured} held-out images" if measured == heldout else f"{measured} of the {heldout} held-out images"


def direction_rows(directions: list[Direction]) -> list[list[str]]:
    """A row for each labelled direction: label, from, to, balanced accuracy, number of held-out images."""
    return [[each.name, each.low, each.high, f"{each.accuracy:.3f}", str(each.num_heldout)] for each in directions]


def slider_rows(sliders: Sequence[NamedSlider]) -> list[list[str]]:
    """A row for each named slider: name, from, to, effect, largest other effect."""
    return [[each.name, each.low, each.high, f"{each.effect:.1f}", f"{each.side_effect:.1f}"] for each in sliders]


def _example(label: Label) -> str:
    """A label and one of its values, as in Python."""
    return f'"{label.name}": ' + (f"{label.mean:.3g}" if isinstance(label, NumberLabel) else f'"{label.words[-1]}"')


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _metadata(
    name: str, run: RunConfig, rows: list[Measured], training: dict[str, Any], has_timelapse: bool
) -> ModelCardData:
    gallery = {SAMPLES_FILE: f"{SAMPLES_IN_CARD} samples, seed {SAMPLES_SEED}, not selected"}
    if FAMILIES[run.family].model.has_encoder:
        text = f"{RECONSTRUCTIONS_IN_CARD} of its samples, and below each the reconstruction"
        gallery[RECONSTRUCTIONS_FILE] = text
    gallery[SWEEP_FILE] = "Its first sample, moved along sliders from -3 to 3 standard deviations"
    if has_timelapse:
        gallery[TIMELAPSES[0]] = "Samples of the same noise during training"
    hub_dataset = None if is_local_dataset(run.data.dataset_name) else run.data.dataset_name
    dataset = run.data.place.rstrip("/")
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
                dataset_name=f"{dataset}, held-out images",
                metric_type=row.key,
                metric_name=row.title,
                metric_value=row.value,
            )
            for row in rows
        ],
        thumbnail=SAMPLES_FILE,
        widget=[{"text": text, "output": {"url": name}} for name, text in gallery.items()],
        co2_eq_emissions=training.get("co2_eq_emissions"),  # None is left out
        ignore_metadata_errors=False,
    )
