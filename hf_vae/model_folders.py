"""Where the files of a model lie, here or on the Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError


def model_folder(model: str) -> Path:
    """The folder that `model` names, or a download of the Hub id that it is: weights, configuration and JSON files.

    Raises:
        ValueError: If it is neither.
    """
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, HFValidationError) as error:
        raise ValueError(f"{model} is neither a model folder here nor a model that the Hub gives. {error}") from error
