"""Checks what visitors and API callers send. Each function returns a valid value or raises a one-sentence error."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, TypeVar

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from hf_vae.models.priors import CODE
from published import OWN_NAMES, Models, PublishedModel
from uploads import UploadError, open_upload


MAX_SEED = 2**32 - 1
MAX_TEMPERATURE = 2.0
MAX_GUIDANCE = 10.0
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)  # such as https: or data:

Chosen = TypeVar("Chosen")


def number(name: str, value: Any, lowest: float, highest: float) -> float:
    """A finite number from `lowest` to `highest`."""
    if not _is_number(value) or not lowest <= value <= highest:  # NaN is in no range
        raise refusal(f"{name} is {short_repr(value)}; it must be a number from {lowest} to {highest}.")
    return float(value)


def whole_number(name: str, value: Any, lowest: int, highest: int) -> int:
    """A whole number from `lowest` to `highest`; 7.0 is accepted."""
    if not _is_number(value) or not lowest <= value <= highest or value != int(value):
        raise refusal(f"{name} is {short_repr(value)}; it must be a whole number from {lowest} to {highest}.")
    return int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def choice(name: str, value: Any, choices: Mapping[str, Chosen]) -> Chosen:
    """The entry of `choices` that `value` names."""
    if isinstance(choices, Models) and isinstance(value, str) and value not in choices and OWN_NAMES.fullmatch(value):
        raise refusal("Your model was kept for an hour, which is over. Train it again, or choose another model.")
    if not isinstance(value, str) or value not in choices:
        raise refusal(f"{name} is {short_repr(value)}; it must be one of: {', '.join(choices)}.")
    return choices[value]


def prior(model: PublishedModel, value: Any) -> str:
    """The prior to sample latents from: one that the model has, or the model's default for "own"."""
    return choice("The prior", value, {"own": model.priors[0]} | {name: name for name in model.priors})


def guidance(value: Any) -> float | None:
    """The strength of a flow's network, or None for the model's own."""
    return None if value is None else number("The guidance", value, 0, MAX_GUIDANCE)


def rest_temperature(model: PublishedModel, prior: str, value: Any) -> float | None:
    """The temperature of what the code of a model does not say, or None for the model's own and for a prior without a
    code."""
    if value is None:
        return None
    if model.rest_temperature is None:
        raise refusal(f"The model {model.name} has no code; leave the rest temperature empty.")
    chosen = number("The rest temperature", value, 0, MAX_TEMPERATURE)
    return chosen if prior == CODE else None


def labels(model: PublishedModel, value: Any, prior: str) -> dict[str, str]:
    """The labels that samples should have, from text such as "age=60, gender=female". Empty if none are asked for."""
    if value is None or value == "":
        return {}
    if not model.labels:
        raise refusal(f"The model {model.name} has no labels to sample by; leave them empty.")
    wanted = dict(pairs("The labels", value, "age=60, gender=female"))
    known = {label.name: label for label in model.labels}
    for name, text in wanted.items():
        label = choice("The name of a label", name, known)
        try:
            label.features(text)
        except ValueError as reason:
            raise refusal(str(reason)) from None
    if prior != CODE:
        raise refusal(f"Samples with labels need the prior {CODE}; the prior {prior} has no code.")
    return wanted


def pairs(name: str, value: Any, example: str) -> list[tuple[str, str]]:
    """The names and values in text such as "age=60, gender=female", each name once; a part with a comma is in double
    quotes."""
    try:
        parts = next(csv.reader([value], skipinitialspace=True, strict=True)) if isinstance(value, str) else [""]
    except (csv.Error, StopIteration):
        parts = [""]
    found = [(left.strip(), right.strip()) for left, _, right in (part.partition("=") for part in parts)]
    if len({left for left, _ in found}) < len(found) or not all(left and right for left, right in found):
        raise refusal(f"{name} are {short_repr(value)}; write them as in {example}.")
    return found


def as_number(text: str) -> float | str:
    """The number in a text, or the text itself, which is refused later by its name."""
    try:
        return float(text)
    except ValueError:
        return text


def picture(name: str, upload: Mapping[str, Any] | None) -> Image.Image:
    """The image in an uploaded file."""
    if not upload or not upload.get("path"):
        raise refusal(f"{name} is missing; upload an image first.")
    try:
        return open_upload(uploaded_file(name, upload))
    except UploadError as reason:
        raise refusal(str(reason)) from None


def uploaded_file(name: str, upload: Mapping[str, Any]) -> Path:
    """The path of a file that was uploaded, or that this Space generated."""
    named = upload.get("path") if isinstance(upload, Mapping) else None
    if isinstance(named, str) and ADDRESS.match(named):
        raise refusal(f"{name} was not uploaded. URLs are not fetched: download the image and upload the file.")
    try:
        # Gradio 6.31 checks this only for files sent with a "meta" entry, and fetches files that are URLs
        path = Path(named)
        is_ours = path.is_file() and path.resolve().is_relative_to(Path(get_upload_folder()).resolve())
    except (TypeError, OSError, ValueError, RuntimeError):
        is_ours = False  # not text, a zero byte, too long, a loop of links
    if not is_ours:
        raise refusal(f"{name} was not uploaded; upload the file first.")
    return path


def refusal(sentence: str) -> gr.Error:
    """An error that is shown to the sender and leaves no traceback in the server's log."""
    return gr.Error(sentence, print_exception=False)
