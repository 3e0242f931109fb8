"""The command that looks at pictures before anyone trains on them."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..config import DataConfig
from .arguments import AsJson
from .picture_files import refuse_output, save_picture


def data(
    action: tyro.conf.Positional[Literal["inspect"]],
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
    """Shows what a set of images holds, before training: sizes, copies, broken files, what is left out, labels.

    Example: hf-vae data inspect photos/ --sheet photos.png

    Args:
        action: What to do; there is only inspect.
        source: A folder of images, a parquet file or a folder of them; or a preset or Hub id of a dataset. A folder
            that holds archives is read as a dataset, as with --dataset_name.
        dataset_config_name: Configuration of the Hub dataset, where it has several.
        revision: Branch, tag or commit of the Hub dataset; a preset brings its own.
        dataset_split: Split to use, as in training.
        image_column: Column that holds the images; found by itself where there is only one.
        crop_box: Left, top, right and bottom of the part of each picture that is used, as in training.
        sheet: File to draw 64 pictures into, evenly spread over the set and cut as in training.
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
