"""The command that fits labelled directions."""

import contextlib
import sys

from .arguments import RunFolder, recorded_data


def directions(
    folder: RunFolder, labels: list[str], train_data_dir: str | None = None, dataset_name: str | None = None
) -> None:
    """Fits directions of labels in latent space, and saves them in the model's folder for the Space.

    A direction is a linear probe on the latents of the training images. Its accuracy is measured on the held-out
    images. Run `hf-vae card` afterwards to add it to the card.

    Example: hf-vae directions runs/utkface-vae --labels age gender --train_data_dir utkface/

    Args:
        folder: Folder of a trained model with an encoder.
        labels: Label columns of the dataset, as `hf-vae inspect` lists them.
        train_data_dir: Location of the images that it was trained on (default: as in train_config.json).
        dataset_name: The same, for a preset or a dataset on the Hub.
    """
    from ..data.labels import load_labels
    from ..evaluation.evaluate import open_recorded
    from ..latents.directions import write_directions
    from ..latents.fit_directions import fit_directions
    from ..models.auto import AutoGenerator
    from ..publishing import cards, tables

    model = AutoGenerator.from_pretrained(folder)
    data = recorded_data(folder, train_data_dir, dataset_name)
    with contextlib.redirect_stdout(sys.stderr):
        splits = open_recorded(folder, data, model.config.image_size, model.config.image_channels)
    found = fit_directions(model, splits, {name: load_labels(data, name, splits) for name in labels})
    write_directions(folder, found)
    print(
        tables.markdown(["label", "from", "to", "balanced accuracy", "held-out images"], cards.direction_rows(found))
    )
