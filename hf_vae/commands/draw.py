"""The commands that generate images with a model."""

import re
from pathlib import Path
from typing import Annotated

import tyro

from ..latents.labelled_codes import LABEL_GUIDANCE
from ..models.priors import DEFAULT_STEPS, PathKind, PriorKind
from ..pictures import GRID_COLUMNS, open_image, picture_grid
from ..pipeline import ImagePipeline
from ..ranges import limited
from .arguments import Model, PictureFile, PictureFiles, Seed
from .picture_files import refuse_output, save_picture


def sample(
    model: Model,
    num: Annotated[int, limited(least=1)] = 16,
    seed: Seed = 0,
    temperature: Annotated[float, limited(least=0)] = 1.0,
    prior: PriorKind | None = None,
    num_steps: Annotated[int, limited(least=1)] = DEFAULT_STEPS,
    guidance: Annotated[float | None, limited(least=0)] = None,
    rest_temperature: Annotated[float | None, limited(least=0)] = None,
    label: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")]] = (),
    label_guidance: Annotated[float, limited(least=0)] = LABEL_GUIDANCE,
    columns: Annotated[int, limited(least=1)] = GRID_COLUMNS,
    output: Path = Path("samples.png"),
    overwrite: bool = False,
) -> None:
    """Generates images, and saves them as one grid.

    Example: hf-vae sample model_cards/cats-vae --num 64 --seed 0 --output grid.png

    Args:
        model: Folder or Hub id of a model.
        num: Number of images.
        seed: The same seed gives the same images.
        temperature: Scale of the noise. Images are more typical and less varied below 1.
        prior: The distribution to draw latents from (default: the model's own).
        num_steps: Steps of a flow from noise to latents. Other priors ignore it.
        guidance: Strength of the flow's network. Images are more typical above 1, more varied below (default: the
            model's own). Other priors ignore it.
        rest_temperature: Scale of the noise of what the code does not say, such as skin and hair (default: the model's
            own). At 0.7, images are softer, and fewer faces are malformed.
        label: A label that the images should have, such as age=60 or gender=female. Repeat it for several labels. The
            model needs those of `hf-vae directions`.
        label_guidance: How clearly labels show. 1 is as clearly as in the training images.
        columns: Images in a row.
        output: File to write.
        overwrite: Replace the file if it exists.
    """
    refuse_output(output, overwrite)
    labels = _labels(label)
    pipeline = _open_model(model)
    settings = (temperature, prior, num_steps, guidance, labels, label_guidance)
    samples = pipeline.sample(num, seed, *settings, rest_temperature=rest_temperature).images
    save_picture(picture_grid(samples, columns), output)


def reconstruct(
    model: Model,
    pictures: PictureFiles,
    output: Path = Path("reconstructions.png"),
    overwrite: bool = False,
) -> None:
    """Reconstructs images. The upper row has the images as the model sees them, the lower row the reconstructions.

    Example: hf-vae reconstruct model_cards/cats-vae photos/tom.jpg photos/kitty.jpg --output seen.png

    Args:
        model: Folder or Hub id of a model with an encoder.
        pictures: Image files.
        output: File to write.
        overwrite: Replace the file if it exists.
    """
    refuse_output(output, overwrite)
    originals = [open_image(path) for path in pictures]
    pipeline = _open_model(model)
    reconstructions = pipeline.reconstruct(originals).images
    seen = [pipeline.prepare(picture).resize(reconstructions[0].size) for picture in originals]
    save_picture(picture_grid(seen + reconstructions, len(seen)), output)


def interpolate(
    model: Model,
    start: PictureFile,
    end: PictureFile,
    frames: Annotated[int, limited(least=2)] = 8,
    kind: PathKind | None = None,
    num_steps: Annotated[int, limited(least=1)] = DEFAULT_STEPS,
    output: Path = Path("interpolation.png"),
    overwrite: bool = False,
) -> None:
    """Morphs one image into another, and saves the frames as a strip.

    Example: hf-vae interpolate model_cards/cats-vae photos/tom.jpg photos/kitty.jpg --frames 12 --output morph.png

    Args:
        model: Folder or Hub id of a model with an encoder.
        start: Image file to start from.
        end: Image file to end at.
        frames: Number of frames, including the reconstructions of both images.
        kind: slerp (along a great circle), lerp (along a straight line), flow (through the noise of the flow) or code
            (through the code). Default: code where the model has one, else slerp.
        num_steps: Steps of a flow, on a path through its noise.
        output: File to write.
        overwrite: Replace the file if it exists.
    """
    refuse_output(output, overwrite)
    pictures = _open_model(model).interpolate(open_image(start), open_image(end), frames, kind, num_steps).images
    save_picture(picture_grid(pictures, frames), output)


def sweep(
    model: Model,
    picture: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="[IMAGE]")]] = None,
    seed: Seed = 0,
    components: tuple[str, ...] | None = None,
    frames: Annotated[int, limited(least=2)] = 7,
    reach: Annotated[float, limited(least=0)] = 3.0,
    output: Path = Path("sweep.png"),
    overwrite: bool = False,
) -> None:
    """Moves an image along named sliders or principal components, and saves a strip for each, with the image in the
    middle.

    Example: hf-vae sweep model_cards/utkface-vaegan --seed 7 --components smile "head turn" 0 --output sweep.png

    Args:
        model: Folder or Hub id of a model.
        picture: Image file to start from; the model needs an encoder. Without it, a sample is generated.
        seed: Seed of that sample.
        components: Names of sliders, or numbers of components, from 0, by falling variance (default: all named
            sliders, or the first eight components if there are none).
        frames: Images in a strip.
        reach: Largest shift in either direction, in standard deviations.
        output: File to write.
        overwrite: Replace the file if it exists.
    """
    from ..sheets import sweep_rows

    refuse_output(output, overwrite)
    pipeline = _open_model(model)
    latents = pipeline.encode(picture) if picture else pipeline.sample(1, seed).latents
    chosen = [int(name) if re.fullmatch("-?[0-9]+", name) else name for name in components] if components else None
    rows = sweep_rows(pipeline, latents, chosen, frames, reach)
    save_picture(picture_grid(sum(rows.values(), []), frames), output)


def sheet(model: Model, seed: Seed = 0, output: Path = Path("sheet.png"), overwrite: bool = False) -> None:
    """Decodes noise with standard deviations from 0.25 to 2.0, one row each, to show the limits of the latent space.

    Example: hf-vae sheet model_cards/cats-vae --output sheet.png

    Args:
        model: Folder or Hub id of a model.
        seed: The same seed gives the same images.
        output: File to write.
        overwrite: Replace the file if it exists.
    """
    from ..sheets import std_sheet

    refuse_output(output, overwrite)
    save_picture(std_sheet(_open_model(model).model, seed), output)


def _labels(arguments: tuple[str, ...]) -> dict[str, str]:
    """The labels in arguments of the form name=value."""
    labels: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not (name and equals and value):
            raise ValueError(f"--label {argument} is not possible; name a label and its value, as in --label age=60.")
        if name in labels:
            raise ValueError(f"--label {name} is given twice; a sample has one value of a label.")
        labels[name] = value
    return labels


def _open_model(model: str) -> ImagePipeline:
    return ImagePipeline.from_pretrained(model).show_progress()
