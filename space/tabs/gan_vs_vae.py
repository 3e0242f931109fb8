"""The tab that puts the families side by side, with how sharp their pictures are."""

from functools import partial

import gradio as gr
import pandas as pd
import torch
from PIL import Image

import checks
from hf_vae.metrics import high_frequency_energy, laplacian_variance
from hf_vae.transforms import picture_grid
from published import PublishedModel, comparable_models
from tabs import GALLERY, MODEL_EVENT


NUM_PICTURES = 16
GRID_COLUMNS = 4
PICTURES = "pictures"
LAPLACIAN = "variance of the Laplacian"
HIGH_FREQUENCY = "high-frequency energy"
WARNING = "Sharper is not better: noise and checkerboards count as sharpness."


def compare_sharpness(
    groups: dict[str, list[PublishedModel]], data_set: str, seed: int
) -> tuple[list[tuple[Image.Image, str]], pd.DataFrame, pd.DataFrame, str]:
    """Draws from every model of a data set with one seed: a grid of each, the mean variance of the Laplacian and the
    mean high-frequency energy of what is shown next to those of real pictures, and what this means."""
    models = checks.choice("The data set", data_set, groups)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    grids, sharpness, energy, ratios = [], {}, {}, []
    for model in models:
        output = model.pipeline.sample(NUM_PICTURES, seed)
        grids.append((picture_grid(output.images, GRID_COLUMNS), model.name))
        # models of one data set and size were measured against the same pictures, so that they share a bar
        real = f"real {model.data_set}, {model.metrics['image_size']} px"
        sharpness |= {
            real: model.metrics["laplacian_variance_real"],
            model.name: _mean(laplacian_variance(output.tensors)),
        }
        energy |= {
            real: model.metrics["high_frequency_energy_real"],
            model.name: _mean(high_frequency_energy(output.tensors)),
        }
        ratios.append(f"{sharpness[model.name] / sharpness[real]:.2f} times for {model.name}")
    sentence = f"Sharpness of these pictures against that of real ones: {', '.join(ratios)}. {WARNING}"
    return grids, _bars(sharpness, LAPLACIAN), _bars(energy, HIGH_FREQUENCY), sentence


def _mean(values: torch.Tensor) -> float:
    return values.mean().item()


def _bars(values: dict[str, float], measure: str) -> pd.DataFrame:
    return pd.DataFrame({PICTURES: list(values), measure: list(values.values())})


def build(models: dict[str, PublishedModel]) -> None:
    """Adds the tab; it draws as soon as it is opened."""
    groups = comparable_models(models)
    with gr.Tab("GAN vs VAE", id="compare") as tab:
        gr.Markdown("One seed, every family: a VAE averages over what it is unsure of, a GAN makes up its mind.")
        with gr.Row():
            data_set = gr.Dropdown(list(groups), label="Data set")
            seed = gr.Number(0, label="Seed", precision=0)
        button = gr.Button("Compare", variant="primary")
        label = f"{NUM_PICTURES} samples of each model"
        grids = gr.Gallery(label=label, columns=2, elem_id="grids", elem_classes="pixelated", **GALLERY)
        sentence = gr.Markdown(elem_id="sentence")
        with gr.Row():
            sharpness, energy = (
                gr.BarPlot(
                    x=PICTURES,
                    y=measure,
                    title=f"Mean {measure}",
                    x_label_angle=-25,
                    y_lim=[0, None],  # bars from 0, so that their lengths compare
                    height=280,
                    min_width=280,
                    elem_id=elem_id,
                )
                for measure, elem_id in ((LAPLACIAN, "sharpness-plot"), (HIGH_FREQUENCY, "energy-plot"))
            )
    gr.on(
        [button.click, tab.select, data_set.input, seed.submit],
        partial(compare_sharpness, groups),
        [data_set, seed],
        [grids, sharpness, energy, sentence],
        api_name="compare_sharpness",
        api_description=compare_sharpness.__doc__,
        **MODEL_EVENT,
    )
