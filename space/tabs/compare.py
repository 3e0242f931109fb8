"""The tab that compares models trained on the same images: their samples, what they make of a visitor's image, a quiz,
and what sharpness means."""

import functools
import math
import re
import secrets
from collections.abc import Callable
from typing import Any

import gradio as gr
import pandas as pd
import torch
from gradio.context import Context
from PIL import Image

import checks
from animation import enlarge
from faces import crop_to_face
from hf_vae.evaluation.metrics import high_frequency_energy, laplacian_variance, radial_power_spectrum
from hf_vae.pictures import picture_grid, to_pictures
from hf_vae.pipeline import PicturesOutput
from published import WITHOUT_DETAILS, PublishedModel, by_data_set, comparable_models, data_set_title
from quiz import kind_titles, quiz_rounds, two_kinds
from tabs import INTERNAL_EVENT, UPLOAD, data_set_choices, model_choices, model_event, reconstruct
from tabs.reconstruct import Reconstruction, cut_out, cuts_for, error_table, reconstructions
from widgets import data_url, widget


NUM_SAMPLES = 16
GRID_COLUMNS = 4
SHOWN = 4  # of the samples of a model, under the lens
SHOWN_COLUMNS = 2
ZOOM = 4
EYE, GRID_EYE = (0.3, 0.42), (0.15, 0.21)  # where faces have an eye: in one image, in the first of the four
MAX_NOISE = 60  # standard deviation in grey levels, of 255
NOISE_SHARPNESS = 1.4  # that the noise has at first, relative to real images
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
Groups = dict[str, list[PublishedModel]]
Samples = dict[PublishedModel, PicturesOutput]


def compare_sharpness(
    groups: dict[str, list[PublishedModel]], data_set: str, seed: int
) -> tuple[list[tuple[Image.Image, str]], Table, Table, Table, str, Table]:
    """Samples 16 images from every model of a dataset with one seed and measures their sharpness. Returns a grid of
    samples for each model, then the mean variance of the Laplacian, the mean high-frequency energy and the radial
    power spectrum, each beside that of real images. A summary in one sentence and the published metrics of the models
    follow."""
    models = checks.choice("The dataset", data_set, groups)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    outputs = _samples(tuple(models), seed)
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
    made = reconstructions(models, upload)
    shown = [(enlarge(models[0].pipeline.prepare(upload)), "input")]
    shown += [(enlarge(each.output.images[0]), each.name) for each in made]
    return shown, *_measured([(each.model, each.name, each.output.tensors) for each in made])


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


def _relative_spectra(drawn: dict[str, tuple[PublishedModel, torch.Tensor]]) -> dict[str, Any]:
    """The power of images `(B, C, H, W)` in each band of frequencies, relative to that of real images."""
    curves: list[dict[str, Any]] = [{"title": "Real images", "y": [1.0] * len(BAND_CENTERS), "is_reference": True}]
    for title, (model, images) in drawn.items():
        powers = radial_power_spectrum(images).mean(0).tolist()
        real = [float(model.metrics[f"spectrum_band_{band}_real"]) for band in range(1, 1 + len(powers))]
        relative = [power / max(of_real, 1e-9) for power, of_real in zip(powers, real, strict=True)]
        curves.append({"title": title, "y": relative})
    return {
        "title": "Spectrum of the samples, from coarse to fine detail",
        "x_title": "Spatial frequency in cycles per pixel",
        "y_title": "Power, relative to real images",
        "x": BAND_CENTERS,
        "curves": curves,
    }


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


def _samples(models: tuple[PublishedModel, ...], seed: int) -> Samples:
    return {model: model.pipeline.sample(NUM_SAMPLES, seed) for model in models}


# for the page, where every visitor sees the same first samples, and all parts use those of one seed
_kept_samples = functools.lru_cache(maxsize=8)(_samples)


def show_samples(groups: Groups, data_set: str, seed: int) -> tuple[dict, dict, dict, Table]:
    """Samples 16 images from every model of a dataset with one seed: four of each under the lens, the sharpness of all
    as bars, their spectrum, and the published metrics."""
    models = checks.choice("The dataset", data_set, groups)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    titles, samples = _titles(models), _kept_samples(tuple(models), seed)
    items, bars = [], []
    for model, output in samples.items():
        title, sharpness = titles[model.name], _sharpness(model, output.tensors)
        grid = picture_grid(output.images[:SHOWN], SHOWN_COLUMNS)
        items.append(_card(title, f"Samples of {title}, seed {seed}", grid, f"Sharpness {sharpness:.2f}"))
        bars.append(_bar(title, sharpness, model))
    curves = _relative_spectra({titles[model.name]: (model, output.tensors) for model, output in samples.items()})
    published = _published(models)
    published["model"] = [titles[name] for name in published["model"]]
    lens = _lens(items, GRID_EYE) | {"hint": True}
    return lens, _sharpness_bars(f"Sharpness of {NUM_SAMPLES} samples, on average", bars), curves, published


def show_reconstructions(groups: Groups, picture: dict | None, data_set: str, cut: str) -> tuple[dict, str, Table]:
    """Reconstructs an image with every model of a dataset that has an encoder. Without an upload, the image is a
    sample. Returns the input and all reconstructions under the lens, a sentence on the input, and a table of
    errors."""
    models = checks.choice("The dataset", data_set, groups)
    encoders = [model for model in models if model.has_encoder]
    if not encoders:
        return (
            _lens([]),
            f"No model of {data_set_title(data_set)} has an encoder, so none can reconstruct an image.",
            (error_table([])),
        )
    titles = _titles(models)
    if picture:
        upload, sentence = cut_out(checks.picture("The image", picture), data_set, cut)
        name, found = "Your image", reconstructions(encoders, upload)
    else:
        source = _sharp_model(models)
        upload, found = _example(tuple(models), source)
        name = "A sample"
        sentence = f"No image is uploaded yet. This input is a sample of {titles[source.name]}."
    largest = max(found, key=lambda each: each.seen.shape[-1])
    prepared = largest.model.pipeline.prepare(upload)
    items = [_card(f"{name} (input)", f"{name}, the input", prepared, f"{prepared.width} x {prepared.height} pixels")]
    for each in found:
        title = _title_of(each, titles)
        note = f"Sharpness {each.sharpness:.2f} of the input"
        items.append(_card(title, f"Reconstruction by {title}", each.output.images[0], note))
    table = error_table(found)
    table["model"] = [_title_of(each, titles) for each in found]
    return _lens(items), sentence, table


@functools.lru_cache(maxsize=8)
def _example(models: tuple[PublishedModel, ...], source: PublishedModel) -> tuple[Image.Image, list[Reconstruction]]:
    samples = _kept_samples(models, 0)[source]
    example = samples.images[_typical(samples)]
    return example, reconstructions([model for model in models if model.has_encoder], example)


def show_noise(groups: Groups, data_set: str, noise: float) -> tuple[dict, dict]:
    """Adds noise to a sample of a model: the sample with and without it under the lens, and their sharpness as bars.
    `noise` is its standard deviation in grey levels."""
    models = checks.choice("The dataset", data_set, groups)
    noise = checks.number("The noise", noise, 0, MAX_NOISE)
    titles, samples, kinds = _titles(models), _kept_samples(tuple(models), 0), two_kinds(models)
    model, others = (kinds[0], [_sharp_model(models)]) if kinds else (models[0], [])
    first, *rest = (samples[each].tensors[[_typical(samples[each])]] for each in (model, *others))
    grey = torch.randn(first[:, :1].shape, generator=torch.Generator().manual_seed(0))  # one value for all channels
    title = titles[model.name]
    noisy = (first + grey * noise / 127.5).clamp(-1, 1)
    shown = [(model, title, first), (model, f"{title}, with noise", noisy)]
    shown += [(other, titles[other.name], image) for other, image in zip(others, rest, strict=True)]
    items, bars = [], []
    for each, name, images in shown:
        sharpness = _sharpness(each, images)
        picture = to_pictures(images, each.pipeline.model.output_size)[0]
        items.append(_card(name, f"A sample of {name}", picture, f"Sharpness {sharpness:.2f}"))
        bars.append(_bar(name, sharpness, each))
    return _lens(items), _sharpness_bars("Sharpness of these images", bars)


def first_quiz(groups: Groups, picture: dict | None, data_set: str, cut: str) -> dict:
    """The ten rounds that everybody plays first, or with an upload, ten that begin with it."""
    models = checks.choice("The dataset", data_set, groups)
    if not picture:
        return _kept_quiz(tuple(models))
    upload, _ = cut_out(checks.picture("The image", picture), data_set, cut)
    return _quiz(tuple(models), upload, 0)


def _unless_uploaded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for the opening of the tab: an image that arrives meanwhile has its own event, and is left to that."""

    @functools.wraps(function)
    def run(groups: Groups, picture: dict | None, *others: Any) -> Any:
        return gr.skip() if picture else function(groups, picture, *others)

    return run


def next_quiz(groups: Groups, picture: dict | None, data_set: str, cut: str) -> dict:
    """Ten other rounds."""
    models = checks.choice("The dataset", data_set, groups)
    upload = cut_out(checks.picture("The image", picture), data_set, cut)[0] if picture else None
    return _quiz(tuple(models), upload, secrets.randbelow(checks.MAX_SEED + 1))


def _quiz(models: tuple[PublishedModel, ...], upload: Image.Image | None, seed: int) -> dict:
    return {"rounds": quiz_rounds(_kept_samples(models, seed), _titles(list(models)), upload, seed)}


@functools.lru_cache(maxsize=8)
def _kept_quiz(models: tuple[PublishedModel, ...]) -> dict:
    return _quiz(models, None, 0)


def _titles(models: list[PublishedModel]) -> dict[str, str]:
    return {name: title for title, name in model_choices({model.name: model for model in models})}


def _title_of(made: Reconstruction, titles: dict[str, str]) -> str:
    return made.name.replace(made.model.name, titles[made.model.name], 1)


def _sharpness(model: PublishedModel, images: torch.Tensor) -> float:
    """Mean sharpness of images, relative to that of the real images that a model was measured with."""
    return _mean(laplacian_variance(images)) / float(model.metrics["laplacian_variance_real"])


def _sharp_model(models: list[PublishedModel]) -> PublishedModel:
    """A model whose samples have detail: one that was trained against a discriminator, with an encoder if there is
    such a model."""
    return max(models, key=lambda model: (model.has_discriminator, model.has_encoder))


def _typical(samples: PicturesOutput) -> int:
    """The number of the sample, of those that are shown, whose sharpness is nearest to the mean of all."""
    sharpness = laplacian_variance(samples.tensors)
    return int((sharpness[:SHOWN] - sharpness.mean()).abs().argmin())


def _card(title: str, alt: str, picture: Image.Image, note: str) -> dict[str, str]:
    return {"title": title, "alt": alt, "image": data_url(picture), "note": note}


def _lens(items: list[dict[str, str]], place: tuple[float, float] = EYE) -> dict[str, Any]:
    return {"items": items, "zoom": ZOOM, "place": list(place)}


def _bar(title: str, sharpness: float, model: PublishedModel) -> dict[str, Any]:
    """A bar, in front of the band of the real images that a model was measured with, if there is one."""
    return {"title": title, "number": sharpness, "band": model.real_band}


def _sharpness_bars(title: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    note = "The line at 1 is the mean of real images that no model has seen."
    bands = {tuple(item["band"]) for item in items if item["band"]}
    if len(bands) == 1:
        note += " The band from {:.2f} to {:.2f} holds four of five of them.".format(*bands.pop())
    elif bands:
        note += " The band of each model holds four of five of them."
    return {"title": title, "items": items, "note": note}


def page_groups(models: dict[str, PublishedModel]) -> Groups:
    """The groups of models that visitors can compare: those of `comparable_models`, then datasets with one model."""
    apart = by_data_set(models)
    return comparable_models(models) | apart if len(models) > 1 else apart


def tab_title(models: dict[str, PublishedModel]) -> str:
    """The name of the tab: what kinds of models there are to compare."""
    if len(models) == 1:
        return "Measure sharpness"
    kinds = two_kinds(list(models.values()))
    return f"GAN vs {kind_titles(kinds)[0]}" if kinds else "Compare models"


def build(models: dict[str, PublishedModel], page_ready: gr.events.Dependency | None = None) -> None:
    """Adds the tab. Its first results are computed after `page_ready`, the event that shows the first images of the
    page, or when the page loads."""
    groups = page_groups(models)
    first = next(iter(groups))
    has_encoder = any(model.has_encoder for model in models.values())
    are_kinds = any(two_kinds(group) for group in groups.values())
    with gr.Tab(tab_title(models), id="compare"):
        if are_kinds:
            gr.Markdown(
                "A model trained on reconstruction error alone averages over the details it cannot predict, and its "
                "images are blurred. A model trained against a discriminator has to choose details, and its images "
                "are sharper."
            )
        gr.Markdown("## Samples from the same seed" if len(models) > 1 else "## Samples")
        with gr.Row(equal_height=True):
            data_set = gr.Dropdown(
                data_set_choices(groups),
                value=first,
                label="Dataset",
                visible=len(groups) > 1,
                min_width=120,
                elem_id="compare-data",
            )
            seed = gr.Number(0, label="Seed", precision=0, min_width=120, elem_id="compare-seed")
            button = gr.Button(
                "Compare samples" if len(models) > 1 else "Generate samples",
                variant="primary",
                elem_id="compare-samples",
            )
        lens = widget("lens", elem_id="compare-lens")
        bars = widget("bars", elem_id="sharpness-bars")
        with gr.Accordion("Spectrum and numbers", open=False):
            spectrum = widget("curves", elem_id="spectrum-plot")
            published = gr.Dataframe(
                label="Published metrics on held-out images (feature network in brackets)",
                headers=list(COLUMNS),
                interactive=False,
                wrap=True,
                column_widths=["200px", *["130px"] * 12],  # no word is split
                elem_id="published",
            )
        with gr.Column(visible=has_encoder):
            gr.Markdown(
                "## Your image\n\n"
                "Each model with an encoder encodes your image as a list of numbers, its latents, and decodes the "
                "image from these alone. Some models add residual latents, which encode the residual: the image minus "
                "the decoder's output. They preserve most of any image, even of a kind that the model was not trained "
                "on. The results without residual latents show what the networks have learned."
            )
            with gr.Row(equal_height=False):
                picture = gr.Image(label="Your image", height=240, elem_id="compare-upload", **UPLOAD)
                with gr.Column():
                    cut = gr.Radio(cuts_for(first), value=cuts_for(first)[0][1], label="Crop", elem_id="compare-cut")
                    found = gr.Markdown(elem_id="found")
            reconstructed = widget("lens", elem_id="reconstruction-lens")
            with gr.Accordion("Errors of the reconstructions", open=False):
                table = gr.Dataframe(
                    label="Reconstruction error",
                    headers=reconstruct.COLUMNS,
                    interactive=False,
                    wrap=True,
                    column_widths=["200px", "95px", "95px", "95px", "125px", "145px"],  # numbers fit on a phone
                    elem_id="nearness",
                )
        with gr.Column(visible=has_encoder):
            gr.Markdown("## Quiz: ten rounds\n\nAll images are samples of these models, or your own image.")
            quiz = widget("quiz", elem_id="quiz")
        gr.Markdown(
            "## What the numbers mean\n\n"
            "Sharpness is the variance of the Laplacian: how much neighboring pixels differ. "
            "It is divided by that of real images, so 1 is as sharp as real images. "
            f"{WARNING}"
        )
        noise = gr.Slider(
            **_noise_range(groups[first]),
            step=1,
            label="Noise added to the sample",
            info="Standard deviation in gray levels, of 255",
            elem_id="noise",
        )
        noisy = widget("lens", elem_id="noise-lens")
        noisy_bars = widget("bars", elem_id="noise-bars")
        _add_endpoints(models)
    upload = [picture, data_set, cut]
    sampling = {"inputs": [data_set, seed], "outputs": [lens, bars, spectrum, published]}
    sampling |= model_event(show_samples, groups)
    reconstructing = {"inputs": upload, "outputs": [reconstructed, found, table]}
    reconstructing |= model_event(show_reconstructions, groups)
    playing = {"inputs": upload, "outputs": quiz} | model_event(first_quiz, groups)
    adding = {"inputs": [data_set, noise], "outputs": [noisy, noisy_bars]} | model_event(show_noise, groups)
    refitted = data_set.input(functools.partial(_refit, groups), data_set, [cut, noise], **INTERNAL_EVENT)
    refitted.then(**sampling).then(**reconstructing).then(**adding).then(**playing)
    first_reconstructing = reconstructing | model_event(_unless_uploaded(show_reconstructions), groups)
    first_playing = playing | model_event(_unless_uploaded(first_quiz), groups)
    opening = page_ready.then if page_ready is not None else Context.root_block.load
    opening(**sampling).then(**first_reconstructing).then(**adding).then(**first_playing)
    gr.on([button.click, seed.submit], **sampling)
    gr.on([picture.upload, picture.clear], **reconstructing).success(**playing)
    cut.input(**reconstructing)
    quiz.submit(inputs=upload, outputs=quiz, **model_event(next_quiz, groups))
    noise.input(trigger_mode="always_last", **adding)


def _refit(groups: Groups, data_set: str) -> tuple[gr.Radio, gr.Slider]:
    """Offers the crops of a newly chosen dataset, and noise that is as strong as the sharpness of its images."""
    cuts = cuts_for(data_set)
    noise = _noise_range(checks.choice("The dataset", data_set, groups))
    return gr.Radio(cuts, value=cuts[0][1]), gr.Slider(**noise)


def _noise_range(models: list[PublishedModel]) -> dict[str, Any]:
    """The range and the first value of the noise. White noise of variance v has a Laplacian of variance 20 v, the sum
    of the squares of the kernel."""
    sharpness = NOISE_SHARPNESS * float(models[0].metrics["laplacian_variance_real"])
    first = min(max(1, round(math.sqrt(sharpness / 20))), MAX_NOISE // 2)
    return {"minimum": 0, "maximum": 2 * first, "value": first}


def _add_endpoints(models: dict[str, PublishedModel]) -> None:
    """Adds what programs call and the page does not."""
    encoders = {name: model for name, model in models.items() if model.has_encoder}
    if encoders:
        reconstruct.add_endpoints(encoders)
    groups = comparable_models(models)
    data_set = gr.Dropdown(list(groups), label="Dataset", visible=False)
    seed = gr.Number(0, label="Seed", precision=0, visible=False)
    picture = gr.Image(label="Your image", visible=False, **UPLOAD)
    grids = gr.Gallery(label="Side by side", format="png", visible=False)
    sharpness = gr.BarPlot(x=IMAGES, y=LAPLACIAN, visible=False)
    energy = gr.BarPlot(x=IMAGES, y=HIGH_FREQUENCY, visible=False)
    spectrum = gr.LinePlot(x=FREQUENCY, y=POWER, color=IMAGES, visible=False)
    sentence = gr.Markdown(visible=False)
    published = gr.Dataframe(
        label="Published metrics on held-out images (feature network in brackets)",
        headers=list(COLUMNS),
        visible=False,
    )
    plots = [grids, sharpness, energy, spectrum, sentence]
    gr.Button(visible=False).click(
        inputs=[data_set, seed],
        outputs=[*plots, published],
        **model_event(compare_sharpness, groups, "compare_sharpness"),
    )
    gr.Button(visible=False).click(
        inputs=[picture, data_set],
        outputs=plots,
        **model_event(compare_upload, groups, "compare_reconstructions"),
    )
