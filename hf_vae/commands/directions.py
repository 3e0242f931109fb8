"""The command that finds directions of latent space that mean something: those of labels, and named sliders."""

import contextlib
import sys
from pathlib import Path

from .arguments import RunFolder, recorded_data


def directions(
    folder: RunFolder,
    labels: tuple[str, ...] = (),
    named_sliders: bool = False,
    train_data_dir: str | None = None,
    dataset_name: str | None = None,
) -> None:
    """Fits directions of labels and sliders that change one thing, and saves both in the model's folder for the Space.

    A linear probe tells the sides of a label apart. Its accuracy is measured on the held-out images. In a model with a
    code, the command also fits the code given the labels, for `hf-vae sample --label`. It then measures how often
    samples have what was asked for, by another probe on EfficientNet features, and adds this to metrics.json. Run
    `hf-vae card` afterwards to add all of it to the card.

    With --named_sliders, the command fits a slider for each thing that can be measured in samples, such as the turn of
    a head, a smile or the side of the light. It keeps those that change one thing alone in other samples. This needs
    the extra [landmarks], and no images.

    Example: hf-vae directions runs/utkface-vae --labels age gender --train_data_dir utkface/

    Args:
        folder: Folder of a trained model; labels need an encoder.
        labels: Label columns of the dataset, as `hf-vae inspect` lists them.
        named_sliders: Fit sliders that change one thing, and check them.
        train_data_dir: Location of the images that it was trained on (default: as in train_config.json).
        dataset_name: The same, for a preset or a dataset on the Hub.
    """
    if not (labels or named_sliders):
        raise ValueError("There is nothing to learn: pass --labels, --named_sliders or both.")
    if labels:
        _fit_labels(folder, labels, train_data_dir, dataset_name)
    if named_sliders:
        _fit_sliders(folder)


def _fit_sliders(folder: Path) -> None:
    from ..evaluation.named_sliders import fit_sliders
    from ..hardware import device_to_use
    from ..latents.sliders import write_sliders
    from ..pipeline import ImagePipeline
    from ..publishing import tables

    sliders, measures, found = fit_sliders(ImagePipeline.from_pretrained(folder).to(device_to_use()))
    write_sliders(folder, sliders)
    kept = {each.name for each in sliders}
    cells = [
        [
            measure.name,
            "yes" if measure.name in kept else "no",
            f"{found.own(row):.1f}",
            f"{found.largest_other(row):.1f}",
        ]
        for row, measure in enumerate(measures)
    ]
    print(tables.markdown(["slider", "kept", "effect", "largest other effect"], cells))


def _fit_labels(folder: Path, labels: tuple[str, ...], train_data_dir: str | None, dataset_name: str | None) -> None:
    from ..data.labels import load_labels
    from ..evaluation import features
    from ..evaluation.evaluate import open_recorded
    from ..evaluation.labels import measure_labels, save_label_measures
    from ..evaluation.titles import measured_labels
    from ..hardware import device_to_use
    from ..latents.directions import write_directions
    from ..latents.fit_directions import fit_directions, fit_labelled_codes
    from ..models.auto import AutoGenerator
    from ..pipeline import ImagePipeline
    from ..publishing import cards, tables
    from ..run_folder import METRICS_FILE

    model = AutoGenerator.from_pretrained(folder).to(device_to_use())
    pipeline = ImagePipeline(model)
    network = features.open_features(features.EfficientNetFeatures.name) if pipeline.has_code else None
    data = recorded_data(folder, train_data_dir, dataset_name)
    with contextlib.redirect_stdout(sys.stderr):
        splits = open_recorded(folder, data, model.config.image_size, model.config.image_channels)
    columns = {name: load_labels(data, name, splits) for name in labels}
    found = fit_directions(model, splits, columns)
    pipeline.codes = fit_labelled_codes(model, splits, columns) if pipeline.has_code else None
    write_directions(folder, found, pipeline.codes)
    print(
        tables.markdown(["label", "from", "to", "balanced accuracy", "held-out images"], cards.direction_rows(found))
    )
    if network is None:
        return
    print()
    measures, sliders = measure_labels(pipeline, splits, columns, found, network)
    print(
        tables.markdown(["measure", "value"], [[row.title, f"{row.value:.4g}"] for row in measured_labels(measures)])
    )
    print()
    cells = [
        [each.direction.name, each.direction.low, each.direction.high, f"{each.flips:.3f}", f"{each.change:.3f}"]
        for each in sliders
    ]
    print(tables.markdown(["label", "from", "to", "share that changes sides at +2", "change of features"], cells))
    if (folder / METRICS_FILE).is_file():
        save_label_measures(measures, folder)
    else:
        print(f"{folder} has no {METRICS_FILE}, so these measures are not stored.", file=sys.stderr)
