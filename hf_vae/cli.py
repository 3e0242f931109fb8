"""The `hf-vae` command: what people do with a trained model from a terminal."""

import dataclasses
import json
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import tyro
from PIL import Image

from .config import FLAG_STYLE, DataConfig
from .pipeline import ImagePipeline
from .transforms import picture_grid


def sample(
    model: tyro.conf.Positional[str],
    num: int = 16,
    seed: int = 0,
    temperature: float = 1.0,
    prior: str | None = None,
    columns: int = 8,
    output: Path = Path("samples.png"),
    overwrite: bool = False,
) -> None:
    """Draws pictures from a model and saves them as one grid.

    Args:
        model: Folder or Hub id of a model.
        num: How many pictures.
        seed: The same seed gives the same pictures.
        temperature: Scale of the noise; below 1 is more typical and less varied.
        prior: flow, mixture, gaussian or standard; the model's own if left out.
        columns: Pictures in a row.
        output: File to write.
        overwrite: Replace the file if it exists.
    """
    pictures = ImagePipeline.from_pretrained(model).sample(num, seed, temperature, prior).images
    _save(picture_grid(pictures, columns), output, overwrite)


def reconstruct(
    model: tyro.conf.Positional[str],
    pictures: tyro.conf.Positional[list[Path]],
    output: Path = Path("reconstructions.png"),
    overwrite: bool = False,
) -> None:
    """Encodes and decodes pictures: what the model sees in the upper row, what it makes of it in the lower.

    Args:
        model: Folder or Hub id of a model with an encoder.
        pictures: Picture files.
        output: File to write.
        overwrite: Replace the file if it exists.
    """
    pipeline = ImagePipeline.from_pretrained(model)
    originals = [_open(path) for path in pictures]
    reconstructions = pipeline.reconstruct(originals).images
    seen = [pipeline.prepare(picture).resize(reconstructions[0].size) for picture in originals]
    _save(picture_grid(seen + reconstructions, len(seen)), output, overwrite)


def interpolate(
    model: tyro.conf.Positional[str],
    start: tyro.conf.Positional[Path],
    end: tyro.conf.Positional[Path],
    frames: int = 8,
    kind: str = "lerp",
    output: Path = Path("interpolation.png"),
    overwrite: bool = False,
) -> None:
    """Morphs one picture into another, as a strip of frames.

    Args:
        model: Folder or Hub id of a model with an encoder.
        start: Picture file to start from.
        end: Picture file to end at.
        frames: Number of frames, the reconstructions of both pictures included.
        kind: lerp or slerp.
        output: File to write.
        overwrite: Replace the file if it exists.
    """
    pictures = ImagePipeline.from_pretrained(model).interpolate(_open(start), _open(end), frames, kind).images
    _save(picture_grid(pictures, frames), output, overwrite)


def evaluate(
    folder: tyro.conf.Positional[Path],
    train_data_dir: str | None = None,
    dataset_name: str | None = None,
    save: bool = False,
) -> None:
    """Measures a model on the pictures that its training held out, and prints the numbers of its metrics.json as JSON.

    Args:
        folder: Folder of a trained model.
        train_data_dir: Where the pictures that it was trained on lie; as in train_config.json if left out.
        dataset_name: The same for a preset or a dataset on the Hub.
        save: Write metrics.json into the folder.
    """
    from . import cards, evaluation

    data = DataConfig(**cards.read_json(folder, "train_config.json")["data"])
    if train_data_dir or dataset_name:
        data = dataclasses.replace(data, train_data_dir=train_data_dir, dataset_name=dataset_name)
    print(json.dumps(evaluation.rounded(evaluation.evaluate_folder(folder, data, save)), indent=2))


def card(folder: tyro.conf.Positional[Path]) -> None:
    """Writes a model's card, README.md, and its samples.png, from the files of its run folder.

    Args:
        folder: Folder of a trained and evaluated model.
    """
    from . import cards

    cards.write_card(folder)
    print(f"Wrote {folder / 'README.md'}")


def push(
    folder: tyro.conf.Positional[Path],
    repo_id: str,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    commit_message: str = "Upload model with hf_vae",
    token: str | None = None,
) -> None:
    """Uploads a model's folder to the Hub as one commit, without checkpoints, logs and previews. Log in with
    `hf auth login` first.

    Args:
        folder: Folder of a trained model with a card.
        repo_id: Repository, as owner/name, or a name in your own account; created if it does not exist.
        private: Create it as a private one.
        create_pr: Open a pull request against main instead of committing to it.
        revision: Branch to commit to, created if it does not exist; main if left out.
        tag: Name to give to the commit, such as v1.0, for others to pin.
        commit_message: First line of the commit, or title of the pull request.
        token: Token to push with; that of `hf auth login`, or HF_TOKEN, if left out.
    """
    from . import hub

    print(hub.push(folder, repo_id, private, token, revision, create_pr, tag, commit_message))


def sheet(
    model: tyro.conf.Positional[str], seed: int = 0, output: Path = Path("sheet.png"), overwrite: bool = False
) -> None:
    """Decodes noise of standard deviation 0.25 to 2.0, one row each, to show where a latent space ends.

    Args:
        model: Folder or Hub id of a model.
        seed: The same seed gives the same pictures.
        output: File to write.
        overwrite: Replace the file if it exists.
    """
    from .comparison import std_sheet

    _save(std_sheet(ImagePipeline.from_pretrained(model).model, seed), output, overwrite)


def table(
    prefix: tyro.conf.Positional[str],
    train_data_dir: str,
    runs: Path = Path("runs"),
    recipes: Path = Path("model_cards/recipes"),
) -> None:
    """Prints what our runs of the recipes reached beside what was published.

    Args:
        prefix: How the recipes' names begin, such as lfw.
        train_data_dir: The pictures that they were trained on.
        runs: Folder with a run of each, under the recipe's name.
        recipes: Folder of the recipes.
    """
    from . import comparison

    print(comparison.table(recipes, prefix, runs, train_data_dir))


def convert(weights: tyro.conf.Positional[Path], recipe: Path, output_dir: Path, overwrite: bool = False) -> None:
    """Turns the weights of a published system, a .pth file of tensors, into a model folder.

    Args:
        weights: A state dict with names such as conv1.weight, fc1.weight, d1.weight and deconv1.weight.
        recipe: Recipe that lists the system's layers, such as model_cards/recipes/simpsons-vae-128.json.
        output_dir: Folder to write.
        overwrite: Replace a model that is there.
    """
    from . import conversion

    if (output_dir / "config.json").exists() and not overwrite:
        raise ValueError(f"{output_dir} holds a model; choose another --output_dir, or say --overwrite.")
    conversion.convert(weights, recipe).save_pretrained(output_dir)
    print(f"Wrote {output_dir}")


def export(
    model: tyro.conf.Positional[str], output_dir: Path = Path("onnx"), onnx: bool = False, overwrite: bool = False
) -> None:
    """Writes a model in a format that runs without PyTorch, and compares what it computes with the model.

    Args:
        model: Folder or Hub id of a model.
        output_dir: Folder to write.
        onnx: As ONNX: encoder.onnx, decoder.onnx, prior.onnx, and the sizes in onnx.json.
        overwrite: Replace a model that is there.
    """
    from .export import export_onnx

    if not onnx:
        raise ValueError("Which format? There is one so far: say --onnx.")
    if (output_dir / "onnx.json").exists() and not overwrite:
        raise ValueError(f"{output_dir} holds a model; choose another --output_dir, or say --overwrite.")
    for file in export_onnx(ImagePipeline.from_pretrained(model).model, output_dir):
        print(f"Wrote {file}, {file.stat().st_size:,} bytes")


def env() -> None:
    """Prints the versions to put into a bug report."""
    import torch

    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in ("hf_vae", "torch", "diffusers", "accelerate", "datasets", "huggingface_hub", "gradio"):
        try:
            print(f"{name} {version(name)}")
        except PackageNotFoundError:
            print(f"{name} is not installed")
    print(f"CUDA: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'not available'}")


COMMANDS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (sample, reconstruct, interpolate, evaluate, card, push, export, sheet, table, convert, env)
}


def main() -> None:
    """Entry point: one subcommand a function; errors of the user are one line and exit code 1."""
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="hf-vae", description=__doc__, **FLAG_STYLE)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except ModuleNotFoundError as error:
        extra = "onnx" if (error.name or "").startswith("onnx") else "train"
        sys.exit(f"Error: {error}. Install what this command needs, the extra [{extra}].")


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise ValueError(f"{path} is no file.")
    try:
        picture = Image.open(path)
        picture.load()
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read: {error}") from error
    return picture


def _save(picture: Image.Image, path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; choose another --output, or say --overwrite.")
    picture.save(path)
    print(f"Wrote {path}, {picture.width}x{picture.height} pixels")
