"""The tab that says how to train on one's own pictures, and does so for a minute where it can."""

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pandas as pd
from gradio.utils import get_upload_folder

import checks
from live_training import LOSSES, MAX_PICTURES, MAX_STEPS, MIN_PICTURES, can_train, collect_pictures, train_live
from tabs import INTERNAL_EVENT, PICTURE
from uploads import UploadError


FAMILIES = {"VAE": "vae", "VAE-GAN": "vaegan", "autoencoder": "autoencoder", "DC-GAN": "dcgan"}
SIZES = ["64", "128"]
MACHINES = {"a CPU or one GPU": 1, "two GPUs": 2, "four GPUs": 4, "eight GPUs": 8}
MIN_STEPS = 20
LOSS_COLUMNS = ["step", "value", "loss"]


def training_command(family: str, folder: str, size: str, steps: int, machine: int) -> str:
    """The commands that train a family on a folder of pictures and show the model in this Space."""
    family = checks.choice("The family", family, {name: name for name in FAMILIES.values()})
    size = checks.choice("The size", size, {name: name for name in SIZES})
    steps = checks.whole_number("The number of updates", steps, 100, 1_000_000)
    processes = checks.whole_number("The number of processes", machine, 1, 64)
    name = f"{Path(folder).name or 'pictures'}-{family}"
    launch = "accelerate launch" + (f" --num_processes {processes}" if processes > 1 else "")
    run = shlex.quote(f"runs/{name}")
    return (
        f"{launch} train_accelerate.py {family} --resolution {size} --max_train_steps {steps} \\\n"
        f"    --train_data_dir {shlex.quote(folder)} --output_dir {run}\n"
        f"HF_VAE_MODELS={run} python space/app.py"
    )


def train(files: list[dict] | None, family: str, steps: int, seed: int) -> Iterator[tuple]:
    """Trains a small model on uploaded pictures, or zip files of them, for some updates: what is drawn by now, the
    losses, and what was done; in the end a timelapse of it."""
    family = checks.choice("The family", family, {name: name for name in FAMILIES.values()})
    steps = checks.whole_number("The number of updates", steps, MIN_STEPS, MAX_STEPS)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    uploads = [checks.uploaded_file("A file", file) for file in files or []]
    Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=get_upload_folder()))
    try:
        count = collect_pictures(uploads, folder / "pictures")
        for now in train_live(family, folder / "pictures", folder / "run", steps, seed):
            sentence = f"{now.step} of {steps} updates on {count} pictures."
            # a path would be gone when the page asks for it
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
            "A folder of 2,000 images of one kind is enough. Clone the code, and run `make install` once in its "
            "folder: this builds an environment. Activate it in each new terminal with `source .venv/bin/activate`. "
            "Then run these commands. The first one trains, measures the model on images that were held out, and "
            "writes its card. "
            "The second one shows the model in this Space."
        )
        with gr.Row():
            family = gr.Dropdown(list(FAMILIES.items()), value="vae", label="Family")
            folder = gr.Textbox("my_pictures", label="Folder of pictures", max_length=200)
            size = gr.Dropdown(SIZES, label="Size, pixels")
            steps = gr.Number(4000, label="Updates", precision=0)
            machine = gr.Dropdown(list(MACHINES.items()), value=1, label="Machine")
        settings = [family, folder, size, steps, machine]
        command = gr.Code(
            training_command("vae", "my_pictures", "64", 4000, 1),
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
        f"### Here and now\n{MIN_PICTURES} to {MAX_PICTURES} pictures, or a zip of them, at 32 pixels for up to "
        f"{MAX_STEPS} updates: enough to see it learn, not to be good. Nothing of it is kept."
    )
    with gr.Row():
        files = gr.File(label="Pictures or zip files", file_count="multiple", elem_id="train-files")
        with gr.Column():
            family = gr.Dropdown(list(FAMILIES.items()), value="vae", label="Family")
            steps = gr.Slider(MIN_STEPS, MAX_STEPS, 100, step=10, label="Updates")
            seed = gr.Number(0, label="Seed", precision=0)
            with gr.Row():
                start = gr.Button("Train", variant="primary", elem_id="train")
                stop = gr.Button("Stop", elem_id="stop-training")
            sentence = gr.Markdown(elem_id="train-sentence")
    with gr.Row():
        shown = gr.Image(label="What it draws", alt_text="Samples of the model in training", elem_id="live", **PICTURE)
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
