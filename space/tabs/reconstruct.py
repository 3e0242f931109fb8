"""Crops images, and reconstructs them with every model of a dataset: for the comparison and for the API."""

from typing import Any, NamedTuple

import gradio as gr
import pandas as pd
import torch
from PIL import Image

import checks
from animation import enlarge
from faces import CROPS, crop_to_face, whole_picture
from hf_vae.evaluation.metrics import laplacian_variance, mse, psnr, ssim
from hf_vae.pictures import square_picture
from hf_vae.pipeline import PicturesOutput
from published import PublishedModel, by_data_set, data_set_title
from tabs import UPLOAD, model_event


CUTS = {"face, if one is found": "face", "largest centered square": "centre", "whole image": "none"}
COLUMNS = ["model", "MSE", "PSNR, dB", "SSIM", "relative sharpness", "latents / values"]


def crop_face(groups: dict[str, list[PublishedModel]], picture: dict | None, data_set: str, cut: str) -> tuple:
    """Crops an image as the images of a dataset were cropped. `cut` is "face" (the face, or the largest centred square
    if no face is found), "centre" (the largest centred square) or "none" (the whole image). Returns the image at the
    models' resolution, and a sentence on the crop."""
    models = checks.choice("The dataset", data_set, groups)
    upload, sentence = cut_out(checks.picture("The image", picture), data_set, cut)
    return enlarge(models[0].pipeline.prepare(upload)), sentence


def reconstruct(groups: dict[str, list[PublishedModel]], picture: dict | None, data_set: str, cut: str) -> list:
    """Reconstructs an image with every model of a dataset. A model with residual latents also reconstructs it without
    them. Returns the input and the reconstruction for each, and a table. The table has mean squared error (values in
    [-1, 1]), peak signal-to-noise ratio, structural similarity, and the sharpness of the reconstruction relative to
    the input (variance of the Laplacian). It also has the number of latents and of pixel values."""
    models = checks.choice("The dataset", data_set, groups)
    upload, _ = cut_out(checks.picture("The image", picture), data_set, cut)
    found = reconstructions(models, upload)
    sliders = [
        gr.ImageSlider(
            value=(enlarge(each.model.pipeline.prepare(upload)), enlarge(each.output.images[0])),
            label=f"{each.name}: input | reconstruction",
            visible=True,
        )
        for each in found
    ]
    hidden = [gr.ImageSlider(value=None, visible=False)] * (_most(groups) - len(found))
    return [*sliders, *hidden, error_table(found)]


class Reconstruction(NamedTuple):
    """What a model made of an image.

    Args:
        model: The model.
        name: Its name, and whether residual latents were left out.
        num_latents: How many latents the image was decoded from.
        seen: The image as the model saw it, `(1, C, H, W)` in [-1, 1].
        output: The reconstruction.
    """

    model: PublishedModel
    name: str
    num_latents: int
    seen: torch.Tensor
    output: PicturesOutput

    @property
    def sharpness(self) -> float:
        """Variance of the Laplacian, relative to the input."""
        return (laplacian_variance(self.output.tensors) / laplacian_variance(self.seen).clamp(min=1e-6)).item()


def reconstructions(models: list[PublishedModel], upload: Image.Image) -> list[Reconstruction]:
    """Reconstructs an image with every model, all of which have an encoder."""
    found = []
    for model in models:
        seen = model.pipeline.to_images([upload])
        outputs = model.reconstructions(upload).items()
        for (name, output), num_latents in zip(outputs, model.latent_counts, strict=True):
            found.append(Reconstruction(model, name, num_latents, seen, output))
    return found


def error_table(found: list[Reconstruction]) -> pd.DataFrame:
    """The errors of reconstructions, a row for each."""
    rows = []
    for each in found:
        made, seen = each.output.tensors, each.seen
        values = [*(measure(made, seen).item() for measure in (mse, psnr, ssim)), each.sharpness]
        rows.append([each.name, *(f"{value:.4g}" for value in values), f"{each.num_latents} / {seen.numel()}"])
    return pd.DataFrame(rows, columns=COLUMNS)


def cuts_for(data_set: str) -> list[tuple[str, str]]:
    """The crops that visitors can choose from for a dataset, the one to begin with first."""
    return [(label, cut) for label, cut in CUTS.items() if cut != "face" or data_set in CROPS]


def cut_out(picture: Image.Image, data_set: str, cut: str) -> tuple[Image.Image, str]:
    """An image cropped as in `crop_face`, and a sentence on the crop."""
    checks.choice("The crop", cut, {each: each for each in CUTS.values()})
    if cut == "none":
        return whole_picture(picture), "The whole image on a white square."
    face = crop_to_face(picture, data_set) if cut == "face" else None
    if face is not None:
        return face, f"The face, cropped as for {data_set_title(data_set)}."
    square = square_picture(picture, min(picture.size))
    return (
        square,
        "No face found; using the largest centered square." if cut == "face" else "The largest centered square.",
    )


def _most(groups: dict[str, list[PublishedModel]]) -> int:
    return max(sum(len(model.latent_counts) for model in group) for group in groups.values())


def add_endpoints(models: dict[str, PublishedModel]) -> None:
    """Adds `/crop_face` and `/reconstruct`, which programs call and the page does not. All `models` have an
    encoder."""
    groups = by_data_set(models)
    picture = gr.Image(label="Your image", visible=False, **UPLOAD)
    data_set = gr.Dropdown(list(groups), label="Models trained on", visible=False)
    cut = gr.Radio(list(CUTS.items()), value="face", label="Crop", visible=False)
    seen = gr.Image(label="Input to the models", format="png", visible=False)
    found = gr.Markdown(visible=False)
    sliders = [
        gr.ImageSlider(label="Input | reconstruction", format="png", visible=False) for _ in range(_most(groups))
    ]
    table = gr.Dataframe(label="Reconstruction error", headers=COLUMNS, visible=False)
    inputs: list[Any] = [picture, data_set, cut]
    for outputs, function, name in (
        ([seen, found], crop_face, "crop_face"),
        ([*sliders, table], reconstruct, "reconstruct"),
    ):
        call = gr.Button(visible=False)
        call.click(inputs=inputs, outputs=outputs, **model_event(function, groups, name))
