"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import tyro


Model = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
Models = tyro.conf.Positional[Annotated[list[str], tyro.conf.arg(metavar="MODEL [MODEL ...]")]]
RunFolder = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]]
PictureFile = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="PICTURE")]]
PictureFiles = tyro.conf.Positional[Annotated[list[Path], tyro.conf.arg(metavar="PICTURE [PICTURE ...]")]]
AsJson = Annotated[bool, tyro.conf.arg(name="json")]  # `json` itself is the module
