"""The `hf-vae` command: what people do with a trained model from a terminal."""

import json
import platform
import signal
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import tyro

from ..flags import FLAG_STYLE
from ..ranges import with_ranges
from ..run_folder import CARD_FILE, MODEL_CONFIG_FILE
from .arguments import AsJson, RunFolder, with_home_folders
from .directions import directions
from .draw import interpolate, reconstruct, sample, sheet, sweep
from .inspect import data
from .measure import compare, evaluate, table


DESCRIPTION = """What to do with a trained model. `hf-vae COMMAND --help` explains a command, with an example. MODEL is
a folder, such as runs/my-vae, or an id on the Hub, such as me/my-vae."""


def card(
    folder: RunFolder, data_notes: str | None = None, data_license: str | None = None, overwrite: bool = False
) -> None:
    """Writes a model's card, README.md, with its sample images, from the files of its run folder.

    Example: hf-vae card runs/photos-vae --data_notes "My photos of leaves." --data_license cc0-1.0 --overwrite

    Args:
        folder: Folder of a trained and evaluated model.
        data_notes: What the training images show, where they come from and on what terms; kept in the folder.
        data_license: Licence of the training images, such as cc0-1.0; kept in the folder.
        overwrite: Replace a card that says something else, such as one that was edited by hand.
    """
    from ..publishing import cards

    if not overwrite and cards.differs(folder):
        raise ValueError(f"{folder / CARD_FILE} differs from the generated card; pass --overwrite to replace it.")
    cards.describe_data(folder, data_notes, data_license)
    cards.write_card(folder)
    print(f"Wrote {folder / CARD_FILE}")


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
    """Uploads a model's folder to the Hub as one commit, without checkpoints, logs and previews.

    Log in with `hf auth login` first.

    Example: hf-vae push runs/cats-vae --repo_id me/cats-vae --private

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
    from ..publishing import hub

    if hub.lacks_origin(folder):
        print(
            "The card does not say where the training images come from. To add it: hf-vae card "
            f"{folder} --data_notes ... --data_license ...",
            file=sys.stderr,
        )
    print(hub.push(folder, repo_id, private, token, revision, create_pr, tag, commit_message))


def convert(weights: tyro.conf.Positional[Path], recipe: Path, output_dir: Path, overwrite: bool = False) -> None:
    """Turns the weights of a published system, a .pth file of tensors, into a model folder.

    Example: hf-vae convert weights.pth --recipe model_cards/recipes/simpsons-vae-128.json --output_dir runs/converted

    Args:
        weights: A state dict with names such as conv1.weight, fc1.weight, d1.weight and deconv1.weight.
        recipe: Recipe that lists the system's layers, such as model_cards/recipes/simpsons-vae-128.json.
        output_dir: Folder to write.
        overwrite: Replace a model that is there.
    """
    from ..publishing import convert

    if (output_dir / MODEL_CONFIG_FILE).exists() and not overwrite:
        raise ValueError(f"{output_dir} holds a model; choose another --output_dir, or pass --overwrite.")
    convert.convert(weights, recipe).save_pretrained(output_dir)
    print(f"Wrote {output_dir}")


def export(
    model: tyro.conf.Positional[str], output_dir: Path = Path("onnx"), onnx: bool = False, overwrite: bool = False
) -> None:
    """Writes a model in a format that runs without PyTorch, and compares what it computes with the model.

    Example: hf-vae export model_cards/cats-vae --onnx --output_dir onnx

    Args:
        model: Folder or Hub id of a model.
        output_dir: Folder to write.
        onnx: As ONNX: encoder.onnx, decoder.onnx, prior.onnx, and the sizes in onnx.json.
        overwrite: Replace a model that is there.
    """
    from ..models.auto import AutoGenerator
    from ..publishing.export import export_onnx

    if not onnx:
        raise ValueError("Which format? There is one so far: pass --onnx.")
    if (output_dir / "onnx.json").exists() and not overwrite:
        raise ValueError(f"{output_dir} holds a model; choose another --output_dir, or pass --overwrite.")
    for file in export_onnx(AutoGenerator.from_pretrained(model), output_dir):
        print(f"Wrote {file}, {file.stat().st_size:,} bytes")


def env(as_json: AsJson = False) -> None:
    """Prints the versions to put into a bug report.

    Example: hf-vae env --json

    Args:
        as_json: Print JSON.
    """
    import torch

    facts = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in ("hf_vae", "torch", "diffusers", "accelerate", "datasets", "huggingface_hub", "gradio"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = None
    facts["cuda"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(f"{name} {value or 'not available'}" for name, value in facts.items()))


COMMANDS: dict[str, Callable[..., None]] = {
    function.__name__: with_ranges(function)
    for function in (
        *(sample, reconstruct, interpolate, sweep, sheet),
        *(evaluate, compare, table),
        *(directions, card, push, export, convert, data, env),
    )
}


def main() -> None:
    """Entry point: one subcommand a function. What is refused is one line on stderr and exit code 1; a command that
    does not exist, or a flag, is 2; Ctrl-C is 130."""
    try:
        arguments = with_home_folders(sys.argv[1:])
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="hf-vae", description=DESCRIPTION, args=arguments, **FLAG_STYLE
        )
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except ModuleNotFoundError as error:
        extra = "onnx" if (error.name or "").startswith("onnx") else "train"
        sys.exit(
            f"Error: {error}. This command needs the extra [{extra}]: run `make install` and `source "
            f".venv/bin/activate`, or `pip install -e '.[{extra}]'`."
        )
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
