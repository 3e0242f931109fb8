"""The tab that morphs one image into another."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from reprlib import repr as short_repr
from typing import Any
from urllib.parse import urlencode

import gradio as gr
import torch
from PIL import Image

import checks
from animation import FORMATS, film_strip, save_loop, side_by_side
from faces import CROPS, crop_to_face
from hf_vae.models.priors import PATHS as PATH_KINDS
from hf_vae.models.priors import PRIORS
from published import PublishedModel, data_set_title
from tabs import (
    INTERNAL_EVENT,
    MODEL_EVENT,
    PICTURE,
    THUMBNAILS,
    UPLOAD,
    model_choices,
    model_event,
    new_folder,
    shown_title,
)
from widgets import data_url, widget


MIN_FRAMES, MAX_FRAMES = 4, 60
MAX_SPEED = 30
MAX_MODELS = 4
FRAMES, SPEED = 24, 16
OWN = "own"  # the default path of each model
PATHS = {"the model's own": OWN, "straight line (lerp)": "lerp", "great circle (slerp)": "slerp"}
PATHS |= {f"through the {kind}": kind for kind in PATH_KINDS if kind in PRIORS}
EXAMPLES = ((9, 14), (21, 31))  # pairs of seeds
NUM_CACHED = 16  # morphs of samples, of up to 3 MB each

# the address of the page is known only in the browser
LINK_JS = '(query) => query && location.origin + location.pathname + "?" + query'
SPEED_JS = """(speed, player, link) =>
    [player && { ...player, fps: speed }, link && link.replace(/speed=[0-9]+/, `speed=${speed}`)]"""
DOWNLOAD_JS = """(file) => {
    const link = Object.assign(document.createElement("a"), { href: file.url, download: file.orig_name });
    document.body.append(link);
    link.click();
    link.remove();
}"""

Ends = list[Image.Image] | list[int]
Report = Callable[[float, str], object]


def interpolate(
    opened: dict[str, PublishedModel],
    models: list[str] | str,
    start: dict | None,
    end: dict | None,
    start_seed: int,
    end_seed: int,
    path: str,
    frames: int,
    speed: int,
    file_format: str,
    progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio passes one for this default)
) -> tuple[list[tuple[Image.Image, str]], str, str]:
    """Morphs from one image to another with up to four models side by side. Without images, morphs between the samples
    of two seeds. Returns all frames with captions, an endless WebP animation that plays forwards and backwards, and
    the same animation in the requested file format. A model without an encoder searches for the images, which takes
    several seconds."""
    chosen, kind, frames, speed = _checked(opened, models, path, frames, speed)
    file_format = checks.choice("The file format", file_format, {name: name for name in FORMATS})
    rows = _walk(chosen, _ends(start, end, start_seed, end_seed), frames, kind, progress)
    images = [side_by_side(list(row)) for row in zip(*rows, strict=True)]
    progress(1.0, "Writing the animation")
    shown, asked_for = (new_folder() / f"morph.{ending}" for ending in ("webp", file_format))
    save_loop(images, shown, speed)
    save_loop(images, asked_for, speed)
    names = ", ".join(model.name for model in chosen)
    captions = (f"{names}: frame {number} of {frames}" for number in range(1, frames + 1))
    return list(zip(images, captions, strict=True)), str(shown), str(asked_for)


def play(
    opened: dict[str, PublishedModel],
    models: list[str],
    start: dict | None,
    end: dict | None,
    start_seed: int,
    end_seed: int,
    path: str,
    frames: int,
    speed: int,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> list:
    """The same morph for the page: what the player shows, the frames of each model for the downloads, the query of a
    link that restores it, and a sentence if it has no link."""
    chosen, kind, frames, speed = _checked(opened, models, path, frames, speed)
    ends = _ends(start, end, start_seed, end_seed)
    titles = [shown_title(opened, model.name) for model in chosen]
    if isinstance(ends[0], int):
        shown, rows = _of_samples(tuple(zip(chosen, titles, strict=True)), *ends, frames, kind)
        query = {"models": ",".join(model.name for model in chosen), "start_seed": ends[0], "end_seed": ends[1]}
        query |= {"path": kind or OWN, "frames": frames, "speed": speed}
        link, note = gr.Textbox(urlencode({"morph": 1} | query, safe=","), visible=True), ""
    else:
        rows = _walk(chosen, ends, frames, kind, progress)
        shown = [_row(title, row, _seen(model, ends)) for title, model, row in zip(titles, chosen, rows, strict=True)]
        link, note = gr.Textbox("", visible=False), "Uploads are not stored, so this morph has no link."
    return [{"rows": shown, "fps": speed}, rows, link, gr.Markdown(note, visible=bool(note))]


@lru_cache(NUM_CACHED)  # every visitor opens the tab with the same morph
def _of_samples(
    models: tuple[tuple[PublishedModel, str], ...], start_seed: int, end_seed: int, frames: int, kind: str | None
) -> tuple[list[dict], list[list[Image.Image]]]:
    """The rows of the player for models with their titles, and the frames of each."""
    rows = _walk([model for model, _ in models], [start_seed, end_seed], frames, kind, lambda *_: None)
    return [_row(title, row, [row[0], row[-1]]) for (_, title), row in zip(models, rows, strict=True)], rows


def _row(title: str, frames: list[Image.Image], ends: list[Image.Image]) -> dict[str, Any]:
    """A row of the player. `ends` are what the morph runs between: the uploads as the model sees them, or samples."""
    return {
        "title": title,
        "frames": data_url(film_strip(frames)),
        "count": len(frames),
        "size": frames[0].height,
        "ends": [data_url(end) for end in ends],
    }


def _checked(
    opened: dict[str, PublishedModel], models: Any, path: Any, frames: Any, speed: Any
) -> tuple[list[PublishedModel], str | None, int, int]:
    """The models, the path (None for each model's own), the number of frames and the speed that values ask for."""
    names = [models] if isinstance(models, str) else models
    if not isinstance(names, list):
        raise checks.refusal(f"The models are {short_repr(models)}; they must be a list of names.")
    if not 1 <= len(names) <= MAX_MODELS:
        raise checks.refusal(f"Choose 1 to {MAX_MODELS} models; {len(names)} are chosen.")
    kind = checks.choice("The path", path, {kind: kind for kind in PATHS.values()})
    chosen = [_walker(checks.choice("The model", name, opened), kind) for name in names]
    frames = checks.whole_number("The number of frames", frames, MIN_FRAMES, MAX_FRAMES)
    speed = checks.whole_number("The speed", speed, 1, MAX_SPEED)
    return chosen, None if kind == OWN else kind, frames, speed


def _walker(model: PublishedModel, kind: str) -> PublishedModel:
    if not _has_path(model, kind):
        raise checks.refusal(f"The model {model.title} has no {kind} prior; choose another path, or remove the model.")
    return model


def _has_path(model: PublishedModel, kind: str) -> bool:
    return kind not in PRIORS or kind in model.priors


def _ends(start: dict | None, end: dict | None, start_seed: int, end_seed: int) -> Ends:
    if start and not end:
        raise checks.refusal("Upload a second image, or remove the first one.")
    if end and not start:
        raise checks.refusal("Upload a first image, or remove the second one.")
    if start and end:
        return [checks.picture("The first image", start), checks.picture("The second image", end)]
    seeds = {"The first seed": start_seed, "The second seed": end_seed}
    return [checks.whole_number(name, seed, 0, checks.MAX_SEED) for name, seed in seeds.items()]


def _walk(
    models: Sequence[PublishedModel], ends: Ends, frames: int, kind: str | None, report: Report
) -> list[list[Image.Image]]:
    """The frames of each model. `report` is told the share that is done, and what is being done."""
    rows = []
    for number, model in enumerate(models):

        def report_share(done: float, before: int = number, name: str = model.title) -> None:
            report((before + done) / len(models), f"Morphing with {name}")

        report_share(0)
        rows.append(model.pipeline.interpolate_latents(_latents(model, ends, report_share), frames, kind).images)
    return rows


def _latents(model: PublishedModel, ends: Ends, report: Callable[[float], None]) -> torch.Tensor:
    """The latents `(2, Z)` of the two ends."""
    if isinstance(ends[0], int):
        return torch.cat([model.pipeline.sample(1, seed).latents for seed in ends])
    pictures = [_cropped(model, picture) for picture in ends]
    return model.pipeline.encode(pictures) if model.has_encoder else model.pipeline.invert(pictures, report=report)


def _cropped(model: PublishedModel, picture: Image.Image) -> Image.Image:
    """The face, or the whole image if no face is found; a pipeline takes the largest centred square of it."""
    return crop_to_face(picture, model.data_set) or picture


def _seen(model: PublishedModel, pictures: list[Image.Image]) -> list[Image.Image]:
    """The images as the model sees them: cropped, and at its resolution."""
    return [model.pipeline.prepare(_cropped(model, picture)) for picture in pictures]


def animate(kind: str, rows: list[list[Image.Image]] | None, speed: int) -> str:
    """Writes the morph on the page to a file, all models side by side."""
    if not rows:
        raise checks.refusal("There is no morph to download; press Morph first.")
    path = new_folder() / f"morph.{kind}"
    images = [side_by_side(list(row)) for row in zip(*rows, strict=True)]
    save_loop(images, path, checks.whole_number("The speed", speed, 1, MAX_SPEED))
    return str(path)


def crop(opened: dict[str, PublishedModel], models: list[str], upload: dict | None) -> dict[str, str]:
    """An upload as the first of the models sees it, and a sentence on the crop. If the upload is refused, the sentence
    says why. Empty without an upload."""
    if not upload:
        return {}
    names = models or list(opened)
    try:
        model = checks.choice("The model", names[0] if isinstance(names, list) else names, opened)
        picture = checks.picture("The image", upload)
    except gr.Error as refused:
        return {"sentence": refused.message}
    face = crop_to_face(picture, model.data_set)
    if face is not None:
        sentence = f"Cropped to the face, as for {data_set_title(model.data_set)}."
    elif model.data_set in CROPS:
        sentence = "No face found: cropped to the largest centered square."
    else:
        sentence = "Cropped to the largest centered square."
    seen = model.pipeline.prepare(picture if face is None else face)
    return {"image": data_url(seen), "alt": "What the models see", "sentence": sentence}


def fit(opened: dict[str, PublishedModel], models: list[str], path: str, start: dict | None, end: dict | None) -> list:
    """What the page offers for newly chosen models: the paths that all of them have, the example pairs, and both
    crops."""
    if not models:
        return [gr.skip()] * 4
    chosen, *_ = _checked(opened, models, OWN, FRAMES, SPEED)
    return [
        path_field(chosen, path),
        {"pairs": _examples(chosen[0])},
        crop(opened, models, start),
        crop(opened, models, end),
    ]


def path_field(models: Sequence[PublishedModel], path: str) -> gr.Radio:
    """The paths that all of the models have. One that is no longer possible gives way to the models' own."""
    possible = [(title, kind) for title, kind in PATHS.items() if all(_has_path(model, kind) for model in models)]
    return gr.Radio(possible, value=path if path in dict(possible).values() else OWN)


@lru_cache(NUM_CACHED)
def _examples(model: PublishedModel) -> list[list[str]]:
    """The images of the example pairs: samples of a model."""
    return [[data_url(model.pipeline.sample(1, seed).images[0]) for seed in pair] for pair in EXAMPLES]


def pick(event: gr.EventData) -> list:
    """The seeds of the example pair that was clicked, and no uploads and no crops."""
    number = checks.whole_number("The number of the example", getattr(event, "index", None), 0, len(EXAMPLES) - 1)
    return [*EXAMPLES[number], None, None, {}, {}]


def linked_morph(opened: dict[str, PublishedModel], query: dict[str, str]) -> list:
    """The settings in a link to a morph: models, both seeds, path, frames and speed. The default where it has none."""

    def number(name: str, default: int) -> float | str:
        text = query.get(name, str(default))
        try:
            return float(text)
        except ValueError:
            return text  # refused below, by name

    names = query["models"].split(",") if "models" in query else _first(opened)
    chosen, kind, frames, speed = _checked(
        opened, names, query.get("path", OWN), number("frames", FRAMES), number("speed", SPEED)
    )
    seeds = _ends(None, None, *map(number, ("start_seed", "end_seed"), EXAMPLES[0]))
    return [names, *seeds, path_field(chosen, kind or OWN), frames, speed]


def _first(opened: dict[str, PublishedModel]) -> list[str]:
    """The model that the tab opens with: the first that can morph uploads at once."""
    return ([name for name, model in opened.items() if model.has_encoder] or list(opened))[:1]


def build(demo: gr.Blocks, tabs: gr.Tabs, models: dict[str, PublishedModel], *, page_ready: Any = None) -> gr.Dropdown:
    """Adds the tab. A link to a morph opens it. Its first morph is made after the event `page_ready`, or when the page
    loads. Returns the field for the models."""
    first = _first(models)
    with gr.Tab("Morph two photos", id="morph"):
        gr.Markdown(
            "Each of two images becomes a point in latent space, and every point between the two decodes to an image."
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                with gr.Row(equal_height=False):
                    uploads, crops = zip(
                        *(_upload_field(*names) for names in (("From", "start"), ("To", "end"))), strict=True
                    )
                examples = widget("pairs", elem_id="examples")
                chosen = gr.Dropdown(
                    model_choices(models),
                    value=first,
                    multiselect=True,
                    max_choices=MAX_MODELS,
                    label="Models",
                    info="Up to four. A model without an encoder takes longer for your images",
                    elem_id="morph-models",
                )
                with gr.Row():
                    button = gr.Button("Morph", variant="primary", elem_id="morph", scale=3, min_width=120)
                    stop = gr.Button("Stop", elem_id="stop-morph", scale=1, min_width=80)
                with gr.Accordion("Path, frames and seeds", open=False, elem_id="morph-settings"):
                    path = path_field([models[name] for name in first], OWN)
                    path.label = "Path"
                    frames = gr.Slider(MIN_FRAMES, MAX_FRAMES, FRAMES, step=1, label="Frames")
                    speed = gr.Slider(1, MAX_SPEED, SPEED, step=1, label="Frames per second", elem_id="morph-speed")
                    gr.Markdown("Without uploads, the morph runs between the samples of two seeds.")
                    with gr.Row():
                        start_seed, end_seed = (
                            gr.Number(seed, label=label, precision=0, min_width=100)
                            for seed, label in zip(EXAMPLES[0], ("First seed", "Second seed"), strict=True)
                        )
            with gr.Column(scale=3, min_width=300):
                player = widget("player", elem_id="player")
                with gr.Row(elem_id="morph-downloads"):
                    downloads = {
                        kind: gr.Button(f"Download {title}", elem_id=f"download-{kind}", size="sm", min_width=70)
                        for kind, title in (("mp4", "MP4"), ("gif", "GIF"), ("webp", "WebP"))
                    }
                link = gr.Textbox(
                    label="Link to this morph",
                    interactive=False,
                    buttons=["copy"],
                    elem_id="morph-link",
                    visible=False,
                )
                note = gr.Markdown(visible=False, elem_id="morph-note")
        kept, file = gr.State(None), gr.File(visible=False)
        call = _endpoint(models, [chosen, *uploads, start_seed, end_seed], [frames, speed])
    settings = [chosen, *uploads, start_seed, end_seed, path, frames, speed]
    playing = {"inputs": settings, "outputs": [player, kept, link, note], **model_event(play, models)}
    playing |= {"show_progress_on": player}
    linking = {"fn": None, "inputs": link, "outputs": link, "js": LINK_JS, "api_visibility": "private"}

    def open_linked(request: gr.Request) -> Any:  # Gradio does not find the request argument of a `partial`
        return gr.Tabs(selected="morph") if "morph" in request.query_params else gr.skip()

    def restore(request: gr.Request) -> list:
        query = dict(request.query_params)
        try:
            return linked_morph(models, query) if "morph" in query else [gr.skip()] * 6
        except gr.Error as refused:  # the tab then opens as without a link
            gr.Warning(refused.message)
            return [gr.skip()] * 6

    demo.load(open_linked, None, tabs, **INTERNAL_EVENT)
    ready = page_ready.then if page_ready else demo.load
    linked = [chosen, start_seed, end_seed, path, frames, speed]
    # in the queue, since a warning outside it is not shown
    restored = ready(restore, None, linked, **INTERNAL_EVENT | {"queue": True})
    opening = restored.then(**playing)
    opening.then(**linking)
    fitting = {"inputs": [chosen, path, *uploads], "outputs": [path, examples, *crops], **model_event(fit, models)}
    fitting |= {"show_progress": "hidden"}
    opening.then(**fitting)
    chosen.input(**fitting)
    for upload, seen in zip(uploads, crops, strict=True):
        showing = model_event(crop, models) | {"api_name": "show_crop"}  # private, named for tests
        gr.on([upload.upload, upload.clear], inputs=[chosen, upload], outputs=seen, **showing)
    picked = examples.click(pick, None, [start_seed, end_seed, *uploads, *crops], **INTERNAL_EVENT)
    walking = [button.click(**playing), picked.success(**playing)]
    for walk in walking:
        walk.then(**linking)
    stop.click(None, cancels=[*walking, call], **INTERNAL_EVENT)
    speed.input(None, [speed, player, link], [player, link], js=SPEED_JS, api_visibility="private")
    for kind, each in downloads.items():
        written = each.click(partial(animate, kind), [kept, speed], file, api_visibility="private", **MODEL_EVENT)
        written.success(None, file, None, js=DOWNLOAD_JS, api_visibility="private")
    return chosen


def _upload_field(label: str, name: str) -> tuple[gr.Image, gr.HTML]:
    """The field for an upload. Below it, the crop that the models see, with a sentence."""
    with gr.Column(min_width=130):
        upload = gr.Image(label=label, height=180, min_width=130, elem_id=f"{name}-upload", **UPLOAD)
        return upload, widget("crop", elem_id=f"{name}-crop")


def _endpoint(models: dict[str, PublishedModel], ends: list, speeds: list) -> Any:
    """Adds the endpoint for programs, which gives files where the page has a player."""
    path = gr.Radio(list(PATHS.items()), value=OWN, label="Path", visible=False)
    file_format = gr.Dropdown(list(FORMATS), value="mp4", label="Format of the download", visible=False)
    strip = gr.Gallery(label="Film strip", visible=False, **THUMBNAILS)
    animation = gr.Image(label="Animation", visible=False, **PICTURE)
    download = gr.DownloadButton("Download the animation", visible=False)
    return gr.Button(visible=False).click(
        inputs=[*ends, path, *speeds, file_format],
        outputs=[strip, animation, download],
        **model_event(interpolate, models, "interpolate"),
    )
