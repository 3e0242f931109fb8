"""What tests share: pictures that they make themselves, and tiny models and runs of every family."""

import functools
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: tests run side by side, on tiny networks
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="datasets-")  # read when `datasets` is imported

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from hf_vae.config import DataConfig, RunConfig, TrainConfig
from hf_vae.evaluation.evaluate import evaluate, save_metrics
from hf_vae.families import FAMILIES
from hf_vae.models import ImageGenerator
from hf_vae.models.priors import flow
from hf_vae.pictures import to_pictures
from hf_vae.training.checkpoints import MANIFEST, list_checkpoints
from hf_vae.training.loop import train


pytest_plugins = ["space_process"]  # one running Space for all tests that only use it

REPOSITORY = Path(__file__).parent.parent
CALIBRATION = flow, "CALIBRATION_SAMPLES"
FULL_CALIBRATION = getattr(*CALIBRATION)
setattr(*CALIBRATION, 128)  # so many samples through the flow would take four times as long as all else of a tiny run
TINY = {"image_size": 28, "latent_dim": 8, "width": 8, "max_width": 16}
TINY_PRIOR = {"latent_size": 1, "flow_width": 16, "flow_mlp_width": 32}  # of families that have these arguments


def draw_picture(number: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    """A face-like drawing that differs with `number`: head, eyes and mouth on a coloured ground."""
    generator = torch.Generator().manual_seed(number)
    colors = torch.randint(30, 226, (4, 3), generator=generator).tolist()
    shift_x, shift_y = (torch.rand(2, generator=generator) * 0.2 - 0.1).tolist()
    width, height = size
    picture = Image.new("RGB", size, tuple(colors[0]))
    draw = ImageDraw.Draw(picture)

    def ellipse(center_x: float, center_y: float, radius_x: float, radius_y: float, color: list[int]) -> None:
        x, y = (center_x + shift_x) * width, (center_y + shift_y) * height
        draw.ellipse(
            (x - radius_x * width, y - radius_y * height, x + radius_x * width, y + radius_y * height), tuple(color)
        )

    ellipse(0.5, 0.5, 0.32, 0.38, colors[1])
    ellipse(0.38, 0.42, 0.06, 0.05, colors[2])
    ellipse(0.62, 0.42, 0.06, 0.05, colors[2])
    ellipse(0.5, 0.68, 0.14, 0.05, colors[3])
    return picture


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps decoded pictures out of the home folder."""
    os.environ["HF_VAE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 different JPEGs of 48x48 pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        draw_picture(number).save(folder / f"{number:02d}.jpg", quality=95)
    return folder


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Each family's name in turn: a test that takes it covers a new family by the family's existing."""
    return request.param


def every_family(*quick: str) -> pytest.MarkDecorator:
    """The same for a promise that no family's code can break alone: all but the `quick` ones are slow tests."""
    params = [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
    return pytest.mark.parametrize("family", params)


def reset_accelerate() -> None:
    """Makes the next run of a test start as in a process of its own: accelerate keeps one state per process."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture(autouse=True)
def own_accelerate() -> None:
    """The same for each test's first run, whatever other tests and shared fixtures left."""
    reset_accelerate()


@pytest.fixture(autouse=True)
def full_calibration(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of what a prior draws calibrate it as a user's run does."""
    if request.path.parent.name in ("models", "latents"):
        monkeypatch.setattr(*CALIBRATION, FULL_CALIBRATION)


def tiny_config(family: str, **changes) -> dict:
    """The arguments of a family's tiny model: latents without a place, unless `changes` say otherwise."""
    arguments = inspect.signature(FAMILIES[family].model.__init__).parameters
    return TINY | {name: value for name, value in TINY_PRIOR.items() if name in arguments} | changes


def tiny_flags(family: str) -> list[str]:
    """The flags of that model."""
    return [part for name, value in tiny_config(family).items() for part in (f"--{name}", str(value))]


def tiny_model(family: str, **changes) -> ImageGenerator:
    """A model of a family with random weights, small enough to run in milliseconds, in evaluation mode."""
    torch.manual_seed(0)
    return FAMILIES[family].model(**tiny_config(family, **changes)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    """Seven images of noise."""
    return torch.rand(7, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1


def skip_without_encoder(family: str) -> None:
    """Ends a test that is about encoding, for a family that cannot."""
    if not FAMILIES[family].model.has_encoder:
        pytest.skip("has no encoder")


def tiny_run(family: str, folder: Path, output_dir: Path, data: dict | None = None, **train_config) -> RunConfig:
    """Six updates, with checkpoints and previews after three and six, of a family's tiny model on a folder."""
    settings = {
        "train_batch_size": 6,
        "max_train_steps": 6,
        "lr_warmup_steps": 2,
        "prior_steps": 2,
        "logging_steps": 2,
        "preview_steps": 3,
        "checkpointing_steps": 3,
        **FAMILIES[family].objective.train_defaults,
        **train_config,
    }
    return RunConfig(
        family,
        tiny_config(family),
        FAMILIES[family].objective(),
        DataConfig(train_data_dir=str(folder), color_jitter=0.1, **(data or {})),
        TrainConfig(output_dir=str(output_dir), **settings),
    )


@pytest.fixture(scope="session")
def finished_run(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a family's finished `tiny_run`, which is trained once. A test that changes it copies it."""

    @functools.cache
    def folder_of(family: str) -> Path:
        reset_accelerate()
        folder = train(tiny_run(family, picture_folder, tmp_path_factory.mktemp("finished") / family))
        reset_accelerate()
        return folder

    return folder_of


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The published weights of a run."""
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def log_lines(folder: Path) -> list[dict]:
    """The log of a run, but for what depends on the machine."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "images_per_second", "memory_mib")} for line in lines
    ]


def assert_equal_runs(one: Path, other: Path) -> None:
    """Weights, running average, optimizer state, log and previews of two runs are the same, bit for bit."""
    assert weights(one).keys() == weights(other).keys()
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name
    assert log_lines(one) == log_lines(other)
    previews = sorted(path.name for path in (one / "previews").iterdir())
    assert previews == sorted(path.name for path in (other / "previews").iterdir())
    for name in previews:
        assert (one / "previews" / name).read_bytes() == (other / "previews" / name).read_bytes()
    newest = [list_checkpoints(folder)[-1] for folder in (one, other)]
    assert newest[0].name == newest[1].name
    states = [json.loads((checkpoint / MANIFEST).read_text())["files"] for checkpoint in newest]
    assert states[0].keys() == states[1].keys() and "optimizer.bin" in states[0]
    for name, digest in states[0].items():
        assert digest == states[1][name] or name.startswith("random_states"), name  # of generators that are not used


def launch_two(script: Path, arguments: list[str]) -> subprocess.CompletedProcess:
    """Runs a script in two processes by the command that people type; `apart.launch_forks` is quicker."""
    config = REPOSITORY / "docs" / "launch" / "cpu_processes.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--main_process_port", "0", str(script)]  # any that is free
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)


def flags_of(family: str, pictures: Path, output_dir: Path, batch_size: int, steps: int = 20) -> list[str]:
    flags = [family, "--train_data_dir", str(pictures), "--output_dir", str(output_dir), *tiny_flags(family)]
    flags += ["--train_batch_size", str(batch_size), "--max_train_steps", str(steps), "--color_jitter", "0.1"]
    flags += ["--lr_warmup_steps", "2", "--prior_steps", "2", "--mixed_precision", "no"]
    return [*flags, "--logging_steps", "2", "--preview_steps", "20", "--checkpointing_steps", "10"]


def run_onnx(file, values: torch.Tensor) -> np.ndarray:
    """What onnxruntime makes of values."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    return session.run(None, {session.get_inputs()[0].name: values.numpy()})[0]


@pytest.fixture(scope="session")
def published_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one published model folder for each family, `faces-<family>`: config, weights, metrics and a
    card."""
    root = tmp_path_factory.mktemp("model_cards")
    images = torch.rand(8, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name in FAMILIES:
        folder = root / f"faces-{name}"
        model = tiny_model(name)
        model.save_pretrained(folder)
        save_metrics(evaluate(model, images), folder)
        to_pictures(model.sample(1))[0].save(folder / "samples.png")
    return root
