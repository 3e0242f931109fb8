"""The tabs, one module each with its widgets and callbacks. This file has what they share."""

import inspect
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

import checks
from hf_vae.models.priors import PRIORS
from published import PublishedModel, data_set_title


try:  # on a ZeroGPU Space a function gets the GPU while it runs
    import spaces

    with_gpu = spaces.GPU
except ImportError:

    def with_gpu(function: Callable) -> Callable:
        """Returns `function` unchanged: elsewhere a GPU is always available, or never."""
        return function


# One model runs at a time. Gradio's preprocessing is off: it would open an upload before `uploads` can refuse it, and
# report a damaged one as a bare "Error". `checks` validates every value instead.
MODEL_EVENT = {"concurrency_id": "model", "concurrency_limit": 1, "preprocess": False}
INTERNAL_EVENT = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

# Gradio's default format, WebP, is lossy, and visitors compare sharpness
UPLOAD = {"format": "png", "sources": ["upload", "clipboard", "webcam"]}
PICTURE = {"format": "png", "interactive": False, "buttons": ["download"], "elem_classes": "pixelated"}
GALLERY = {"format": "png", "interactive": False, "height": "auto", "object_fit": "contain", "buttons": ["download"]}
THUMBNAILS = GALLERY | {"columns": 8, "elem_classes": ["pixelated", "thumbnails"]}

OWN_PRIOR = ("default", "own")


# What the parameters of endpoints are. Gradio describes them to language models, which call the endpoints over MCP.
PARAMETERS = {
    "model": "The name of a model; an error lists the names",
    "models": "The names of one to four models",
    "data_set": "The name of a dataset, such as cats; an error lists the names",
    "count": "How many images, 1 to 64",
    "seed": "A whole number from 0 to 4294967295; the same seed gives the same images",
    "temperature": "0 to 2; lower is more typical, higher is more varied",
    "prior": "The distribution that latents are sampled from; own is the model's default",
    "labels": "What samples are asked for, such as age=60, gender=female, where the model has labels; empty for none",
    "guidance": "0 to 10, for models with a flow; higher is more typical; none for the model's own",
    "rest_temperature": "0 to 2, for models with a code; lower is softer and more often whole; none for its own",
    "picture": "An uploaded image; where it may be missing, a sample takes its place",
    "cut": "How the image is cropped: face, centre (the largest square) or none (the whole image)",
    "start": "An uploaded image to start from; without images, samples of two seeds are used",
    "end": "An uploaded image to end with",
    "start_seed": "The seed of the sample to start from, if there are no images",
    "end_seed": "The seed of the sample to end with, if there are no images",
    "path": "The path through latent space; own is each model's default, others are lerp, slerp, code and flow",
    "frames": "The number of frames, 4 to 60",
    "speed": "Frames per second, 1 to 30",
    "file_format": "The format of the animation: mp4, gif or webp",
    "sliders": "Names of sliders with positions from -3 to 3, as in smile=2, component 3=-1; an error lists the names",
    "image": "The number of the sample among those of the seed, 1 to 64",
}
PARAMETERS |= {f"component_{each}": f"The shift along principal component {each}, -3 to 3" for each in range(1, 11)}
PARAMETERS |= {f"label_{each}": f"The shift along labelled direction {each}, -3 to 3" for each in range(1, 5)}


def described(function: Callable) -> str:
    """The docstring of an endpoint with a section on its parameters, as Gradio reads it: one line for each."""
    _, *names = (name for name in inspect.signature(function).parameters if name != "progress")
    return "\n".join(
        [inspect.getdoc(function) or "", "", "Args:", *(f"    {each}: {PARAMETERS[each]}" for each in names)]
    )


def model_event(function: Callable, shown: Any, api_name: str | None = None) -> dict[str, Any]:
    """The options of an event that runs a model. `shown` is passed to `function` as the first argument. The event is
    part of the API if it has an `api_name`."""
    api = {"api_name": api_name} if api_name else {"api_visibility": "private"}
    call = partial(function, shown)
    if api_name:
        call.__name__, call.__doc__ = api_name, described(function)  # type: ignore[attr-defined]  # a tool's, over MCP
    return {"fn": with_gpu(call), **api, **MODEL_EVENT}


def new_folder() -> Path:
    """A new folder in Gradio's cache, which is emptied regularly."""
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=get_upload_folder()))


def api_endpoint(function: Callable, shown: Any, api_name: str, inputs: list, outputs: Any) -> None:
    """Adds an endpoint for programs alone: the page calls something else."""
    gr.Button(visible=False).click(inputs=inputs, outputs=outputs, **model_event(function, shown, api_name))


def model_choices(models: dict[str, PublishedModel], own: Iterable[str] = ()) -> list[tuple[str, str]]:
    """The choices of a dropdown of models: a title for visitors, the name for programs. Two models with one title are
    told apart by their names. `own` names models that the visitor has trained, which come first. Those that are no
    longer kept, and those that `models` leaves out, are skipped, so that a name may be empty too."""
    offered = {name: models[name] for name in own if name in models} | dict(models)
    titles = Counter(model.title for model in offered.values())
    return [
        (model.title if titles[model.title] == 1 else f"{model.title} ({name})", name)
        for name, model in offered.items()
    ]


def shown_title(models: dict[str, PublishedModel], name: str) -> str:
    """What visitors read for a model, also for one that a visitor has trained: its title as in `model_choices`."""
    return model_choices(models, [name])[0][0]


def data_set_choices(groups: Iterable[str]) -> list[tuple[str, str]]:
    """The choices of a dropdown of datasets: a title for visitors, the name for programs."""
    return [(data_set_title(name), name) for name in groups]


def prior_choices(priors: list[str]) -> list[tuple[str, str]]:
    """The choices of a dropdown for a model with these priors."""
    return [OWN_PRIOR, *((PRIORS[prior].title, prior) for prior in priors)]


def own_prior(models: dict[str, PublishedModel], model: str) -> gr.Dropdown:
    """Offers the priors of a newly chosen model and selects its default."""
    return gr.Dropdown(prior_choices(checks.choice("The model", model, models).priors), value="own")
