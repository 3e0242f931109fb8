"""The tab that morphs one image into another."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short_repr

import gradio as gr
import torch
from gradio.utils import get_upload_folder
from PIL import Image

import checks
from animation import FORMATS, save_loop, side_by_side
from faces import crop_to_face
from hf_vae.models.priors import PATHS as PATH_KINDS
from hf_vae.models.priors import PRIORS
from published import PublishedModel
from tabs import INTERNAL_EVENT, PICTURE, THUMBNAILS, UPLOAD, model_event


MIN_FRAMES, MAX_FRAMES = 4, 60
MAX_SPEED = 30
MAX_MODELS = 4
OWN = "own"  # the default path of each model
PATHS = {"the model's own": OWN, "straight line (lerp)": "lerp", "great circle (slerp)": "slerp"}
PATHS |= {f"through the {kind}": kind for kind in PATH_KINDS if kind in PRIORS}


def interpolate(
    opened: dict[str, PublishedModel],
    models: list[str] | str,
    start: dict | None,
    end: dict | None,
    start_seed: int,
    end_seed: int,
    path: str,
    frames: int,
    speed: int,
    file_format: str,
    progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio passes one for this default)
) -> tuple[list[tuple[Image.Image, str]], str, str]:
    """Morphs from one image to another with up to four models side by side. Without images, morphs between the samples
    of two seeds. Returns all frames with captions, an endless WebP animation that plays forwards and backwards, and
    the same animation in the requested file format. A model without an encoder searches for the images, which takes
    several seconds."""
    names = [models] if isinstance(models, str) else models
    if not isinstance(names, list):
        raise checks.refusal(f"The models are {short_repr(models)}; they must be a list of names.")
    if not 1 <= len(names) <= MAX_MODELS:
        raise checks.refusal(f"Choose 1 to {MAX_MODELS} models; {len(names)} are chosen.")
    kind = checks.choice("The path", path, {kind: kind for kind in PATHS.values()})
    walkers = [_walker(checks.choice("The model", name, opened), kind) for name in names]
    path_kind = None if kind == OWN else kind
    frames = checks.whole_number("The number of frames", frames, MIN_FRAMES, MAX_FRAMES)
    speed = checks.whole_number("The speed", speed, 1, MAX_SPEED)
    file_format = checks.choice("The file format", file_format, {name: name for name in FORMATS})
    ends = _ends(start, end, start_seed, end_seed)
    rows = []
    for number, model in enumerate(walkers):

        def report(done: float, before: int = number, name: str = model.name) -> None:
            progress((before + done) / len(walkers), f"Interpolating with {name}")

        report(0)
        rows.append(model.pipeline.interpolate_latents(_latents(model, ends, report), frames, path_kind).images)
    images = [side_by_side(list(row)) for row in zip(*rows, strict=True)]
    progress(1.0, "Writing the animation")
    shown, asked_for = (_new_file(f"morph.{ending}") for ending in ("webp", file_format))
    save_loop(images, shown, speed)
    save_loop(images, asked_for, speed)
    captions = (f"{', '.join(names)}: frame {number} of {frames}" for number in range(1, frames + 1))
    return list(zip(images, captions, strict=True)), str(shown), str(asked_for)


def _walker(model: PublishedModel, kind: str) -> PublishedModel:
    if kind in PRIORS and kind not in model.priors:
        raise checks.refusal(f"The model {model.name} has no {kind} prior; choose another path, or remove the model.")
    return model


def _ends(start: dict | None, end: dict | None, start_seed: int, end_seed: int) -> list[Image.Image] | list[int]:
    if start or end:
        return [checks.picture("The first image", start), checks.picture("The second image", end)]
    seeds = {"The first seed": start_seed, "The second seed": end_seed}
    return [checks.whole_number(name, seed, 0, checks.MAX_SEED) for name, seed in seeds.items()]


def _latents(
    model: PublishedModel, ends: list[Image.Image] | list[int], report: Callable[[float], None]
) -> torch.Tensor:
    """The latents `(2, Z)` of the two ends."""
    if isinstance(ends[0], int):
        return torch.cat([model.pipeline.sample(1, seed).latents for seed in ends])
    pictures = [crop_to_face(picture, model.data_set) or picture for picture in ends]
    return model.pipeline.encode(pictures) if model.has_encoder else model.pipeline.invert(pictures, report=report)


def _new_file(name: str) -> Path:
    # in Gradio's cache, which is emptied regularly
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=get_upload_folder())) / name


def frame_at(place: float, strip: list | None) -> str | None:
    """The frame of the film strip at `place`, from 0 to 100."""
    if not strip:
        return None
    place = checks.number("The position", place, 0, 100)
    return strip[round(place / 100 * (len(strip) - 1))][0]


def build(models: dict[str, PublishedModel]) -> None:
    """Adds the tab."""
    encoders = [name for name, model in models.items() if model.has_encoder]
    with gr.Tab("Morph two photos", id="morph"):
        gr.Markdown(
            "Each of two images becomes a point in latent space, and every point between the two decodes to an image. "
            "Leave both images empty to morph between two random samples."
        )
        with gr.Row():
            start, end = (
                gr.Image(label=label, height=240, min_width=140, elem_id=elem_id, **UPLOAD)
                for label, elem_id in (("From", "start-upload"), ("To", "end-upload"))
            )
        with gr.Row():
            chosen = gr.Dropdown(
                list(models),
                value=(encoders or list(models))[:1],
                multiselect=True,
                max_choices=MAX_MODELS,
                label="Models",
            )
            path = gr.Radio(list(PATHS.items()), value=OWN, label="Path")
        with gr.Accordion("Seeds, frames, speed and file format", open=False), gr.Row():
            start_seed = gr.Number(0, label="Seed of the first sample", precision=0, min_width=100)
            end_seed = gr.Number(1, label="Seed of the second sample", precision=0, min_width=100)
            frames = gr.Slider(MIN_FRAMES, MAX_FRAMES, 24, step=1, label="Frames")
            speed = gr.Slider(1, MAX_SPEED, 16, step=1, label="Frames per second")
            file_format = gr.Dropdown(list(FORMATS), value="mp4", label="Format of the download")
        with gr.Row():
            button = gr.Button("Morph", variant="primary", elem_id="morph")
            stop = gr.Button("Stop", elem_id="stop-morph")
        with gr.Row(equal_height=False):
            with gr.Column():
                alt_text = "Animation from the first image to the second and back"
                animation = gr.Image(label="Animation", alt_text=alt_text, elem_id="animation", **PICTURE)
                download = gr.DownloadButton("Download the animation", elem_id="download-morph")
            with gr.Column():
                frame = gr.Image(label="Frame", alt_text="One frame", elem_id="frame", **PICTURE)
                place = gr.Slider(0, 100, 50, step=1, label="Position, %", elem_id="position")
        strip = gr.Gallery(label="Film strip", elem_id="strip", **THUMBNAILS)
    settings = [chosen, start, end, start_seed, end_seed, path, frames, speed, file_format]
    walking = button.click(
        inputs=settings,
        outputs=[strip, animation, download],
        **model_event(interpolate, models, "interpolate"),
    )
    walking.then(frame_at, [place, strip], frame, **INTERNAL_EVENT)
    place.input(frame_at, [place, strip], frame, trigger_mode="always_last", **INTERNAL_EVENT)
    stop.click(None, cancels=[walking], **INTERNAL_EVENT)
