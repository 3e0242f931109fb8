"""The tab that shows how to train on your own images, and trains for a minute if the packages are installed."""

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pandas as pd
from gradio.utils import get_upload_folder

import checks
from hf_vae.families import FAMILIES
from live_training import LOSSES, MAX_PICTURES, MAX_STEPS, MIN_PICTURES, can_train, collect_pictures, train_live
from tabs import INTERNAL_EVENT, PICTURE
from uploads import UploadError


SIZES = ["64", "128"]
MACHINES = {"CPU or one GPU": 1, "two GPUs": 2, "four GPUs": 4, "eight GPUs": 8}
MIN_STEPS = 20
LOSS_COLUMNS = ["step", "value", "loss"]


def training_command(family: str, folder: str, size: str, steps: int, machine: int) -> str:
    """The commands that train a model on a folder of images and show it in this Space."""
    checks.choice("The family", family, FAMILIES)
    size = checks.choice("The size", size, {name: name for name in SIZES})
    steps = checks.whole_number("The number of training steps", steps, 100, 1_000_000)
    processes = checks.whole_number("The number of processes", machine, 1, 64)
    name = f"{Path(folder).name or 'images'}-{family}"
    launch = "accelerate launch" + (f" --num_processes {processes}" if processes > 1 else "")
    run = shlex.quote(f"runs/{name}")
    return (
        f"{launch} train_accelerate.py {family} --resolution {size} --max_train_steps {steps} \\\n"
        f"    --train_data_dir {shlex.quote(folder)} --output_dir {run}\n"
        f"HF_VAE_MODELS={run} python space/app.py"
    )


def family_choices() -> list[tuple[str, str]]:
    """The choices of a dropdown of families, by their titles."""
    return [(family.title, name) for name, family in FAMILIES.items()]


def train(files: list[dict] | None, family: str, steps: int, seed: int) -> Iterator[tuple]:
    """Trains a small model on uploaded images, or zip files of images. Yields the newest samples, the losses and a
    sentence on the progress; the last image is a timelapse of all samples."""
    checks.choice("The family", family, FAMILIES)
    steps = checks.whole_number("The number of training steps", steps, MIN_STEPS, MAX_STEPS)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    uploads = [checks.uploaded_file("A file", file) for file in files or []]
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=get_upload_folder()))
    try:
        count = collect_pictures(uploads, folder / "pictures")
        for now in train_live(family, folder / "pictures", folder / "run", steps, seed):
            sentence = f"Step {now.step} of {steps}, {count} images."
            # copied, because the page may ask for the file after the folder is deleted
            shown = (now.timelapse or now.preview) and _kept(now.timelapse or now.preview)
            yield shown, _losses(now.losses), sentence
    except (UploadError, RuntimeError) as reason:
        raise checks.refusal(str(reason)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kept(path: Path) -> str:
    kept = Path(tempfile.mkdtemp(dir=get_upload_folder())) / path.name
    shutil.copy(path, kept)
    return str(kept)


def _losses(lines: list[dict]) -> pd.DataFrame:
    names = [name for name in LOSSES if name != "step"]
    rows = [(line["step"], line[name], name) for line in lines for name in names if name in line]
    return pd.DataFrame(rows, columns=LOSS_COLUMNS)


def build() -> None:
    """Adds the tab."""
    with gr.Tab("Train your own", id="train"):
        gr.Markdown(
            "A folder with 2,000 images of one kind is enough. Clone the repository and run `make install` in it. In "
            "each new terminal, run `source .venv/bin/activate`. Then run the commands below. The first command "
            "trains a model, measures it on held-out images and writes its model card. The second command shows the "
            "model in this Space on your machine."
        )
        with gr.Row():
            family = gr.Dropdown(family_choices(), label="Family")
            folder = gr.Textbox("my_images", label="Folder of images", max_length=200)
            size = gr.Dropdown(SIZES, label="Image size")
            steps = gr.Number(4000, label="Training steps", precision=0)
            machine = gr.Dropdown(list(MACHINES.items()), value=1, label="Machine")
        settings = [family, folder, size, steps, machine]
        command = gr.Code(
            training_command(family.value, "my_images", "64", 4000, 1),
            language="shell",
            label="Commands",
            interactive=False,
            elem_id="command",
        )
        gr.on(
            [setting.change for setting in settings],
            training_command,
            settings,
            command,
            trigger_mode="always_last",
            **INTERNAL_EVENT,
        )
        if can_train():
            _build_live_run()


def _build_live_run() -> None:
    gr.Markdown(
        f"### Try it here\nUpload {MIN_PICTURES} to {MAX_PICTURES} images, or a zip file of images. A small model is "
        f"trained on them at 32 pixels for up to {MAX_STEPS} steps. This is enough to watch it learn, but not enough "
        "for good results. Nothing is saved."
    )
    with gr.Row():
        files = gr.File(label="Images or zip files", file_count="multiple", elem_id="train-files")
        with gr.Column():
            family = gr.Dropdown(family_choices(), label="Family")
            steps = gr.Slider(MIN_STEPS, MAX_STEPS, 100, step=10, label="Training steps")
            seed = gr.Number(0, label="Seed", precision=0)
            with gr.Row():
                start = gr.Button("Train", variant="primary", elem_id="train")
                stop = gr.Button("Stop", elem_id="stop-training")
            sentence = gr.Markdown(elem_id="train-sentence")
    with gr.Row():
        shown = gr.Image(label="Samples", alt_text="Samples during training", elem_id="live", **PICTURE)
        losses = gr.LinePlot(x="step", y="value", color="loss", title="Losses", height=280, elem_id="losses")
    run = start.click(
        train,
        [files, family, steps, seed],
        [shown, losses, sentence],
        api_visibility="private",
        concurrency_id="training",
        concurrency_limit=1,
        preprocess=False,
    )
    stop.click(None, cancels=[run], **INTERNAL_EVENT)
