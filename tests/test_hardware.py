"""The automatic choices: each is made from what the machine and the launcher say, and can be turned off."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from conftest import REPOSITORY

from hf_vae import hardware
from hf_vae.commands.environment import env
from hf_vae.config import TrainConfig
from hf_vae.data.cached import ImageSet
from hf_vae.hardware import COMPILE_PAYS_FROM, Choices, choose, device_name, device_to_use, peak_memory, use_cpu
from hf_vae.training.logs import memory_in_use


CPU, GPU = torch.device("cpu"), torch.device("cuda")
APPLE, INTEL = torch.device("mps"), torch.device("xpu")
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


@pytest.fixture
def has_cuda(monkeypatch):
    """What torch.autocast asks on a machine with an NVIDIA or AMD GPU."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


@pytest.mark.parametrize("device", [GPU, torch.device("mps"), torch.device("xpu")])
@pytest.mark.parametrize(("wanted", "told"), [("fp16", None), ("auto", "fp16")])
def test_fp16_is_for_devices_that_compute_in_it(wanted, told, device, monkeypatch, has_cuda):
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
    assert choose(TrainConfig(mixed_precision="no"), CPU, 1, GROUP_NORM) == Choices("no", None, last)
    assert choose(forced, CPU, 1, GROUP_NORM) == Choices("bf16", "max-autotune", last)
    assert choose(off, GPU, 10**6, GROUP_NORM) == Choices("bf16", None, first)


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(hardware, "computes_in_bfloat16", lambda device: True)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    assert choose(TrainConfig(), CPU, 10**6, BATCH_NORM).compile_mode is None


@pytest.mark.parametrize("device", [GPU, APPLE, INTEL])
def test_bf16_on_request_is_for_every_device_whose_autocast_has_it(device, monkeypatch, has_cuda):
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: True)
    monkeypatch.setattr(hardware, "computes_in_bfloat16", lambda device: False)
    assert hardware.choose_precision(TrainConfig(mixed_precision="bf16"), device) == "bf16"


def test_a_precision_that_autocast_would_turn_off_is_refused_by_name(monkeypatch, has_cuda):
    bf16, fp16 = TrainConfig(mixed_precision="bf16"), TrainConfig(mixed_precision="fp16")
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: version < (14, 0))
    with pytest.raises(ValueError, match="is bf16, which the device mps does not .* --mixed_precision no or fp16"):
        hardware.choose_precision(bf16, APPLE)
    with pytest.raises(ValueError, match=r"is fp16, which the device meta does not .* --mixed_precision no\.$"):
        hardware.choose_precision(fp16, torch.device("meta"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="is bf16, which the device cuda does not .* --mixed_precision no or fp16"):
        hardware.choose_precision(bf16, GPU)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: True)  # only warns
    with pytest.raises(ValueError, match=r"is fp16, which the device cuda does not .* --mixed_precision no\.$"):
        hardware.choose_precision(fp16, GPU)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("gfx90a:sramecc+:xnack-", True), ("gfx942", True), ("gfx1100", True), ("gfx906", False), ("gfx1030", False)],
)
def test_amd_gpus_say_by_their_architecture_whether_they_compute_in_bf16(architecture, expected, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    properties = SimpleNamespace(gcnArchName=architecture)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert hardware.computes_in_bfloat16(GPU) == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_nvidia_gpus_compute_in_bf16_since_ampere(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert hardware.computes_in_bfloat16(GPU) == expected


@pytest.mark.parametrize("expected", [True, False])
def test_intel_gpus_say_whether_they_compute_in_bf16_and_apple_gpus_are_not_believed_to(expected, monkeypatch):
    properties = SimpleNamespace(has_bfloat16_conversions=expected)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: properties)
    assert hardware.computes_in_bfloat16(INTEL) == expected
    assert not hardware.computes_in_bfloat16(APPLE)


def test_choices_of_other_accelerators_are_those_of_a_gpu_except_channels_last_on_apple(monkeypatch):
    monkeypatch.setattr(hardware, "computes_in_bfloat16", lambda device: False)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: f"/usr/bin/{name}")
    for network in (BATCH_NORM, GROUP_NORM):
        assert choose(TrainConfig(), INTEL, 10**6, network) == Choices("no", None, True)
        assert choose(TrainConfig(), APPLE, 10**6, network) == Choices("no", None, False)
    assert choose(TrainConfig(channels_last="yes"), APPLE, 10, GROUP_NORM).channels_last


def test_choices_are_shown_in_words():
    assert str(Choices("no", None, True)) == "precision fp32, compile no, channels last"
    assert str(Choices("bf16", "default", False)) == "precision bf16, compile default, channels first"


@pytest.mark.parametrize("device", [CPU, GPU, INTEL])
def test_weights_that_fsdp_shards_stay_contiguous(device, monkeypatch):
    monkeypatch.setattr(hardware, "computes_in_bfloat16", lambda device: False)
    for is_sharded in (False, True):
        chosen = choose(TrainConfig(), device, 10, GROUP_NORM, is_sharded)
        assert chosen.channels_last is not is_sharded


@pytest.mark.parametrize("device", [APPLE, INTEL])
def test_other_accelerators_change_no_setting_of_cuda_and_not_the_allocator(device, monkeypatch):
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: pytest.fail(f"{name} is opened"))
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    hardware.prepare_backends(device, allow_tf32=not before[1])
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_device_is_the_accelerator_that_torch_names_unless_the_cpu_was_asked_for(kind, monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    assert device_to_use() == torch.device(kind)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")  # what `accelerate launch` sets
    assert device_to_use() == torch.device(kind)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert device_to_use() == CPU
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)  # built for it, and there is none
    assert device_to_use() == CPU


def test_an_accelerator_is_known_by_its_name_and_its_memory(monkeypatch, capsys):
    card = SimpleNamespace(get_device_name=lambda device: "Arc", max_memory_allocated=lambda device: 3 * 2**20)
    monkeypatch.setattr(torch, "get_device_module", lambda device: {"xpu": card}.get(device.type, SimpleNamespace()))
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M2", raising=False)
    assert (device_name(INTEL), peak_memory(INTEL)) == ("Arc", 3 * 2**20)
    assert (device_name(APPLE), peak_memory(APPLE)) == ("Apple M2", None)
    assert re.fullmatch(r"CPU, \d+ threads?", device_name(CPU)) and peak_memory(CPU) is None
    assert memory_in_use(INTEL)["gpu_memory_mib"] == 3
    assert memory_in_use(APPLE).keys() == memory_in_use(CPU).keys() == {"memory_mib"}
    monkeypatch.setattr(hardware, "device_to_use", lambda: INTEL)
    env(as_json=True)
    assert json.loads(capsys.readouterr().out)["device"] == "xpu (Arc)"
    monkeypatch.delattr(torch.backends.mps, "get_name")
    assert device_name(APPLE) == "mps"


class Copied(torch.Tensor):
    """Images that say where they were copied to, instead of going there."""

    def to(self, device):
        return device.type


@pytest.mark.parametrize(
    ("device", "free", "copied"), [(INTEL, 400, "xpu"), (GPU, 400, "cuda"), (GPU, 399, None), (APPLE, None, None)]
)
def test_images_lie_on_a_device_with_memory_of_its_own_that_has_room(device, free, copied, monkeypatch):
    card = SimpleNamespace(**{"mem_get_info": lambda device: (free, 1000)} if free else {})
    monkeypatch.setattr(torch, "get_device_module", lambda device: card)
    images = torch.zeros(1, 1, 10, 10, dtype=torch.uint8).as_subclass(Copied)
    found = ImageSet(images, torch.arange(1)).to(device)
    assert found.images is images if copied is None else found.images == copied


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


@pytest.mark.parametrize(("used", "expected"), [("AVX512", True), ("AVX2", False), ("DEFAULT", True)])
def test_a_cpu_computes_in_bf16_if_it_can_and_is_let(used, expected, monkeypatch):
    """ATEN_CPU_CAPABILITY=avx2 makes PyTorch do without AVX-512. An Arm CPU is DEFAULT."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: used)
    assert hardware.computes_in_bfloat16(CPU) is expected
