"""The tab that reconstructs an image with every model."""

import gradio as gr
import pandas as pd
from PIL import Image

import checks
from animation import enlarge
from faces import crop_to_face, whole_picture
from hf_vae.evaluation.metrics import laplacian_variance, mse, psnr, ssim
from hf_vae.pictures import square_picture
from published import PublishedModel, by_data_set
from tabs import PICTURE, UPLOAD, model_event


CUTS = {"face, if one is found": "face", "largest centred square": "centre", "whole image": "none"}
COLUMNS = ["model", "MSE", "PSNR, dB", "SSIM", "relative sharpness", "latents / values"]
COLUMN_WIDTHS = ["165px", "95px", "95px", "95px", "125px", "145px"]  # narrow enough for numbers on a phone


def crop_face(groups: dict[str, list[PublishedModel]], picture: dict | None, data_set: str, cut: str) -> tuple:
    """Crops an image as the images of a dataset were cropped. `cut` is "face" (the face, or the largest centred square
    if no face is found), "centre" (the largest centred square) or "none" (the whole image). Returns the image at the
    models' resolution, and a sentence on the crop."""
    models = checks.choice("The dataset", data_set, groups)
    upload, sentence = _cut(checks.picture("The image", picture), data_set, cut)
    return enlarge(models[0].pipeline.prepare(upload)), sentence


def reconstruct(groups: dict[str, list[PublishedModel]], picture: dict | None, data_set: str, cut: str) -> list:
    """Reconstructs an image with every model of a dataset. A model with residual latents also reconstructs it without
    them. Returns the input and the reconstruction for each, and a table. The table has mean squared error (values in
    [-1, 1]), peak signal-to-noise ratio, structural similarity, and the sharpness of the reconstruction relative to
    the input (variance of the Laplacian). It also has the number of latents and of pixel values."""
    models = checks.choice("The dataset", data_set, groups)
    upload, _ = _cut(checks.picture("The image", picture), data_set, cut)
    pairs, rows = [], []
    for model in models:
        seen = model.pipeline.to_images([upload])
        for (name, output), num_latents in zip(
            model.reconstructions(upload).items(), model.latent_counts, strict=True
        ):
            pairs.append((enlarge(model.pipeline.prepare(upload)), enlarge(output.images[0])))
            sharpness = laplacian_variance(output.tensors) / laplacian_variance(seen).clamp(min=1e-6)
            values = (mse(output.tensors, seen), psnr(output.tensors, seen), ssim(output.tensors, seen), sharpness)
            rows.append([name, *(f"{value.item():.4g}" for value in values), f"{num_latents} / {seen.numel()}"])
    sliders = [
        gr.ImageSlider(value=pair, label=f"{name}: input | reconstruction", visible=True)
        for (name, *_), pair in zip(rows, pairs, strict=True)
    ]
    hidden = [gr.ImageSlider(value=None, visible=False)] * (_most(groups) - len(pairs))
    return [*sliders, *hidden, pd.DataFrame(rows, columns=COLUMNS)]


def _cut(picture: Image.Image, data_set: str, cut: str) -> tuple[Image.Image, str]:
    checks.choice("The crop", cut, {each: each for each in CUTS.values()})
    if cut == "none":
        return whole_picture(picture), "The whole image on a white square."
    face = crop_to_face(picture, data_set) if cut == "face" else None
    if face is not None:
        return face, f"The face, cropped as in the dataset {data_set}."
    square = square_picture(picture, min(picture.size))
    return (
        square,
        "No face found; using the largest centred square." if cut == "face" else "The largest centred square.",
    )


def _most(groups: dict[str, list[PublishedModel]]) -> int:
    return max(sum(len(model.latent_counts) for model in group) for group in groups.values())


def build(models: dict[str, PublishedModel]) -> None:
    """Adds the tab. All `models` have an encoder."""
    groups = by_data_set(models)
    with gr.Tab("Reconstruct", id="reconstruct"):
        gr.Markdown(
            "Each model encodes your image as a list of numbers, its latents, and decodes the image from these alone. "
            "Some models add residual latents, which encode the residual: the image minus the decoder's output. They "
            "preserve most of any image, even of a kind that the model was not trained on. The results without "
            "residual latents show what the networks have learned."
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=1):
                picture = gr.Image(label="Your image", height=280, elem_id="reconstruct-upload", **UPLOAD)
                data_set = gr.Dropdown(list(groups), label="Models trained on")
                cut = gr.Radio(list(CUTS.items()), value="face", label="Crop")
                seen = gr.Image(label="Input to the models", alt_text="Input to the models", elem_id="seen", **PICTURE)
                found = gr.Markdown(elem_id="found")
                button = gr.Button("Reconstruct", variant="primary")
            with gr.Column(scale=2):
                with gr.Row():
                    sliders = [
                        gr.ImageSlider(
                            label="Input | reconstruction",
                            format="png",
                            interactive=False,
                            max_height=320,
                            min_width=300,  # two in a row
                            buttons=["download"],
                            visible=number == 0,
                            elem_id=f"reconstruction-{number}",
                            elem_classes="pixelated",
                        )
                        for number in range(_most(groups))
                    ]
                table = gr.Dataframe(
                    label="Reconstruction error",
                    headers=COLUMNS,
                    interactive=False,
                    wrap=True,
                    column_widths=COLUMN_WIDTHS,
                    elem_id="nearness",
                )
    inputs = [picture, data_set, cut]
    cropping = {"inputs": inputs, "outputs": [seen, found]}
    cut_first = gr.on([picture.upload], **cropping, **model_event(crop_face, groups, "crop_face"))
    cut_again = gr.on([data_set.input, cut.input], **cropping, **model_event(crop_face, groups))
    working = {"inputs": inputs, "outputs": [*sliders, table]}
    cut_first.success(**working, **model_event(reconstruct, groups))
    cut_again.success(**working, **model_event(reconstruct, groups))
    button.click(**working, **model_event(reconstruct, groups, "reconstruct"))
