"""The tab that shows what each family keeps of a picture."""

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


CUTS = {"the face, if one is found": "face", "the largest centred square": "centre", "all of it": "none"}
COLUMNS = ["model", "MSE", "PSNR, dB", "SSIM", "sharpness, ratio", "latents / values"]
COLUMN_WIDTHS = ["165px", "95px", "95px", "95px", "125px", "145px"]  # on a phone the names leave room for numbers


def crop_face(groups: dict[str, list[PublishedModel]], picture: dict | None, data_set: str, cut: str) -> tuple:
    """Cuts a picture as those of a data set were: around the face ("face"), where one is found, or to the largest
    centred square ("centre"); or keeps all of it ("none"). Returns what the models see, and what was done."""
    models = checks.choice("The data set", data_set, groups)
    upload, sentence = _cut(checks.picture("The picture", picture), data_set, cut)
    return enlarge(models[0].pipeline.prepare(upload)), sentence


def reconstruct(groups: dict[str, list[PublishedModel]], picture: dict | None, data_set: str, cut: str) -> list:
    """Encodes and decodes a picture with every model of a data set; with a model that has residual latents once more
    without these. Returns, for each, the picture as the model sees it and what it makes of it, and a table: mean
    squared error of values in [-1, 1], peak signal-to-noise ratio, structural similarity, the sharpness (variance of
    the Laplacian) of the second as a ratio to the first, and how many latents stand for how many values."""
    models = checks.choice("The data set", data_set, groups)
    upload, _ = _cut(checks.picture("The picture", picture), data_set, cut)
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
    checks.choice("The cut", cut, {each: each for each in CUTS.values()})
    if cut == "none":
        return whole_picture(picture), "All of the picture, on a white square."
    face = crop_to_face(picture, data_set) if cut == "face" else None
    if face is not None:
        return face, f"The face, cut as those in {data_set} were."
    square = square_picture(picture, min(picture.size))
    return square, "No face was found: the largest centred square." if cut == "face" else "The largest centred square."


def _most(groups: dict[str, list[PublishedModel]]) -> int:
    return max(sum(len(model.latent_counts) for model in group) for group in groups.values())


def build(models: dict[str, PublishedModel]) -> None:
    """Adds the tab; `models` all have an encoder."""
    groups = by_data_set(models)
    with gr.Tab("Reconstruct", id="reconstruct"):
        gr.Markdown(
            "Each model turns your picture into a list of numbers and draws it again from these alone. Some models "
            "have residual latents: further numbers for what their networks leave out. These carry most of any image "
            "through, also of one that the model does not know. The figures without them show what the networks do."
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=1):
                picture = gr.Image(label="Your picture", height=280, elem_id="reconstruct-upload", **UPLOAD)
                data_set = gr.Dropdown(list(groups), label="Models trained on")
                cut = gr.Radio(list(CUTS.items()), value="face", label="What they get to see")
                seen = gr.Image(
                    label="As the models see it", alt_text="As the models see it", elem_id="seen", **PICTURE
                )
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
                    label="How near",
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
