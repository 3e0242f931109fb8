"""The tab that trains a model on a visitor's own images in minutes, if the packages are installed, and shows the
commands that train for longer."""

import shlex
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.events import Dependency
from PIL import Image

import checks
from hf_vae.families import FAMILIES
from hf_vae.run_folder import SAMPLES_FILE
from live_training import (
    MAX_MINUTES,
    MAX_PICTURES,
    MIN_MINUTES,
    MIN_PICTURES,
    SIZES,
    LiveRun,
    can_train,
    collect_pictures,
    packed,
    thin_out,
    train_live,
)
from published import OWN_SECONDS, Models, own_name
from tabs import INTERNAL_EVENT, PICTURE, new_folder
from uploads import UploadError
from widgets import widget


FULL_SIZES = ["64", "128"]
MACHINES = {"CPU or one GPU": 1, "two GPUs": 2, "four GPUs": 4, "eight GPUs": 8}


def training_command(family: str, folder: str, size: str, steps: int, machine: int) -> str:
    """The commands that train a model on a folder of images and show it in this Space."""
    checks.choice("The family", family, FAMILIES)
    size = checks.choice("The size", size, {name: name for name in FULL_SIZES})
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


LEAST_MINUTES = 0.1  # for tests; the slider starts at MIN_MINUTES
FOLDER = "my-model"  # of the files that a visitor downloads; the card has this name too
LOSS_TITLES = {
    "loss": "Loss",
    "mse": "Reconstruction error (MSE)",
    "d_loss": "Loss of the discriminator",
    "g_loss": "Loss of the generator",
}
WAITING = (
    "The images and losses of your model appear here while it learns, and in the end a button to download it. With "
    f"{MIN_PICTURES} to 200 images, one minute gives a likeness; more minutes make it sharper."
)
# all that a call needs of each file: 2,000 of them must fit into one call
PATHS_JS = "(files, ...others) => [files && files.map(({path, meta}) => ({path, meta})), ...others]"
STOPPED = "Stopping. Nothing is kept."
FAILED_RUN = "No model was trained. Press **Train** again, or upload other images."


class OwnModel(NamedTuple):
    """The model that a visitor has trained.

    Args:
        name: Its name in the `Models`; "" before.
        trained: The event after which there is a new one.
    """

    name: gr.State
    trained: Dependency


class Shown(NamedTuple):
    """What the tab shows of a run, in the order of its outputs."""

    sentence: Any = gr.skip()
    preview: Any = gr.skip()
    timelapse: Any = gr.skip()
    losses: Any = gr.skip()
    download: Any = gr.skip()
    name: Any = gr.skip()
    stop: Any = gr.skip()


def train(
    models: Models,
    files: list[dict] | None,
    family: str,
    size: int,
    minutes: float,
    seed: int,
    last: str = "",
) -> Iterator[Shown]:
    """Trains a small model on uploaded images, or zip files of images, within so many minutes. Yields what the page
    shows: a sentence on the progress, the newest samples and the losses; in the end a timelapse of all samples, a zip
    file with the model, and the name under which `models` keeps it for an hour. The model of the name `last`, which
    the visitor trained before, is deleted then."""
    checks.choice("The family", family, FAMILIES)
    size = checks.choice("The size", str(size), {str(each): each for each in SIZES})
    minutes = checks.number("The number of minutes", minutes, LEAST_MINUTES, MAX_MINUTES)
    seed = checks.whole_number("The seed", seed, 0, checks.MAX_SEED)
    uploads = [checks.uploaded_file("A file", file) for file in files or []]
    home = new_folder()
    is_kept = False
    try:
        yield Shown(
            f"Reading {len(uploads):,} files.",
            *(gr.update(visible=False) for _ in range(4)),
            stop=gr.update(interactive=True),
        )
        found = collect_pictures(uploads, home / "pictures")
        used = thin_out(home / "pictures", minutes)
        images = f"{used:,} images" if used == found else f"{used:,} of {found:,} images, as this machine is busy"
        begin = time.monotonic()
        for now in train_live(home / "pictures", home / FOLDER, family, size, minutes, seed):
            left = 60 * minutes - (time.monotonic() - begin)  # a machine that becomes busy meanwhile takes longer
            yield Shown(progress(now, images, max(left, now.seconds_left)), preview=_preview(now), losses=_curves(now))
        name = own_name(family)
        archive = packed(home / FOLDER)
        model = models.own.keep(name, home / FOLDER, home)
        is_kept = True
        models.own.delete(last)
        yield Shown(
            f"**Done** in {as_time(time.monotonic() - begin)}, with {images}. **{model.title}** is now in the "
            f"lists of models in the other tabs, only for you, for {as_time(OWN_SECONDS)}.",
            _picture(home / FOLDER / SAMPLES_FILE, rows=0.5),
            gr.update(value=str(now.timelapse), visible=True) if now.timelapse else gr.skip(),
            _curves(now),
            gr.update(value=str(archive), visible=True),
            name,
            gr.update(interactive=False),
        )
    except (UploadError, RuntimeError) as reason:
        raise checks.refusal(str(reason)) from None
    finally:
        shutil.rmtree(home / "pictures" if is_kept else home, ignore_errors=True)
        shutil.rmtree(home / "cache", ignore_errors=True)


def progress(now: LiveRun, images: str, seconds_left: float) -> str:
    """What a run does, in a sentence: with `images` such as "50 images", and so many seconds of its minutes left."""
    left = f"about {as_time(seconds_left)} left" if seconds_left >= 5 else "a few seconds left"
    steps = f" Step {now.step:,} of {now.num_steps:,}." if now.step and now.num_steps else ""
    return f"**{now.doing}**, {left}, {images}.{steps}"


def as_time(seconds: float) -> str:
    """A time in words: minutes if there are two or more, else seconds, in fives while they are many."""
    if seconds >= 3600:
        return "an hour"
    if seconds >= 120:
        return f"{round(seconds / 60)} minutes"
    return f"{5 * round(seconds / 5) if seconds > 10 else max(1, round(seconds))} seconds"


def _preview(now: LiveRun) -> Any:
    return _picture(now.preview) if now.preview else gr.skip()


def _picture(file: Path, rows: float = 1) -> Any:
    """An image that becomes visible, or the upper `rows` of it: half of the samples in a card are as many as in a
    preview, and as large then."""
    with Image.open(file) as picture:
        shown = picture.convert("RGB").crop((0, 0, picture.width, round(rows * picture.height)))
    return gr.update(value=shown, visible=True)


def _curves(now: LiveRun) -> Any:
    curves = [{"title": LOSS_TITLES[name], "points": points} for name, points in now.losses.items() if len(points) > 1]
    return gr.update(value={"curves": curves}, visible=True) if curves else gr.skip()


def build(models: Models, *, page_ready: Any = None) -> OwnModel:
    """Adds the tab. `page_ready` is the event of the first images of the page; this tab needs none of its own."""
    with gr.Tab("Train your own", id="train"):
        own = _build_live_run(models) if can_train() else None
        if own:
            gr.Markdown("### Train for longer on your machine")
        gr.Markdown(
            "A folder with 2,000 images of one kind is enough. Clone the repository and run `make install` in it. In "
            "each new terminal, run `source .venv/bin/activate`. Then run the commands below. The first command "
            "trains a model, measures it on held-out images and writes its model card. The second command shows the "
            "model in this Space on your machine."
        )
        with gr.Row():
            family = gr.Dropdown(family_choices(), label="Family")
            folder = gr.Textbox("my_images", label="Folder of images", max_length=200)
            size = gr.Dropdown(FULL_SIZES, label="Image size")
            steps = gr.Number(4000, label="Training steps", precision=0)
            machine = gr.Dropdown(list(MACHINES.items()), value=1, label="Machine")
        settings = [family, folder, size, steps, machine]
        command = gr.Code(
            training_command(family.value, "my_images", "64", 4000, 1),
            language=None,  # the colors of the highlighting have too little contrast
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
    return own or OwnModel(gr.State(""), None)


def _build_live_run(models: Models) -> OwnModel:
    gr.Markdown(
        f"Upload {MIN_PICTURES} to {MAX_PICTURES:,} images of one kind, or zip files of images, of up to 10 MB each. "
        "The model learns from most of them and is measured on the others. Your images are deleted within the hour."
    )
    with gr.Row():
        with gr.Column():
            files = gr.File(label="Images or zip files", file_count="multiple", height=170, elem_id="train-files")
            with gr.Row():
                family = gr.Dropdown(family_choices(), label="Family", min_width=120)
                size = gr.Dropdown([(f"{each} pixels", each) for each in SIZES], label="Image size", min_width=120)
            minutes = gr.Slider(MIN_MINUTES, MAX_MINUTES, MIN_MINUTES, step=1, label="Minutes", elem_id="minutes")
            seed = gr.Number(0, label="Seed", precision=0, min_width=120)
            with gr.Row():
                start = gr.Button("Train", variant="primary", min_width=120, elem_id="train")
                stop = gr.Button("Stop", interactive=False, min_width=120, elem_id="stop-training")
        with gr.Column(elem_id="trained"):
            sentence = gr.Markdown(WAITING, elem_id="train-sentence")
            download = gr.DownloadButton(
                "Download your model", variant="primary", visible=False, elem_id="download-model"
            )
            shown = gr.Image(
                label="Samples", alt_text="Samples of your model", visible=False, elem_id="live", **PICTURE
            )
            timelapse = gr.Image(
                label="Timelapse",
                alt_text="Samples from the first step to the last",
                visible=False,
                elem_id="timelapse",
                **PICTURE,
            )
            losses = widget("losses", visible=False, elem_id="losses")
            name = gr.State("", time_to_live=OWN_SECONDS, delete_callback=models.own.delete)
    run = start.click(
        partial(train, models),
        [files, family, size, minutes, seed, name],
        list(Shown(sentence, shown, timelapse, losses, download, name, stop)),
        api_name="train",
        api_visibility="private",
        concurrency_id="training",
        concurrency_limit=1,
        preprocess=False,
        show_progress="hidden",
        js=PATHS_JS,
    )
    ended = [sentence, stop]
    # a run that was stopped has failed too, once its process has ended
    run.failure(lambda: (FAILED_RUN, gr.update(interactive=False)), None, ended, **INTERNAL_EVENT)
    stop.click(lambda: (STOPPED, gr.update(interactive=False)), None, ended, cancels=[run], **INTERNAL_EVENT)
    return OwnModel(name, run.success(None, js="() => null", **INTERNAL_EVENT))
