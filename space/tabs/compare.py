"""The tab that compares the sharpness of models trained on the same images."""

import math
import re

import gradio as gr
import pandas as pd
import torch
from PIL import Image

import checks
from animation import enlarge
from faces import crop_to_face
from hf_vae.evaluation.metrics import high_frequency_energy, laplacian_variance, radial_power_spectrum
from hf_vae.pictures import picture_grid
from published import WITHOUT_DETAILS, PublishedModel, comparable_models
from tabs import GALLERY, UPLOAD, model_event


NUM_SAMPLES = 16
GRID_COLUMNS = 4
IMAGES = "images"
LAPLACIAN = "variance of the Laplacian"
HIGH_FREQUENCY = "high-frequency energy"
FREQUENCY, POWER = "frequency, log10 of cycles per pixel", "power, log10"
BAND_CENTERS = [(band + 0.5) / 16 for band in range(8)]  # cycles per pixel
WARNING = "Sharper is not better: noise and checkerboards count as sharpness."
COLUMNS = {
    "model": "",
    "MSE": "reconstruction_mse",
    f"MSE {WITHOUT_DETAILS}": "reconstruction_mse_without_details",
    "sharpness of samples": "laplacian_variance_samples_ratio",
}
NETWORK_COLUMNS = {  # for each feature network
    "Frechet distance ({network})": "frechet_{network}_prior_{prior}",
    "recall ({network})": "recall_{network}_prior_{prior}",
}

Table = pd.DataFrame


def compare_sharpness(
    groups: dict[str, list[PublishedModel]], data_set: str, seed: int
) -> tuple[list[tuple[Image.Image, str]], Table, Table, Table, str, Table]:
    """Samples 16 images from every model of a dataset with one seed and measures their sharpness. Returns a grid of
    samples for each model, then the mean variance of the Laplacian, the mean high-frequency energy and the radial
    power spectrum, each beside that of real images. A summary in one sentence and the published metrics of the models
    follow."""
    models = checks.choice("The dataset", data_set, groups)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    outputs = {model: model.pipeline.sample(NUM_SAMPLES, seed) for model in models}
    grids = [(picture_grid(output.images, GRID_COLUMNS), model.name) for model, output in outputs.items()]
    drawn = [(model, model.name, output.tensors) for model, output in outputs.items()]
    return grids, *_measured(drawn), _published(models)


def compare_upload(
    groups: dict[str, list[PublishedModel]], picture: dict | None, data_set: str
) -> tuple[list[tuple[Image.Image, str]], Table, Table, Table, str]:
    """Reconstructs an image with every model of a dataset that has an encoder and measures the sharpness of the
    reconstructions. A model with residual latents also reconstructs the image without them."""
    models = [model for model in checks.choice("The dataset", data_set, groups) if model.has_encoder]
    if not models:
        raise checks.refusal(f"No model of {data_set} has an encoder; choose another dataset.")
    upload = checks.picture("The image", picture)
    upload = crop_to_face(upload, data_set) or upload
    made = [(model, name, output) for model in models for name, output in model.reconstructions(upload).items()]
    shown = [(enlarge(models[0].pipeline.prepare(upload)), "input")]
    shown += [(enlarge(output.images[0]), name) for _, name, output in made]
    return shown, *_measured([(model, name, output.tensors) for model, name, output in made])


def _measured(drawn: list[tuple[PublishedModel, str, torch.Tensor]]) -> tuple[Table, Table, Table, str]:
    """The plots and the summary for images `(B, C, H, W)`, each with its model and its name."""
    sharpness, energy, curves, ratios = {}, {}, {}, []
    for model, name, images in drawn:
        # models of one dataset and size were measured against the same real images, so they share a bar
        real = f"real {model.data_set}, {model.metrics['image_size']} px"
        sharpness |= {real: model.metrics["laplacian_variance_real"], name: _mean(laplacian_variance(images))}
        energy |= {real: model.metrics["high_frequency_energy_real"], name: _mean(high_frequency_energy(images))}
        curves[real] = [model.metrics[f"spectrum_band_{band}_real"] for band in range(1, 9)]
        curves[name] = radial_power_spectrum(images).mean(0).tolist()
        ratios.append(f"{name} {sharpness[name] / sharpness[real]:.2f}")
    sentence = f"Sharpness relative to real images: {', '.join(ratios)}. {WARNING}"
    return _bars(sharpness, LAPLACIAN), _bars(energy, HIGH_FREQUENCY), _curves(curves), sentence


def _mean(values: torch.Tensor) -> float:
    return values.mean().item()


def _bars(values: dict[str, float], measure: str) -> Table:
    return pd.DataFrame({IMAGES: list(values), measure: list(values.values())})


def _curves(spectra: dict[str, list[float]]) -> Table:
    rows = [
        (math.log10(frequency), math.log10(max(power, 1e-9)), name)
        for name, spectrum in spectra.items()
        for frequency, power in zip(BAND_CENTERS, spectrum, strict=True)
    ]
    return pd.DataFrame(rows, columns=[FREQUENCY, POWER, IMAGES])


def _published(models: list[PublishedModel]) -> Table:
    columns = COLUMNS | {
        title.format(network=network): key.replace("{network}", network)
        for network in dict.fromkeys(network for model in models for network in _networks(model))
        for title, key in NETWORK_COLUMNS.items()
    }
    rows = []
    for model in models:
        found = model.metrics
        if not model.detail_dim and "reconstruction_mse" in found:  # it has no residual latents to leave out
            found = found | {"reconstruction_mse_without_details": found["reconstruction_mse"]}
        values = [found.get(key.format(prior=found["sample_prior"])) for key in list(columns.values())[1:]]
        rows.append([model.name, *("-" if value is None else f"{value:.3g}" for value in values)])
    return pd.DataFrame(rows, columns=list(columns))


def _networks(model: PublishedModel) -> list[str]:
    """The feature networks that a model's samples were measured with."""
    distance = re.compile(rf"frechet_(.+)_prior_{re.escape(model.metrics['sample_prior'])}")
    return [name[1] for name in map(distance.fullmatch, model.metrics) if name]


def build(models: dict[str, PublishedModel]) -> None:
    """Adds the tab. The comparison runs as soon as the tab is opened."""
    groups = comparable_models(models)
    # plots sort by name otherwise; real images, which are not named here, come last
    names = [shown for name in models for shown in (name, f"{name}, {WITHOUT_DETAILS}")]
    with gr.Tab("GAN vs VAE", id="compare") as tab:
        gr.Markdown(
            "Samples from every model, all with the same seed. A model trained on reconstruction error alone averages "
            "over the details it cannot predict, and its images are blurred. A model trained against a discriminator "
            "has to choose details, and its images are sharper."
        )
        with gr.Row():
            data_set = gr.Dropdown(list(groups), label="Dataset")
            seed = gr.Number(0, label="Seed", precision=0)
        button = gr.Button("Compare samples", variant="primary")
        with gr.Accordion("Compare reconstructions of your own image", open=False):
            picture = gr.Image(label="Your image", height=240, elem_id="compare-upload", **UPLOAD)
        grids = gr.Gallery(label="Side by side", columns=2, elem_id="grids", elem_classes="pixelated", **GALLERY)
        sentence = gr.Markdown(elem_id="sentence")
        with gr.Row():
            sharpness, energy = (
                gr.BarPlot(
                    x=IMAGES,
                    y=measure,
                    title=f"Mean {measure}",
                    x_label_angle=-25,
                    sort=names,
                    y_lim=[0, None],  # bars start at 0, so that their lengths can be compared
                    height=280,
                    min_width=280,
                    elem_id=elem_id,
                )
                for measure, elem_id in ((LAPLACIAN, "sharpness-plot"), (HIGH_FREQUENCY, "energy-plot"))
            )
        spectrum = gr.LinePlot(
            x=FREQUENCY,
            y=POWER,
            color=IMAGES,
            title="Radial power spectrum, from coarse to fine detail",
            height=300,
            elem_id="spectrum-plot",
        )
        published = gr.Dataframe(
            label="Published metrics on held-out images (feature network in brackets)",
            headers=list(COLUMNS),
            interactive=False,
            wrap=True,
            elem_id="published",
        )
    plots = [grids, sharpness, energy, spectrum, sentence]
    drawing = {"inputs": [data_set, seed], "outputs": [*plots, published]}
    button.click(**drawing, **model_event(compare_sharpness, groups, "compare_sharpness"))
    gr.on([tab.select, data_set.input, seed.submit], **drawing, **model_event(compare_sharpness, groups))
    picture.upload(
        inputs=[picture, data_set], outputs=plots, **model_event(compare_upload, groups, "compare_reconstructions")
    )
