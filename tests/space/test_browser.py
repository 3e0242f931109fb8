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

import numpy as np
import onnxruntime
import pytest
from conftest import REPOSITORY, draw_picture, tiny_model
from PIL import Image, ImageStat
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright
from space_process import running_space

from hf_vae import ImagePipeline
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
    """The file behind an <img>, as the browser got it."""
    return Image.open(BytesIO(image.page.request.get(image.evaluate("image => image.currentSrc")).body()))


def expect_picture(image: Locator) -> Image.Image:
    """Waits for an <img> to be on screen and asserts that it shows something, losslessly and unsmoothed."""
    expect(image).to_be_visible()
    image.evaluate("image => image.decode().catch(() => image.decode())")  # it may be replaced meanwhile
    picture = pixels(image)
    assert max(ImageStat.Stat(picture.convert("L")).var) > 1, "the picture is blank"
    assert image.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    return picture


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("tab", name="Generate", exact=True)).to_be_visible(timeout=MILLISECONDS)


def open_tab(page: Page, name: str) -> None:
    """Chooses a tab; on a narrow screen the last ones are in a menu."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown").get_by_text(name, exact=True)
    tab.click()


def visit_sample(page: Page, photos: list[Path]) -> None:
    page.get_by_label("New seed each time").check()
    gallery = page.locator("#samples")
    assert expect_picture(gallery.locator("img").first).format == "PNG"  # without a click
    expect(gallery.locator("img")).to_have_count(16)
    before = gallery.locator("img").first.get_attribute("src")
    page.get_by_role("button", name="Generate").click()
    expect(gallery.locator("img").first).not_to_have_attribute("src", before)
    assert expect_picture(gallery.locator("img").last).format == "PNG"
    link = page.locator("#link textarea, #link input").first
    caption = gallery.locator("img").first.get_attribute("alt")
    expect(link).to_have_value(re.compile(rf"[?]model=.*&seed={re.search('seed ([0-9]+),', caption)[1]}&"))
    shown = expect_picture(gallery.locator("img").first).tobytes()
    page.goto(link.input_value())
    expect(gallery.locator("img").first).to_have_attribute("alt", caption)
    assert expect_picture(gallery.locator("img").first).tobytes() == shown
    page.locator("#rows").click()
    expect(gallery.locator("img")).to_have_count(64)


def visit_reconstruct(page: Page, photos: list[Path]) -> None:
    page.locator("#reconstruct-upload input[type=file]").set_input_files(photos[0])
    assert expect_picture(page.locator("#seen img")).format == "PNG"
    expect(page.locator("#found")).to_contain_text("square")
    seen, reconstructed = (expect_picture(image) for image in expect_all(page.locator("#reconstruction-0 img"))[:2])
    assert seen.size == reconstructed.size
    assert seen.tobytes() != reconstructed.tobytes()
    expect(page.locator("#nearness")).to_contain_text("-vae")


def visit_interpolate(page: Page, photos: list[Path]) -> None:
    for name, photo in zip(("start", "end"), photos, strict=True):
        page.locator(f"#{name}-upload input[type=file]").set_input_files(photo)
        expect(page.locator(f"#{name}-upload img")).to_be_visible()
    page.locator("#morph").click()
    animation = expect_picture(page.locator("#animation img"))
    assert animation.format == "WEBP"
    assert animation.n_frames == 2 * 24 - 2  # there and back, neither end twice
    expect(page.locator("#strip img")).to_have_count(24)
    assert expect_picture(page.locator("#strip img").first).format == "PNG"
    with page.expect_download() as download:
        page.locator("#animation").get_by_label("Download").click()
    assert Image.open(download.value.path()).n_frames == animation.n_frames
    with page.expect_download() as download:
        page.locator("#download-morph").click()
    assert b"ftyp" in Path(download.value.path()).read_bytes()[:12]  # an MP4
    halfway = expect_picture(page.locator("#frame img")).tobytes()
    page.locator("#position input[type=number]").fill("100")
    page.locator("#position input[type=number]").press("Enter")
    expect_change(page.locator("#frame img"), halfway)


def visit_compare(page: Page, photos: list[Path]) -> None:
    for grid in expect_all(page.locator("#grids img")):
        assert expect_picture(grid).format == "PNG"
    expect(page.locator("#sentence")).to_contain_text("Sharper is not better")
    expect(page.locator("#published")).to_contain_text("-dcgan")
    for plot in ("sharpness", "energy", "spectrum"):
        expect(page.locator(f"#{plot}-plot canvas, #{plot}-plot svg.marks").first).to_be_visible()


def visit_sliders(page: Page, photos: list[Path]) -> None:
    before = expect_picture(page.locator("#moved img")).tobytes()
    first = page.get_by_label(re.compile("^number input for Component 1 ")).first
    expect(first).to_be_visible()
    first.fill("3")
    first.press("Enter")
    moved = expect_change(page.locator("#moved img"), before)
    page.get_by_role("button", name="Reset", exact=True).click()
    expect_change(page.locator("#moved img"), moved)
    sliders = page.get_by_label(re.compile("^number input for Component [0-9]+ ")).count()
    assert sliders in (8, 10)  # of a tiny model, of a published one
    page.locator("#sweep").click()
    expect(page.locator("#sweeps img")).to_have_count(7 * sliders)


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
    assert page.locator("#losses .curves-scale span").count() == 2 * page.locator("#losses svg").count()
    with page.expect_download() as download:
        page.locator("#download-model").click()
    folder = photos[0].parent / f"downloaded-{time.monotonic_ns()}"
    shutil.unpack_archive(download.value.path(), folder, "zip")
    (model,) = folder.iterdir()
    assert all((model / name).is_file() for name in ("README.md", "metrics.json"))
    (picture,) = ImagePipeline.from_pretrained(model).sample(1, seed=0).images
    assert picture.size == (32, 32) and max(ImageStat.Stat(picture.convert("L")).var) > 1


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
    expect(page.get_by_text("Do not use them to identify people")).to_be_visible()
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
    "Reconstruct": visit_reconstruct,
    "Morph two photos": visit_interpolate,
    "GAN vs VAE": visit_compare,
    "Edit your photo": visit_sliders,
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


def test_a_refusal_is_shown_as_a_sentence(browser, shared_space, tmp_path: Path) -> None:
    page = browser.new_page()
    page.set_default_timeout(MILLISECONDS)
    fake = tmp_path / "fake.png"
    fake.write_bytes(b"this is no picture")
    open_page(page, shared_space.address)
    open_tab(page, "Reconstruct")
    page.locator("#reconstruct-upload input[type=file]").set_input_files(fake)
    sentence = page.get_by_text("This file is not a JPEG, PNG, WebP, GIF or BMP image")
    expect(sentence).to_be_visible(timeout=MILLISECONDS)
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
