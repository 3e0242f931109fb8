"""The commands that publish a model: its card, the Hub, and other formats."""

import sys
from pathlib import Path

import tyro

from ..run_folder import CARD_FILE, MODEL_CONFIG_FILE
from .arguments import Model, OptionalFolders, RunFolder


def card(
    folder: RunFolder, data_notes: str | None = None, data_license: str | None = None, overwrite: bool = False
) -> None:
    """Writes a model's card (README.md) and its sample images from the files of its run folder.

    Example: hf-vae card runs/photos-vae --data_notes "My photos of leaves." --data_license cc0-1.0 --overwrite

    Args:
        folder: Folder of a trained and evaluated model.
        data_notes: What the training images show, where they come from, and their terms. The folder keeps it.
        data_license: Licence of the training images, such as cc0-1.0. The folder keeps it.
        overwrite: Replace a card that differs, such as one that was edited by hand.
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
    space: str | None = None,
) -> None:
    """Uploads a model folder to the Hub in one commit, without checkpoints, logs and previews.

    With --space it also uploads a Gradio Space that shows the model.

    Log in with `hf auth login` first.

    Example: hf-vae push runs/cats-vae --repo_id me/cats-vae --private

    Args:
        folder: Folder of a trained model with a card.
        repo_id: Repository, as owner/name, or a name in your own account. It is created if it does not exist.
        private: Create it as a private repository.
        create_pr: Open a pull request against main instead of committing to it.
        revision: Branch to commit to (default: main). It is created if it does not exist.
        tag: Tag of the commit, such as v1.0, for others to pin.
        commit_message: First line of the commit message, or title of the pull request.
        token: Token to push with (default: HF_TOKEN, or the token of `hf auth login`).
        space: Space that shows the model, as owner/name, or a name in your own account. It is created if it does not
            exist, and is private if the model is. It shows this model only.
    """
    from ..publishing import hub
    from ..publishing.space import SpaceModel, check_space, push_space

    if space:
        check_space([SpaceModel(folder)], space)  # before the model is published
    if hub.lacks_origin(folder):
        print(
            "The card does not say where the training images come from. To add it: hf-vae card "
            f"{folder} --data_notes ... --data_license ...",
            file=sys.stderr,
        )
    print(hub.push(folder, repo_id, private, token, revision, create_pr, tag, commit_message))
    if space:
        try:
            print(push_space(folder, repo_id, space, private, token))
        except ValueError as error:
            raise ValueError(f"The model {repo_id} is published, but its Space is not. {error}") from error


def space(models: OptionalFolders = (), output_dir: Path = Path("build/space")) -> None:
    """Writes a Gradio Space that shows models: a folder that is ready to start or to upload.

    Without models, it shows those in model_cards/.

    Example: hf-vae space runs/photos-vae runs/photos-vaegan --output_dir build/photos-space

    Args:
        models: Folders of trained and evaluated models.
        output_dir: Folder to write to, new or empty.
    """
    from ..publishing.space import SpaceModel, write_space

    folder = write_space(output_dir, [SpaceModel(model) for model in models])
    print(
        f"Wrote {folder}\nTo start it: python {folder}/app.py\n"
        f"To publish it: hf upload OWNER/SPACE {folder} . --repo-type space"
    )


def convert(weights: tyro.conf.Positional[Path], recipe: Path, output_dir: Path, overwrite: bool = False) -> None:
    """Converts the weights of another published VAE, a .pth state dict, to a model folder.

    Example: hf-vae convert weights.pth --recipe model_cards/recipes/simpsons-vae-128.json --output_dir runs/converted

    Args:
        weights: A state dict with names such as conv1.weight, fc1.weight, d1.weight and deconv1.weight.
        recipe: Recipe that lists its layers, such as model_cards/recipes/simpsons-vae-128.json.
        output_dir: Folder to write to.
        overwrite: Replace a model in that folder.
    """
    from ..publishing import convert

    if (output_dir / MODEL_CONFIG_FILE).exists() and not overwrite:
        raise ValueError(f"{output_dir} already holds a model; choose another --output_dir, or pass --overwrite.")
    convert.convert(weights, recipe).save_pretrained(output_dir)
    print(f"Wrote {output_dir}")


def export(model: Model, output_dir: Path = Path("onnx"), overwrite: bool = False) -> None:
    """Exports a model to ONNX, which runs without PyTorch.

    The files are encoder.onnx, decoder.onnx, prior.onnx, and the sizes in onnx.json. Their outputs are compared with
    those of the model.

    Example: hf-vae export model_cards/cats-vae --output_dir onnx

    Args:
        model: Folder or Hub id of a model.
        output_dir: Folder to write to.
        overwrite: Replace an exported model in that folder.
    """
    from ..models.auto import AutoGenerator
    from ..publishing.export import export_onnx

    if (output_dir / "onnx.json").exists() and not overwrite:
        raise ValueError(f"{output_dir} holds an exported model; choose another --output_dir, or pass --overwrite.")
    for file in export_onnx(AutoGenerator.from_pretrained(model), output_dir):
        print(f"Wrote {file}, {file.stat().st_size:,} bytes")
