"""The command that aligns faces before training."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import tyro

from ..config import DataConfig
from ..ranges import limited


Share = Annotated[float | None, limited(least=0.05, most=0.95)]


def align(
    source: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="SOURCE")]],
    output: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUTPUT_FOLDER")]],
    size: Annotated[int | None, limited(least=16, most=4096)] = None,
    eye_distance: Share = None,
    eye_height: Share = None,
    max_beyond: Annotated[float, limited(least=0, most=1)] = 0.25,
    dataset_config_name: str | None = None,
    revision: str | None = None,
    dataset_split: str | None = None,
    image_column: str | None = None,
) -> None:
    """Crops and turns each face so that its eyes lie at the same places, and writes the faces to a new folder.

    Models of aligned faces generate whole faces more often. Train on them with --train_data_dir OUTPUT_FOLDER. Labels
    are kept. An image without a face is skipped. Of several faces in an image, the one that fills it or the largest is
    taken. The command needs the extra [landmarks].

    Example: hf-vae align photos/ aligned/ --size 128

    Args:
        source: A folder of images, a parquet file, a folder of parquet files, a preset, or the Hub id of a dataset.
        output: The folder to write. It must not exist, or be empty.
        size: Width and height of the aligned images, in pixels (default: that at which the median face keeps its size,
            at most 512).
        eye_distance: Distance between the eyes, as a share of the width (default: as in the median image; 0.35 for
            photos, in which the eyes of the median image are less than 0.2 apart).
        eye_height: Distance of the eyes from the top, as a share of the height (default: as in the median image; 0.42
            for photos).
        max_beyond: The largest share of an aligned image that may lie outside of its photo, whose mirrored edge is
            shown there. A face that needs more is skipped.
        dataset_config_name: Configuration of the Hub dataset, if it has several.
        revision: Branch, tag or commit of the Hub dataset. A preset has its own.
        dataset_split: Split to use, as in training.
        image_column: Column with the images. It is needed if there are several.
    """
    from ..data.align import align_faces
    from ..data.sources import name_of_place

    settings = DataConfig(
        **name_of_place(source),
        dataset_split=dataset_split,
        dataset_config_name=dataset_config_name,
        revision=revision,
        image_column=image_column,
    )
    with contextlib.redirect_stdout(sys.stderr):
        done = align_faces(settings, output, size, eye_distance, eye_height, max_beyond)
    print(done)
    print(f"Wrote {output}. Train on it with --train_data_dir {output}")
