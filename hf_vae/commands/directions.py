"""The command that finds where labels lie in a model's latent space."""

import contextlib
import sys

from .arguments import RunFolder, recorded_data


def directions(
    folder: RunFolder, labels: list[str], train_data_dir: str | None = None, dataset_name: str | None = None
) -> None:
    """Learns directions of latent space from labels, and keeps them in the model's folder for the Space.

    Each is a linear probe on the latents of the training pictures, measured on those that were held out. Run
    `hf-vae card` afterwards: the card says how good they are.

    Example: hf-vae directions runs/utkface-vae --labels age gender --train_data_dir utkface/

    Args:
        folder: Folder of a trained model with an encoder.
        labels: Columns of the data, as `hf-vae data inspect` lists them.
        train_data_dir: Where the pictures that it was trained on lie; as in train_config.json if left out.
        dataset_name: The same for a preset or a dataset on the Hub.
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
        tables.markdown(["label", "from", "to", "balanced accuracy", "held-out pictures"], cards.direction_rows(found))
    )
