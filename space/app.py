"""The Space: small image generators to draw from, to reconstruct and morph pictures with, and to compare.

Run `python space/app.py`; it shows the models in `model_cards/`, or those that HF_VAE_MODELS names.
"""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

import gradio as gr

from gate import APP_OPTIONS, GuardedBlocks
from published import open_models, place_among_models
from tabs import about, gan_vs_vae, interpolate, latent_sliders, reconstruct, sample, train_your_own


SPACE = Path(__file__).resolve().parent
MODEL_CARDS = (SPACE / "model_cards", SPACE.parent / "model_cards")  # on the Hub, in the repository

INTRODUCTION = """# Small VAEs and GANs, side by side

Generate new images, reconstruct and morph your own, and compare how sharp each model is.
"""

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # in malloc.h
MAX_WAITING = 64  # calls; the next ones are told that the queue is full
CACHE_SECONDS = (600, 3000)  # how often files are deleted, and how old they are then: gone within the hour
MAX_SESSIONS = 128  # whose state is kept, 300 kB each: a call that is none of the page's is a session of its own

LAUNCH_OPTIONS = {
    # the system's fonts: a visitor's browser asks no other host for anything
    "theme": gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    "css_paths": SPACE / "style.css",
    "footer_links": ["api", "gradio"],
    "max_file_size": "10mb",
    "run_history": False,  # it would keep people's uploads in their browser
    "show_error": False,  # sentences raised as gr.Error are shown all the same; tracebacks and paths are not
    "ssr_mode": False,
    "enable_monitoring": False,  # who called what, for anybody who asks
    "state_session_capacity": MAX_SESSIONS,
    "app_kwargs": APP_OPTIONS,
}


def find_models() -> dict[str, Path | str]:
    """The models to show, by name: those in HF_VAE_MODELS (folders, in which ~ is the home, or Hub ids, separated by
    commas), or else every folder in `model_cards/` that holds a `config.json`: by data set, of each the VAE-GAN
    first, then VAE, DC-GAN and autoencoder, as their names happen to be in the alphabet from its end, and then second
    models of a family.

    Raises:
        ValueError: If there are none, or two have the same name.
    """
    named = [part.strip() for part in os.environ.get("HF_VAE_MODELS", "").split(",") if part.strip()]
    shipped = sorted((config.parent for cards in MODEL_CARDS for config in cards.glob("*/config.json")), reverse=True)
    places = [os.path.expanduser(part) for part in named] or sorted(
        shipped, key=lambda folder: place_among_models(folder.name)
    )
    if not places:
        raise ValueError(f"There are no models in {MODEL_CARDS[1]}; set HF_VAE_MODELS to model folders or Hub ids.")
    models = {Path(place).absolute().name: place for place in places}  # that of "." too
    if len(models) < len(places):
        raise ValueError(f"Two models have the same name in {', '.join(map(str, places))}; rename one of the folders.")
    return models


def build_demo(models: dict[str, Path | str]) -> gr.Blocks:
    """The Space for these models, by name: folders or Hub ids. They are checked, but none of them is loaded yet.

    Raises:
        ValueError: If there are no models, or none of them can be loaded.
    """
    opened, broken = open_models(models)
    encoders = {name: model for name, model in opened.items() if model.has_encoder}
    with GuardedBlocks(title="Small VAEs and GANs", analytics_enabled=False, delete_cache=CACHE_SECONDS) as demo:
        gr.Markdown(INTRODUCTION)
        with gr.Tabs() as tabs:
            samples = sample.build(demo, opened)
            if encoders:
                reconstruct.build(encoders)
            interpolate.build(opened)
            gan_vs_vae.build(opened)
            latent_sliders.build(tabs, opened, samples)
            train_your_own.build()
            about.build(opened, broken)
    # without the queue, as many models would run at a time as there are callers
    return demo.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def return_memory() -> None:
    """Has glibc give the memory of large pictures back as soon as they are gone, and keep two heaps, not one for each
    thread: what a crowd's uploads leave behind would otherwise grow for hours."""
    with suppress(OSError, AttributeError, TypeError):  # where there is another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**20)
        libc.mallopt(M_ARENA_MAX, 2)


def main() -> None:
    """Launches the Space; GRADIO_SERVER_PORT chooses the port."""
    return_memory()
    try:
        build_demo(find_models()).launch(
            server_port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")), **LAUNCH_OPTIONS
        )
    except (ValueError, OSError) as error:  # models that do not exist; a port that is taken
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
