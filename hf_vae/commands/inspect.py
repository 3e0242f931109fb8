"""The command that inspects a dataset before training."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from ..config import DataConfig
from .arguments import AsJson
from .picture_files import refuse_output, save_picture


def inspect(
    source: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="SOURCE")]],
    dataset_config_name: str | None = None,
    revision: str | None = None,
    dataset_split: str | None = None,
    image_column: str | None = None,
    crop_box: tuple[int, int, int, int] | None = None,
    sheet: Path | None = None,
    as_json: AsJson = False,
    overwrite: bool = False,
) -> None:
    """Reports what a dataset contains: image sizes, copies, broken files, what is left out, and labels.

    Example: hf-vae inspect photos/ --sheet photos.png

    Args:
        source: A folder of images, a parquet file, a folder of parquet files, a preset, or the Hub id of a dataset. A
            folder with archives is read as a dataset, as with --dataset_name.
        dataset_config_name: Configuration of the Hub dataset, if it has several.
        revision: Branch, tag or commit of the Hub dataset. A preset has its own.
        dataset_split: Split to use, as in training.
        image_column: Column with the images. It is needed if there are several.
        crop_box: Left, top, right and bottom edge of the crop, in pixels, as in training.
        sheet: File for a contact sheet: 64 images, evenly spread over the dataset and cropped as in training.
        as_json: Print JSON.
        overwrite: Replace the sheet if it exists.
    """
    from ..data import inspection
    from ..data.sources import name_of_place
    from ..pictures import refuse_crop_box

    refuse_crop_box(crop_box)
    if sheet:
        refuse_output(sheet, overwrite, "--sheet")
    settings = DataConfig(
        **name_of_place(source),
        dataset_split=dataset_split,
        dataset_config_name=dataset_config_name,
        revision=revision,
        image_column=image_column,
        crop_box=crop_box,
    )
    with contextlib.redirect_stdout(sys.stderr):
        findings = inspection.inspect_pictures(settings)
        if sheet and findings.examples:
            save_picture(inspection.contact_sheet(findings), sheet)
    print(json.dumps(findings.to_dict(), indent=2) if as_json else findings)
