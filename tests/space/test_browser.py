"""The Space as a visitor meets it: started as a program, driven through headless Chromium. So is examples/browser."""

import contextlib
import os
import re
import shutil
import time
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import urlparse

import av
import axe_playwright_python
import numpy as np
import onnxruntime
import pytest
import torch
from conftest import REPOSITORY, draw_picture, tiny_model
from PIL import Image, ImageSequence, ImageStat
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright
from space_process import running_space

from hf_vae import ImagePipeline
from hf_vae.latents.directions import Direction, write_directions
from hf_vae.latents.labelled_codes import LabelledCodes
from hf_vae.latents.sliders import NamedSlider, write_sliders
from hf_vae.pictures import picture_grid
from hf_vae.publishing.export import export_onnx


SCREENSHOTS = REPOSITORY / "screenshots"
VIEWPORTS = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
MILLISECONDS = 30_000  # the machine may be busy training


@pytest.fixture(scope="module")
def published_space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Space with the models in model_cards/, and a broken one."""
    folders = sorted(config.parent for config in (REPOSITORY / "model_cards").glob("*/config.json"))
    broken = tmp_path_factory.mktemp("models") / "broken-vae"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    folders.append(broken)
    cache = tmp_path_factory.mktemp("space") / "cache"
    with running_space(cache, HF_VAE_MODELS=",".join(map(str, folders)), PYTHONPATH=str(REPOSITORY)) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "no chromium is on the PATH"
        pytest.fail(reason) if os.environ.get("HF_VAE_REQUIRE_BROWSER") == "1" else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two pictures as a phone would send them: larger than a model's, and not square."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / "first.jpg", folder / "second.png"]
    for number, path in enumerate(paths, 1):
        draw_picture(number, (300, 400)).save(path)
    return paths


def pixels(image: Locator) -> Image.Image:
    """The file behind an <img>, as the browser got it; what is drawn in a <canvas>."""
    drawn = image.evaluate(
        "image => image.tagName === 'CANVAS' ? image.toDataURL() : image.currentSrc.match(/^data:/)?.input"
    )
    if drawn:
        return Image.open(BytesIO(b64decode(drawn.partition(",")[2])))
    return Image.open(BytesIO(image.page.request.get(image.evaluate("image => image.currentSrc")).body()))


def expect_picture(image: Locator) -> Image.Image:
    """Waits for an <img> to be on screen and asserts that it shows something, losslessly and unsmoothed."""
    expect(image).to_be_visible()
    image.evaluate("image => image.decode?.().catch(() => image.decode())")  # it may be replaced meanwhile
    picture = pixels(image)
    assert max(ImageStat.Stat(picture.convert("L")).var) > 1, "the picture is blank"
    assert image.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    return picture


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("tab", name="Generate", exact=True)).to_be_visible(timeout=MILLISECONDS)


def open_tab(page: Page, name: str) -> None:
    """Chooses a tab; all are in sight on any screen."""
    page.get_by_role("tab", name=name, exact=True).click()


def visit_sample(page: Page, photos: list[Path]) -> None:
    gallery = page.locator("#samples")
    assert expect_picture(gallery.locator("img").first).format == "PNG"  # without a click
    expect(gallery.locator("img")).to_have_count(16)
    before = gallery.locator("img").first.get_attribute("src")
    page.get_by_role("button", name="Generate 16").click()
    expect(gallery.locator("img").first).not_to_have_attribute("src", before)
    assert expect_picture(gallery.locator("img").last).format == "PNG"
    page.get_by_role("button", name="More settings").click()
    link = page.locator("#link textarea, #link input").first
    caption = gallery.locator("img").first.get_attribute("alt")
    expect(link).to_have_value(re.compile(rf"[?]model=.*&seed={re.search('seed ([0-9]+),', caption)[1]}&"))
    shown = expect_picture(gallery.locator("img").first).tobytes()
    linked = page.context.browser.new_page()
    linked.goto(link.input_value())
    first = linked.locator("#samples img").first
    expect(first).to_have_attribute("alt", caption, timeout=MILLISECONDS)
    assert expect_picture(first).tobytes() == shown
    linked.close()
    page.locator("#rows").click()
    expect(gallery.locator("img")).to_have_count(64)


def visit_interpolate(page: Page, photos: list[Path]) -> None:
    player, link, position = (
        page.locator("#player"),
        page.locator("#morph-link textarea"),
        page.get_by_label("Position"),
    )
    opened = expect_change(player.locator(".player-strip"), b"")  # without a click
    before = link.input_value()
    page.locator("#examples button").nth(1).click()
    expect(link).not_to_have_value(before)
    shared, address = expect_change(player.locator(".player-strip"), opened), link.input_value()
    for name, photo in zip(("start", "end"), photos, strict=True):
        page.locator(f"#{name}-upload input[type=file]").set_input_files(photo)
        expect(page.locator(f"#{name}-upload img")).to_be_visible()
        expect_picture(page.locator(f"#{name}-crop img"))
        expect(page.locator(f"#{name}-crop")).to_contain_text("centered square")
    page.locator("#morph").click()
    expect(page.locator("#morph-note")).to_contain_text("Uploads are not stored")
    expect(link).to_be_hidden()
    expect_change(player.locator(".player-strip"), shared)
    playing = expect_picture(player.locator(".player-frame")).tobytes()
    expect_change(player.locator(".player-frame"), playing)
    player.get_by_role("button", name="Pause").click()
    position.press("Home")
    expect(player).to_contain_text("Frame 1 of 24")
    first = expect_picture(player.locator(".player-frame")).tobytes()
    position.press("End")
    expect(player).to_contain_text("Frame 24 of 24")
    assert expect_picture(player.locator(".player-frame")).tobytes() != first
    expect(player.get_by_role("button", name="Play")).to_be_visible()  # moving the position does not start it
    for kind, frames in (("webp", webp_frames), ("gif", gif_frames), ("mp4", mp4_frames)):
        with page.expect_download() as download:
            page.locator(f"#download-{kind}").click()
        assert download.value.suggested_filename == f"morph.{kind}"
        assert frames(download.value.path()) == 2 * 24 - 2  # there and back, neither end twice
    restored = page.context.browser.new_page()
    restored.goto(address)
    expect(restored.get_by_role("tab", name="Morph two photos")).to_have_attribute("aria-selected", "true")
    expect(restored.locator("#morph-link textarea")).to_have_value(address)
    assert expect_change(restored.locator("#player .player-strip"), b"") == shared
    restored.close()


def webp_frames(path: Path) -> int:
    animation = Image.open(path)
    assert animation.format == "WEBP"
    return animation.n_frames


def gif_frames(path: Path) -> int:
    """The frames of a GIF, in which a frame that is repeated is one that lasts longer."""
    animation = Image.open(path)
    assert animation.format == "GIF"
    lasts = [frame.info["duration"] for frame in ImageSequence.Iterator(animation)]
    return round(sum(lasts) / min(lasts))


def mp4_frames(path: Path) -> int:
    with av.open(path, format="mp4") as video:
        return sum(1 for _ in video.decode(video=0))


def visit_compare(page: Page, photos: list[Path]) -> None:
    """Sees the first results, moves the lens, uploads an image, adds noise and plays the quiz to its end."""
    lens = page.locator("#compare-lens")
    for image in expect_all(lens.locator("img")):
        assert expect_picture(image).format == "PNG"  # without a click
    expect(page.locator("#sharpness-bars")).to_contain_text("real images")
    expect(page.locator("#found")).to_contain_text("No image is uploaded yet. This input is a sample of ")
    move_lens(page, lens)
    before = lens.locator("img").first.get_attribute("src")
    page.locator("#compare-seed input").fill("5")
    page.locator("#compare-samples").click()
    expect(lens.locator("img").first).not_to_have_attribute("src", before)
    page.get_by_role("button", name="Spectrum and numbers").click()
    expect(page.locator("#published")).to_contain_text("DC-GAN")
    expect(page.locator("#spectrum-plot svg")).to_be_visible()
    made = page.locator("#reconstruction-lens")
    before = made.locator("img").first.get_attribute("src")
    page.locator("#compare-upload input[type=file]").set_input_files(photos[0])
    expect(made.locator("img").first).not_to_have_attribute("src", before)
    expect(page.locator("#found")).to_contain_text("square")
    expect(made).to_contain_text("Your image (input)")
    seen, *reconstructed = [expect_picture(image).tobytes() for image in expect_all(made.locator("img"))]
    assert reconstructed and seen not in reconstructed
    move_lens(page, made)
    page.get_by_role("button", name="Errors of the reconstructions").click()
    expect(page.locator("#nearness")).to_contain_text("VAE")
    noisy = page.locator("#noise-lens")
    before = noisy.locator("img").nth(1).get_attribute("src")
    page.locator("#noise input[type=number]").fill("2")
    page.locator("#noise input[type=number]").press("Enter")
    expect(noisy.locator("img").nth(1)).not_to_have_attribute("src", before)
    play_quiz(page)


def move_lens(page: Page, lens: Locator) -> None:
    """Moves over an image, then with the keyboard; the lenses of all images show the same place each time."""

    def places() -> set[str]:
        glasses = expect_all(lens.locator(".lens-glass"))
        assert all(glass.is_visible() for glass in glasses)
        return {glass.evaluate("glass => glass.style.backgroundPosition") for glass in glasses}

    image = lens.locator(".lens-image").nth(1)
    image.hover(position={"x": 20, "y": 30})
    moved_to = places()
    assert len(moved_to) == 1
    image.hover(position={"x": 60, "y": 30})
    assert len(places()) == 1 and places() != moved_to
    page.mouse.move(0, 0)
    expect(lens.locator(".lens-glass").first).to_be_hidden()
    lens.locator(".lens-image").first.focus()
    page.keyboard.press("ArrowRight")
    assert len(places()) == 1
    page.keyboard.press("Escape")
    expect(lens.locator(".lens-glass").first).to_be_hidden()


def play_quiz(page: Page) -> None:
    """Plays ten rounds with the keyboard, and begins again."""
    quiz = page.locator("#quiz")
    for number in range(1, 11):
        expect(quiz).to_contain_text(f"Round {number} of 10.")
        for image in quiz.locator("img").all():
            expect_picture(image)
        assert not re.search("Right|Wrong", quiz.inner_text())
        quiz.locator(".quiz-choices button").nth(number % 2).focus()
        page.keyboard.press("Enter")
        expect(quiz.get_by_role("status")).to_have_text(re.compile(r"^(Right|Wrong)\. .*[sS]harpness"))
        expect(quiz).to_contain_text(re.compile(rf"Score: [0-9]+ of {number}\."))
        page.keyboard.press("Enter")  # the button of the next round has the focus
    expect(quiz.get_by_role("status")).to_have_text(re.compile("^Your score: [0-9]+ of 10"))
    quiz.get_by_role("button", name="Play again").click()
    expect(quiz).to_contain_text("Round 1 of 10. Score: 0 of 0.")


def visit_edit(page: Page, photos: list[Path]) -> None:
    """Uploads a photo, moves a slider, compares with a handle, and downloads an animation."""
    after = page.locator(".before-after-after")
    expect_picture(after)  # a sample, without a click
    strips = page.locator(".sliders-strip img")
    expect_picture(strips.first)
    sample = after.get_attribute("src")
    page.locator("#edit-upload input[type=file]").set_input_files(photos[0])
    expect(page.locator("#edit-crop")).to_contain_text("The model sees the largest centered square")
    expect(after).not_to_have_attribute("src", sample)
    photo = after.get_attribute("src")
    sliders = page.get_by_role("slider", name=re.compile("^Component [0-9]+$"))
    assert sliders.count() in (8, 10)  # of a tiny model, of a published one
    expect(strips).to_have_count(5 * page.locator(".sliders-row").count())
    sliders.first.fill("2.5")
    expect(page.locator(".before-after-note")).to_contain_text("100% is the distance between two samples")
    expect(after).not_to_have_attribute("src", photo)
    moved = after.get_attribute("src")
    assert page.locator(".before-after-before").get_attribute("src") == photo
    page.get_by_label("Share of the image that shows it before the change").fill("60")
    assert "calc(" in after.evaluate("image => image.style.clipPath")
    page.locator("#edit-gif").click()
    with page.expect_download() as download:
        page.locator(".edit-result").get_by_label("Download").click()
    animation = Image.open(download.value.path())
    assert (animation.format, animation.n_frames) == ("GIF", 2 * 12 - 2)
    page.get_by_role("button", name="Random").click()
    expect(after).not_to_have_attribute("src", moved)
    page.get_by_role("button", name="Reset").click()
    expect(after).to_have_attribute("src", photo)
    sliders.last.scroll_into_view_if_needed()
    expect(after).to_be_in_viewport()  # stays in sight


def visit_training(page: Page, photos: list[Path]) -> None:
    page.get_by_label("Folder of images").fill("my cats")
    expect(page.locator("#command")).to_contain_text("--train_data_dir 'my cats'")
    expect(page.locator("#train-sentence")).to_contain_text("appear here")
    expect(page.locator("#trained img, #losses svg, #download-model")).to_have_count(0)
    upload_many(page, photos)
    expect(page.locator("#stop-training")).to_be_disabled()
    page.locator("#train").click()
    expect(page.locator("#train-sentence")).to_contain_text("Preparing")
    page.locator("#stop-training").click()
    expect(page.locator("#train-sentence")).to_contain_text("No model was trained")


def visit_live_run(page: Page, photos: list[Path]) -> None:
    """A visitor's story: upload, train, see the result, download the model and sample from it."""
    visit_training(page, photos)
    page.get_by_label("number input for Minutes").fill("2")  # one is not always enough while tests run
    page.get_by_label("number input for Minutes").press("Enter")
    page.locator("#train").click()
    expect(page.locator("#train-sentence")).to_contain_text("Training", timeout=8 * MILLISECONDS)
    expect(page.locator("#live img")).to_be_visible(timeout=4 * MILLISECONDS)
    curve = page.get_by_role(
        "img", name=re.compile("^Reconstruction error.*: from [0-9.]+ to [0-9.]+ in [0-9,]+ steps")
    )
    expect(curve).to_be_visible(timeout=4 * MILLISECONDS)
    expect(page.locator("#train-sentence")).to_contain_text("Done in", timeout=20 * MILLISECONDS)
    expect(page.locator("#train-sentence")).to_contain_text("Your VAE, 32 px")
    expect_picture(page.locator("#live img"))
    assert expect_picture(page.locator("#timelapse img")).n_frames > 1
    heights = [float(pair.split(",")[1]) for pair in curve.locator("polyline").get_attribute("points").split()]
    assert len(heights) > 5 and heights[0] < 10 and heights[-1] > 40, "the error falls, from the top of the plot"
    assert page.locator("#losses .losses-scale span").count() == 2 * page.locator("#losses svg").count()
    with page.expect_download() as download:
        page.locator("#download-model").click()
    folder = photos[0].parent / f"downloaded-{time.monotonic_ns()}"
    shutil.unpack_archive(download.value.path(), folder, "zip")
    (model,) = folder.iterdir()
    assert all((model / name).is_file() for name in ("README.md", "metrics.json"))
    (picture,) = ImagePipeline.from_pretrained(model).sample(1, seed=0).images
    assert picture.size == (32, 32) and max(ImageStat.Stat(picture.convert("L")).var) > 1
    open_tab(page, "Generate")  # the model is chosen there, and its samples are shown
    expect(page.locator("#samples img").first).to_have_attribute(
        "alt", re.compile("^Your VAE, 32 px: seed [0-9]+, image 1,")
    )
    open_tab(page, "Edit your photo")
    expect(page.get_by_label("Model").locator("visible=true").first).to_have_value("Your VAE, 32 px")
    expect_picture(page.locator(".sliders-strip img").first)


def upload_many(page: Page, photos: list[Path]) -> None:
    """Uploads 24 images. Their list stays short, and the place of the result near the button."""
    page.locator("#train-files input[type=file]").set_input_files(many_photos(photos[0].parent))
    expect(page.locator("#train-files")).to_contain_text("photo-23")
    assert page.locator("#train-files").bounding_box()["height"] < 250
    button, result = (page.locator(name).bounding_box() for name in ("#train", "#train-sentence"))
    assert abs(result["y"] - button["y"]) < 500


def many_photos(folder: Path) -> list[Path]:
    paths = [folder / f"photo-{number}.jpg" for number in range(24)]
    for number, path in enumerate(paths):
        draw_picture(number, (90, 70)).save(path)
    return paths


def visit_about(page: Page, photos: list[Path]) -> None:
    expect(page.get_by_text("Do not use the models to identify people")).to_be_visible()
    expect(page.locator("#broken")).to_contain_text("broken-vae cannot be loaded: broken-vae/config.json")
    page.get_by_role("button", name="Model cards").click()
    expect(page.locator("#card")).to_contain_text("held out")


def expect_change(image: Locator, before: bytes) -> bytes:
    """Waits until an <img> shows another picture than `before`, and returns that."""
    deadline = time.monotonic() + MILLISECONDS / 1000
    while time.monotonic() < deadline:
        with contextlib.suppress(Error):  # the browser does not decode what is just being replaced
            now = expect_picture(image).tobytes()
            if now != before:
                return now
        time.sleep(0.1)
    pytest.fail("the picture did not change")


def expect_all(images: Locator) -> list[Locator]:
    """All of what a locator finds, once there are at least two."""
    expect(images.nth(1)).to_be_visible()
    return images.all()


VISITS = {
    "Generate": visit_sample,
    "Morph two photos": visit_interpolate,
    "GAN vs VAE": visit_compare,
    "Edit your photo": visit_edit,
    "Train your own": visit_training,
    "About": visit_about,
}


def visit_tabs(browser: Browser, address: str, photos: list[Path], screen: str, visits: dict, pictures: Path) -> None:
    """Visits the tabs one after the other on a screen, and saves what it looks like."""
    page = browser.new_page(viewport=VIEWPORTS[screen])
    page.set_default_timeout(MILLISECONDS)
    expect.set_options(timeout=MILLISECONDS)
    complaints, hosts = [], set()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(urlparse(request.url).hostname))
    open_page(page, address)
    pictures.mkdir(exist_ok=True)
    for name, visit in visits.items():
        open_tab(page, name)
        visit(page, photos)
        width = page.evaluate("document.documentElement.scrollWidth")
        page.screenshot(path=pictures / f"{screen}-{name.lower().replace(' ', '-')}.png", full_page=True)
        assert width <= VIEWPORTS[screen]["width"], f"{name} scrolls sideways"
    page.close()
    assert complaints == []
    assert hosts - {None} == {"127.0.0.1"}  # None: data and blob addresses


@pytest.mark.parametrize("screen", VIEWPORTS)
def test_every_tab_works(browser, shared_space, photos, tmp_path, screen: str) -> None:
    visit_tabs(browser, shared_space.address, photos, screen, VISITS, tmp_path / "screenshots")


@pytest.mark.slow
@pytest.mark.parametrize("screen", VIEWPORTS)
def test_every_tab_works_on_the_published_models_and_trains(browser, published_space, photos, screen: str) -> None:
    visits = VISITS | {"Train your own": visit_live_run}
    visit_tabs(browser, published_space, photos, screen, visits, SCREENSHOTS)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_screen_reader_and_a_keyboard_find_their_way(browser, shared_space, theme: str) -> None:
    page = browser.new_page(viewport=VIEWPORTS["desktop"])
    page.set_default_timeout(MILLISECONDS)
    expect.set_options(timeout=MILLISECONDS)
    open_page(page, f"{shared_space.address}?__theme={theme}")
    expect(page.locator("#samples img")).to_have_count(16)
    page.evaluate(Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text())
    for name in VISITS:
        open_tab(page, name)
        page.wait_for_timeout(1500)  # what the tab opens with
        found = page.evaluate("axe.run()")["violations"]
        serious = [
            f"{name}: {each['help']}: {node['html'][:200]} {node['failureSummary']}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]
        assert serious == []
    page.close()


def test_a_link_that_cannot_be_followed_says_so_and_shows_the_page(browser, shared_space) -> None:
    page = browser.new_page()
    page.set_default_timeout(MILLISECONDS)
    open_page(page, f"{shared_space.address}?seed=-1")
    sentence = page.get_by_text("This link cannot be followed. The seed is -1.0; it must be")
    expect(sentence).to_be_visible(timeout=MILLISECONDS)
    expect(page.locator("#samples img")).to_have_count(16, timeout=MILLISECONDS)
    page.close()


def test_a_refusal_is_shown_as_a_sentence(browser, shared_space, tmp_path: Path) -> None:
    page = browser.new_page()
    page.set_default_timeout(MILLISECONDS)
    fake = tmp_path / "fake.png"
    fake.write_bytes(b"this is no picture")
    open_page(page, shared_space.address)
    open_tab(page, "GAN vs VAE")
    page.locator("#compare-upload input[type=file]").set_input_files(fake)
    sentence = page.get_by_text("This file is not a JPEG, PNG, WebP, GIF or BMP image")
    expect(sentence).to_be_visible(timeout=MILLISECONDS)
    page.close()


def test_who_wants_less_motion_gets_a_morph_that_stands_still(browser, shared_space) -> None:
    page = browser.new_page(reduced_motion="reduce")
    page.set_default_timeout(MILLISECONDS)
    open_page(page, shared_space.address)
    open_tab(page, "Morph two photos")
    player = page.locator("#player")
    expect(player.get_by_role("button", name="Play")).to_be_visible(timeout=MILLISECONDS)
    middle = expect_picture(player.locator(".player-frame")).tobytes()
    expect(player).to_contain_text("Frame 13 of 24")
    player.get_by_role("button", name="Play").click()
    expect_change(player.locator(".player-frame"), middle)
    page.close()


def test_who_wants_less_motion_sees_nothing_else_move_and_the_page_works(browser, shared_space, photos) -> None:
    page = browser.new_page(reduced_motion="reduce")
    page.set_default_timeout(MILLISECONDS)
    expect.set_options(timeout=MILLISECONDS)
    open_page(page, shared_space.address)
    expect(page.locator("#samples img")).to_have_count(16)
    before = page.locator("#samples img").first.get_attribute("src")
    page.get_by_role("button", name="Generate 16").click()
    expect(page.locator("#samples img").first).not_to_have_attribute("src", before)
    moving = """() => [...document.querySelectorAll("body, body *")].flatMap((node) =>
        ["", "::before", "::after"].map((part) => getComputedStyle(node, part)).filter((style) =>
            `${style.transitionDuration},${style.animationDuration}`.split(",").some((time) => parseFloat(time) > 1e-4)
            || style.animationIterationCount.includes("infinite")).map(() => node.outerHTML.slice(0, 100)))"""
    for name in VISITS:
        open_tab(page, name)
        page.wait_for_timeout(500)
        assert page.evaluate(moving) == []
    open_tab(page, "Edit your photo")
    visit_edit(page, photos)
    page.close()


LONG = "Donaudampfschifffahrtsgesellschaftskapitän"


@pytest.fixture(scope="module")
def wordy_space(published_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Space whose models, sliders, labels and cards have words of German length."""
    root = tmp_path_factory.mktemp("wordy")
    for family in ("dcgan", "vaegan"):  # the second is the one that opens for editing
        folder = root / f"{LONG}-{family}-{LONG}"
        tiny_model(family, **({"code_dim": 12} if family == "vaegan" else {})).save_pretrained(folder)
        shutil.copy(published_models / f"faces-{family}" / "metrics.json", folder)
        row = f"| {LONG} | {LONG} |\n"
        text = (
            f"# {LONG}\n\n## {LONG} {LONG}\n\n{row}|---|---|\n{row}\n`{LONG}{LONG}`\n\n```bash\n{LONG} {LONG}\n```\n"
        )
        (folder / "README.md").write_text(text)
    write_sliders(folder, [NamedSlider(f"{LONG} 1", LONG, LONG, 2.0, 0.5, torch.eye(12)[3])])
    codes = torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    labelled = LabelledCodes.fit(codes, {LONG: [LONG, "other"] * 30, f"{LONG}-age": list(range(60))})
    write_directions(folder, [Direction(LONG, LONG, LONG, 0.875, 40, torch.eye(12)[0])], labelled)
    models = ",".join(map(str, sorted(root.iterdir())))
    with running_space(root / "cache", HF_VAE_MODELS=models, PYTHONPATH=str(REPOSITORY)) as (address, _):
        yield address


# what is wider than the window, and also not in a part that scrolls by itself, as code and tables do
WIDER = """() => [...document.querySelectorAll("body *")].filter((node) => {
    const box = node.getBoundingClientRect();
    const scrolls = (part) =>
        part && (/auto|scroll/.test(getComputedStyle(part).overflowX) || scrolls(part.parentElement));
    return box.width > 0 && box.right > innerWidth + 1 && !node.closest(".visually-hidden") && !scrolls(node);
}).map((node) => node.outerHTML.slice(0, 150))"""
# texts that are cut off, or that lie over their neighbors
CUT = """() => [...document.querySelectorAll(
    "button:not(.label-wrap), .label-wrap > :first-child, h1, h2, h3, label, p, li, [data-testid=block-info]"
)].filter((node) => node.offsetParent && node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 1
        && getComputedStyle(node).display !== "inline"
).map((node) => node.outerHTML.slice(0, 150))"""
WORDIER = f"""() => document.querySelectorAll("button").forEach((button) => {{
    const texts = document.createTreeWalker(button, NodeFilter.SHOW_TEXT, (text) => text.data.trim() ? 1 : 3);
    const words = texts.nextNode();
    if (words && !words.data.includes("{LONG}")) words.data += " {LONG} and a whole sentence";
}})"""


@pytest.mark.parametrize("width", [360, 768])
def test_words_of_german_length_do_not_break_the_layout(browser, wordy_space, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, reduced_motion="reduce")  # nothing turns
    page.set_default_timeout(MILLISECONDS)
    expect.set_options(timeout=MILLISECONDS)
    open_page(page, wordy_space)
    expect(page.locator("#samples img")).to_have_count(16)
    tabs = page.get_by_role("tab")
    names = tabs.all_inner_texts()
    assert len(names) == 6
    for number, name in enumerate(names):
        tabs.nth(number).click()
        folds = page.locator("button.label-wrap:visible:not(.open)")
        while folds.count():
            folds.first.click()
        if name == "Edit your photo":
            expect(page.locator("#edit-labels")).to_contain_text(LONG)
            expect(page.locator("#edit-labels input[type=number]")).to_have_value("")  # any, and not 0
            expect(page.locator(".sliders-title").first).to_have_text(f"{LONG} 1")
        if name == "GAN vs VAE":
            expect(page.locator("#quiz")).to_contain_text("Round 1 of 10")
        if name == "About":
            expect(page.locator("#card")).to_contain_text(LONG)
        for _ in range(2):  # the second time with longer words on buttons too
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"
            assert page.evaluate(WIDER) == [], name
            assert page.evaluate(CUT) == [], name
            page.evaluate(WORDIER)
    page.close()


# In place of onnxruntime-web, which examples/browser loads from another server: asks onnxruntime in this process.
ORT = """
globalThis.ort = {
  Tensor: class { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } },
  InferenceSession: { create: async (file) => ({
    run: async (feeds) => {
      const [[input, { data, dims }]] = Object.entries(feeds);
      const output = await runOnnx(file, input, Array.from(data), dims);
      return { [output.name]: new ort.Tensor("float32", Float32Array.from(output.data), output.dims) };
    },
  }) },
};
"""


def test_the_page_in_examples_runs_an_exported_model(browser, tmp_path):
    model = tiny_model("vae")
    export_onnx(model, tmp_path / "onnx")
    shutil.copy(REPOSITORY / "examples" / "browser" / "index.html", tmp_path)

    def run(file: str, name: str, data: list[float], dims: list[int]) -> dict:
        session = onnxruntime.InferenceSession(tmp_path / file)
        (output,) = session.run(None, {name: np.array(data, np.float32).reshape(dims)})
        return {"name": session.get_outputs()[0].name, "data": output.ravel().tolist(), "dims": list(output.shape)}

    def grid() -> Image.Image:
        return Image.open(BytesIO(b64decode(canvas.evaluate("canvas => canvas.toDataURL()").split(",")[1])))

    page = browser.new_page()
    page.expose_function("runOnnx", run)
    page.route(
        "http://page.test/**", lambda route: route.fulfill(path=tmp_path / urlparse(route.request.url).path[1:])
    )
    page.route("https://cdn.jsdelivr.net/**", lambda route: route.fulfill(body=ORT, content_type="text/javascript"))
    page.goto("http://page.test/index.html")
    canvas, status = page.locator("canvas"), page.get_by_role("status")
    expect(status).to_have_text("Ready.", timeout=MILLISECONDS)
    page.get_by_role("button", name="Generate 16 images").click()
    expect(status).to_have_text("16 images that the model generated", timeout=MILLISECONDS)
    assert grid().size == (4 * 28, 4 * 28) and len(grid().getcolors(10_000)) > 100
    draw_picture(1, (28, 28)).save(tmp_path / "photo.png")
    page.get_by_label("Reconstruct your own image").set_input_files(tmp_path / "photo.png")
    expect(status).to_have_text("Left: the input. Right: its reconstruction.", timeout=MILLISECONDS)
    pipe = ImagePipeline(model)
    expected = picture_grid([draw_picture(1, (28, 28)), *pipe.reconstruct(tmp_path / "photo.png").images])
    assert max(abs(a - b) for a, b in zip(grid().convert("RGB").tobytes(), expected.tobytes(), strict=True)) <= 2
    page.close()
