"""One module for each tab: its widgets and callbacks. Here is what they share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

import checks
from hf_vae.models.priors import PRIORS
from published import PublishedModel


try:  # on a ZeroGPU Space: a function gets the GPU while it runs
    import spaces

    with_gpu = spaces.GPU
except ImportError:

    def with_gpu(function: Callable) -> Callable:
        """Elsewhere there is one, or there is none, all the time."""
        return function


# One model runs at a time. Gradio's own preprocessing is off: it opens an upload before `uploads` can refuse it, and
# answers a broken one with a bare "Error". Every value goes through `checks` instead.
MODEL_EVENT = {"concurrency_id": "model", "concurrency_limit": 1, "preprocess": False}
INTERNAL_EVENT = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

# Gradio's own format, WebP, is lossy, and sharpness is what people come to compare
UPLOAD = {"format": "png", "sources": ["upload", "clipboard", "webcam"]}
PICTURE = {"format": "png", "interactive": False, "buttons": ["download"], "elem_classes": "pixelated"}
GALLERY = {"format": "png", "interactive": False, "height": "auto", "object_fit": "contain", "buttons": ["download"]}
THUMBNAILS = GALLERY | {"columns": 8, "elem_classes": ["pixelated", "thumbnails"]}

OWN_PRIOR = ("as the model was made for", "own")


def model_event(function: Callable, shown: Any, api_name: str | None = None) -> dict[str, Any]:
    """The options of an event that runs a model: `function` with what is `shown` as its first argument. It is part of
    the API if it has an `api_name`."""
    api = {"api_name": api_name} if api_name else {"api_visibility": "private"}
    return {"fn": with_gpu(partial(function, shown)), "api_description": function.__doc__, **api, **MODEL_EVENT}


def prior_choices(priors: list[str]) -> list[tuple[str, str]]:
    """What a dropdown offers for a model that has these priors."""
    return [OWN_PRIOR, *((PRIORS[prior].title, prior) for prior in priors)]


def own_prior(models: dict[str, PublishedModel], model: str) -> gr.Dropdown:
    """The priors of a model that was just chosen, with its own one chosen."""
    return gr.Dropdown(prior_choices(checks.choice("The model", model, models).priors), value="own")
