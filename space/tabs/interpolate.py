"""The tab that turns one picture into another."""

import tempfile
from functools import partial
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

import checks
from animation import save_loop
from published import PublishedModel
from tabs import MODEL_EVENT, PICTURE, THUMBNAILS, UPLOAD


MIN_FRAMES, MAX_FRAMES = 4, 60
PATHS = {"straight line (lerp)": "lerp", "great circle (slerp)": "slerp"}


def interpolate(
    models: dict[str, PublishedModel],
    start: dict | None,
    end: dict | None,
    model: str,
    frames: int,
    path: str,
    progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio is told to pass one)
) -> tuple[list[tuple[Image.Image, str]], str]:
    """Morphs from one picture to another: all frames with captions, and an endless animation there and back."""
    pipeline = checks.choice("The model", model, models).pipeline
    frames = checks.whole_number("The number of frames", frames, MIN_FRAMES, MAX_FRAMES)
    kind = checks.choice("The path", path, {kind: kind for kind in PATHS.values()})
    pictures = [checks.picture("The first picture", start), checks.picture("The second picture", end)]
    progress(0.1, "Walking through latent space")
    images = pipeline.interpolate(*pictures, frames, kind).images
    progress(0.6, "Writing the animation")
    # inside Gradio's cache, because what lies there is deleted with it
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    animation = Path(tempfile.mkdtemp(dir=get_upload_folder())) / "morph.webp"
    save_loop(images, animation)
    return [(image, f"Frame {number} of {frames}") for number, image in enumerate(images, 1)], str(animation)


def build(models: dict[str, PublishedModel]) -> None:
    """Adds the tab; `models` all have an encoder."""
    with gr.Tab("Interpolate", id="interpolate"):
        gr.Markdown("Both pictures become points in latent space; every point between them is a picture, too.")
        with gr.Row():
            start, end = (
                gr.Image(label=label, height=240, min_width=140, elem_id=elem_id, **UPLOAD)
                for label, elem_id in (("From", "start-upload"), ("To", "end-upload"))
            )
        with gr.Row():
            model = gr.Dropdown(list(models), label="Model")
            frames = gr.Slider(MIN_FRAMES, MAX_FRAMES, 24, step=1, label="Frames")
            path = gr.Radio(list(PATHS.items()), value="lerp", label="Path")
        button = gr.Button("Morph", variant="primary", elem_id="morph")
        with gr.Row(equal_height=False):
            alt_text = "Animation from the first picture to the second and back"
            animation = gr.Image(label="There and back", alt_text=alt_text, elem_id="animation", **PICTURE)
            strip = gr.Gallery(label="Film strip", elem_id="strip", scale=2, **THUMBNAILS)
    button.click(
        partial(interpolate, models),
        [start, end, model, frames, path],
        [strip, animation],
        api_name="interpolate",
        api_description=interpolate.__doc__,
        **MODEL_EVENT,
    )
