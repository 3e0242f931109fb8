"""The automatic choices: each is made from what the machine and the launcher say, and can be turned off."""

import re

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from conftest import REPOSITORY

from hf_vae import hardware
from hf_vae.config import TrainConfig
from hf_vae.hardware import COMPILE_PAYS_FROM, Choices, choose, use_cpu


CPU, GPU = torch.device("cpu"), torch.device("cuda")
BATCH_NORM, GROUP_NORM = torch.nn.BatchNorm2d(8), torch.nn.GroupNorm(1, 8)
LAUNCH_FILES = sorted((REPOSITORY / "docs" / "launch").glob("*.yaml"))
GUIDE = (REPOSITORY / "docs" / "training.md").read_text()


@pytest.mark.parametrize(
    ("wanted", "told", "native", "expected"),
    [
        ("auto", None, False, "no"),
        ("auto", None, True, "bf16"),
        ("auto", "no", True, "bf16"),  # what `accelerate launch` says when it was told nothing
        ("auto", "bf16", False, "bf16"),
        ("no", "bf16", True, "no"),
        ("no", "fp16", True, "no"),
        ("bf16", None, False, "bf16"),
    ],
)
def test_precision_is_what_was_asked_for_then_what_the_launcher_says_then_what_is_fast(
    wanted, told, native, expected, monkeypatch
):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if told:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
    monkeypatch.setattr(hardware, "computes_in_bfloat16", lambda device: native)
    assert choose(TrainConfig(mixed_precision=wanted), CPU, 10, BATCH_NORM).precision == expected


@pytest.mark.parametrize("device", [GPU, torch.device("mps"), torch.device("xpu")])
@pytest.mark.parametrize(("wanted", "told"), [("fp16", None), ("auto", "fp16")])
def test_fp16_is_for_devices_that_compute_in_it(wanted, told, device, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told or "no")
    assert hardware.choose_precision(TrainConfig(mixed_precision=wanted), device) == "fp16"


@pytest.mark.parametrize(
    ("wanted", "told", "message"),
    [
        (
            "fp16",
            None,
            "--mixed_precision is fp16, which the device cpu does not support; pass --mixed_precision no or bf16",
        ),
        ("auto", "fp16", "`accelerate launch`.* is fp16, which the device cpu .*; pass --mixed_precision no or bf16"),
        ("auto", "fp8", "`accelerate launch`.* is fp8"),
    ],
)
def test_a_precision_that_would_not_be_computed_in_is_refused(wanted, told, message, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told or "no")
    with pytest.raises(ValueError, match=message):
        hardware.choose_precision(TrainConfig(mixed_precision=wanted), CPU)


def test_compilation_and_layout_are_for_what_they_make_faster_unless_asked_for(monkeypatch):
    monkeypatch.setattr(hardware, "computes_in_bfloat16", lambda device: True)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: f"/usr/bin/{name}")
    automatic, forced = TrainConfig(), TrainConfig(compile="max-autotune", channels_last="yes")
    off = TrainConfig(compile="no", channels_last="no")
    last, first = True, False
    assert choose(automatic, GPU, COMPILE_PAYS_FROM, GROUP_NORM) == Choices("bf16", None, last)
    assert choose(automatic, CPU, COMPILE_PAYS_FROM, GROUP_NORM) == Choices("bf16", None, first)
    long, short = (choose(automatic, CPU, COMPILE_PAYS_FROM - less, BATCH_NORM) for less in (0, 1))
    assert long == Choices("bf16", "default", last)
    assert short == Choices("bf16", None, last)
    assert choose(forced, CPU, 1, GROUP_NORM) == Choices("bf16", "max-autotune", last)
    assert choose(off, GPU, 10**6, GROUP_NORM) == Choices("bf16", None, first)


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(hardware, "computes_in_bfloat16", lambda device: True)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    assert choose(TrainConfig(), CPU, 10**6, BATCH_NORM).compile_mode is None


@pytest.mark.parametrize(
    ("world_size", "told", "has_gpu", "expected"),
    [("1", "", False, False), ("2", "", False, True), ("2", "", True, False), ("1", "true", True, True)],
)
def test_several_processes_without_a_gpu_stay_on_the_cpu_together(world_size, told, has_gpu, expected, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", world_size)
    monkeypatch.setenv("ACCELERATE_USE_CPU", told or "false")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: has_gpu)
    assert use_cpu() == expected


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_each_launch_configuration_is_one_of_accelerate_and_has_its_command(file):
    config = load_config_from_file(str(file))
    assert config.num_processes >= config.num_machines >= 1
    assert f"--config_file docs/launch/{file.name}" in GUIDE


def test_each_launch_configuration_that_the_guide_names_exists():
    named = set(re.findall(r"--config_file docs/launch/(\S+)", GUIDE))
    assert named == {file.name for file in LAUNCH_FILES} and len(named) >= 5
