"""The tab that shows what a model keeps of a picture."""

from functools import partial

import gradio as gr
from PIL import Image

import checks
from hf_vae.metrics import laplacian_variance, psnr
from published import PublishedModel
from tabs import MODEL_EVENT, PICTURE, UPLOAD


def reconstruct(
    models: dict[str, PublishedModel], picture: dict | None, model: str
) -> tuple[Image.Image, Image.Image, float, float, float]:
    """Encodes and decodes a picture: what the model sees, what it makes of it, the peak signal-to-noise ratio in dB,
    and the sharpness (variance of the Laplacian) of the two."""
    chosen = checks.choice("The model", model, models)
    upload = checks.picture("The picture", picture)
    output = chosen.pipeline.reconstruct(upload)
    seen = chosen.pipeline.to_images([upload])
    return (
        chosen.pipeline.prepare(upload),
        output.images[0],
        round(psnr(output.tensors, seen).item(), 2),
        round(laplacian_variance(seen).item(), 1),
        round(laplacian_variance(output.tensors).item(), 1),
    )


def build(models: dict[str, PublishedModel]) -> None:
    """Adds the tab; `models` all have an encoder."""
    with gr.Tab("Reconstruct", id="reconstruct"):
        gr.Markdown("The model turns your picture into a short list of numbers and draws it again from these alone.")
        with gr.Row(equal_height=False):
            with gr.Column():
                picture = gr.Image(label="Your picture", height=320, elem_id="reconstruct-upload", **UPLOAD)
                model = gr.Dropdown(list(models), label="Model")
                button = gr.Button("Reconstruct", variant="primary")
            with gr.Column():
                with gr.Row():
                    seen, reconstructed = (
                        gr.Image(label=label, alt_text=label, min_width=120, elem_id=elem_id, **PICTURE)
                        for label, elem_id in (("Input, as seen", "seen"), ("Reconstruction", "reconstructed"))
                    )
                similarity = gr.Number(label="Similarity (PSNR, dB)", interactive=False, info="Higher is closer")
                with gr.Row():
                    sharpness_seen, sharpness_reconstructed = (
                        gr.Number(label=label, interactive=False, min_width=120, info="Variance of the Laplacian")
                        for label in ("Sharpness, as seen", "Sharpness, reconstructed")
                    )
    gr.on(
        [picture.upload, button.click],
        partial(reconstruct, models),
        [picture, model],
        [seen, reconstructed, similarity, sharpness_seen, sharpness_reconstructed],
        api_name="reconstruct",
        api_description=reconstruct.__doc__,
        **MODEL_EVENT,
    )
