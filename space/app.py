"""The Space: sample from small image generators, reconstruct and morph images with them, and compare them.

`python space/app.py` shows the models in `model_cards/`, or those named in the variable HF_VAE_MODELS.
"""

import ctypes
import os
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import gradio as gr
import torch
from huggingface_hub import SpaceCard

from gate import APP_OPTIONS, GuardedBlocks
from hf_vae.families import title_of
from hf_vae.run_folder import CARD_FILE
from published import model_order, open_models
from tabs import INTERNAL_EVENT, about, compare, edit, generate, model_choices, morph, train_your_own


SPACE = Path(__file__).resolve().parent
MODEL_CARDS = (SPACE / "model_cards", SPACE.parent / "model_cards")  # on the Hub, in the repository

INTRODUCTION = "Small models make new images, edit and morph yours, and show what makes an image sharp."

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # in malloc.h
MAX_WAITING = 64  # calls; further calls are refused with "Queue is full"
CACHE_SECONDS = (600, 3000)  # how often old files are deleted, and how old they must be: deleted within the hour
MAX_SESSIONS = 128  # whose state is kept, 300 kB each; a call from outside the page is a session of its own

# system fonts, so that a visitor's browser sends no request to any other host; colors with enough contrast
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
    block_label_text_color="*primary_700",
    input_placeholder_color="*neutral_600",
    checkbox_label_background_fill_selected="*primary_600",
    link_text_color="*primary_700",
)
LAUNCH_OPTIONS = {
    "theme": THEME,
    "css_paths": [SPACE / "style.css", *sorted((SPACE / "widgets").glob("*.css"))],
    "footer_links": ["api", "gradio"],
    "max_file_size": "10mb",
    "run_history": False,  # would keep uploads in the visitor's browser
    "show_error": False,  # messages raised as gr.Error are still shown; tracebacks and paths are not
    "ssr_mode": False,
    "enable_monitoring": False,  # would show everybody who called what
    "state_session_capacity": MAX_SESSIONS,
    "app_kwargs": APP_OPTIONS,
}


def find_models() -> dict[str, Path | str]:
    """Finds the models to show.

    HF_VAE_MODELS lists folders (`~` is the home folder) or Hub ids, separated by commas; their order is kept. Without
    it, every folder in `model_cards/` with a `config.json` is a model. These are ordered by dataset, then by family as
    in `FAMILIES`, then by name.

    Returns:
        The folder or Hub id of each model, by the model's name.

    Raises:
        ValueError: If there are no models, or two of them have the same name.
    """
    named = [part.strip() for part in os.environ.get("HF_VAE_MODELS", "").split(",") if part.strip()]
    shipped = (config.parent for cards in MODEL_CARDS for config in cards.glob("*/config.json"))
    places = [os.path.expanduser(part) for part in named] or sorted(
        shipped, key=lambda folder: model_order(folder.name)
    )
    if not places:
        raise ValueError(f"There are no models in {MODEL_CARDS[1]}; set HF_VAE_MODELS to model folders or Hub ids.")
    models = {Path(place).absolute().name: place for place in places}  # absolute, so that "." has a name
    if len(models) < len(places):
        raise ValueError(f"Two models have the same name in {', '.join(map(str, places))}; rename one of the folders.")
    return models


def find_title(models: Collection[str]) -> str:
    """The title of the page: that in README.md, which was written for the models in `model_cards/`. For the models in
    HF_VAE_MODELS, it is made of their names."""
    written = SpaceCard.load(SPACE / CARD_FILE).data.title
    return title_of(models) if os.environ.get("HF_VAE_MODELS", "").strip(" ,") or not written else written


def build_demo(models: dict[str, Path | str]) -> gr.Blocks:
    """Builds the page for `models`, folders or Hub ids by name. All of them are checked, none is loaded yet.

    Raises:
        ValueError: If there are no models, or none of them can be loaded.
    """
    opened, broken = open_models(models)
    title = find_title(opened)
    with GuardedBlocks(title=title, analytics_enabled=False, delete_cache=CACHE_SECONDS) as demo:
        gr.Markdown(f"# {title}\n\n{INTRODUCTION}")
        with gr.Tabs() as tabs:
            samples = generate.build(demo, opened)
            editor = edit.build(demo, tabs, opened, samples)
            morphed = morph.build(demo, tabs, opened, page_ready=samples.shown)
            compare.build(opened, page_ready=samples.shown)
            own = train_your_own.build(opened)
            about.build(opened, broken)
        if own.trained is not None:

            def offer(name: str) -> list[gr.Dropdown]:
                """Offers the model that a visitor has trained, and chooses it where one model is chosen."""
                choices = model_choices(opened, [name])
                return [gr.Dropdown(choices, value=name), gr.Dropdown(choices, value=name), gr.Dropdown(choices)]

            fields = [samples.model, editor.model, morphed]
            offered = own.trained.then(offer, own.name, fields, **INTERNAL_EVENT)
            samples.draw_anew(offered.then)
            editor.open_anew(offered.then)
    # callers must use the queue: without it, as many models would run at once as there are callers
    return demo.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def return_memory() -> None:
    """Makes glibc return the memory of large images at once, and use two heaps instead of one for each thread.
    Otherwise memory grows for hours while many visitors upload images."""
    with suppress(OSError, AttributeError, TypeError):  # on a system with another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**20)
        libc.mallopt(M_ARENA_MAX, 2)


def share_cores() -> None:
    """Makes each call compute on half of the cores, unless OMP_NUM_THREADS says how many. Threads without a
    free core wait for each other in a loop: on two cores, beside a busy process, a slider took 0.5 s with two
    threads and 0.12 s with one."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // 2))


def main() -> None:
    """Starts the Space on port 7860, or on the port in GRADIO_SERVER_PORT."""
    return_memory()
    share_cores()
    try:
        build_demo(find_models()).launch(
            server_port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")), **LAUNCH_OPTIONS
        )
    except (ValueError, OSError) as error:  # no such model; the port is in use
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
