"""What depends on the hardware: the device, its name and its memory, and the settings of a run on it (precision,
compilation, memory format and allocator). A run chooses these once, at its start, and prints them."""

import ctypes
import os
import shutil
import sys
import warnings
from dataclasses import dataclass

import torch
from torch import nn

from .config import TrainConfig


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
COMPILE_PAYS_FROM = 20_000  # updates: compiling takes a minute, and the gain is small
MIXED_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
CHANNELS_LAST_DEVICES = ("cuda", "xpu")  # whose makers recommend it for convolutions; "cuda" is ROCm's name too
# The AMD GPUs that multiply matrices in bf16: CDNA (MI100 and later), RDNA 3 and 4
BFLOAT16_ARCHITECTURES = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
TRUE = ("1", "true", "t", "yes", "y", "on")  # as accelerate reads its variables, which not everyone has installed


@dataclass(frozen=True)
class Choices:
    """How a run computes.

    Args:
        precision: "no", "fp16" or "bf16".
        compile_mode: A mode of torch.compile, or None.
        channels_last: Whether images and weights use the channels-last memory format.
    """

    precision: str
    compile_mode: str | None
    channels_last: bool

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        precision = "fp32" if self.precision == "no" else self.precision
        return f"precision {precision}, compile {self.compile_mode or 'no'}, {layout}"


def choose(
    config: TrainConfig, device: torch.device, num_steps: int, model: nn.Module, is_sharded: bool = False
) -> Choices:
    """Resolves every "auto" in `config` except the batch size.

    - precision: the setting of `accelerate launch`, or else bf16 if the hardware supports it. Emulated bf16 is slower
      than fp32.
    - compile: the default mode for long runs on a CPU without GroupNorm. On a GPU it gained nothing
      (docs/benchmarks.md).
    - channels_last: yes on NVIDIA, AMD and Intel GPUs, and on a CPU, unless the network has GroupNorm and computes in
      bf16, which it makes slower there. No on other devices, and for networks that FSDP shards (`is_sharded`), whose
      weights must be contiguous.

    `num_steps` is the total number of updates, so a resumed run makes the same choices.
    """
    on_cpu, precision = device.type == "cpu", choose_precision(config, device)
    has_group_norm = any(isinstance(module, nn.GroupNorm) for module in model.modules())
    compile_mode = None if config.compile == "no" else config.compile
    if compile_mode == "auto":
        pays = num_steps >= COMPILE_PAYS_FROM and on_cpu and not has_group_norm
        compile_mode = "default" if pays and shutil.which("cc") else None
    channels_last = config.channels_last == "yes"
    if config.channels_last == "auto":
        is_slower = has_group_norm and precision == "bf16"
        is_faster = device.type in CHANNELS_LAST_DEVICES or (on_cpu and not is_slower)
        channels_last = is_faster and not is_sharded
    return Choices(precision, compile_mode, channels_last)


def choose_precision(config: TrainConfig, device: torch.device) -> str:
    """The precision that `choose` resolves to: "no", "fp16" or "bf16".

    Raises:
        ValueError: If the device does not support it. Accelerate would silently use fp32 for fp16 on a CPU, and
            PyTorch for what its autocast does not have.
    """
    wanted: str = config.mixed_precision
    place = "--mixed_precision"
    if config.mixed_precision == "auto":
        wanted = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        place = "The mixed precision of `accelerate launch` or its configuration file (ACCELERATE_MIXED_PRECISION)"
    if wanted != "no" and not (wanted in MIXED_PRECISIONS and has_mixed_precision(device, wanted)):
        possible = ["no", *(name for name in MIXED_PRECISIONS if has_mixed_precision(device, name))]
        raise ValueError(
            f"{place} is {wanted}, which the device {device.type} does not support; pass --mixed_precision "
            f"{' or '.join(possible)}."
        )
    if config.mixed_precision == "auto" and wanted == "no":
        return "bf16" if computes_in_bfloat16(device) else "no"
    return wanted


def has_mixed_precision(device: torch.device, precision: str) -> bool:
    """Whether a run on `device` can compute in `precision`, "fp16" or "bf16", be it slowly."""
    if device.type == "cpu" and precision == "fp16":
        return False  # autocast has it, but accelerate does not turn it on
    if device.type == "mps" and precision == "bf16" and not torch.backends.mps.is_macos_or_newer(14, 0):
        return False  # autocast has it, but Metal does not
    try:
        with warnings.catch_warnings(action="ignore"), torch.autocast(device.type, MIXED_PRECISIONS[precision]):
            return torch.is_autocast_enabled(device.type)  # what it does not have, it turns off with a warning
    except RuntimeError:
        return False


def device_to_use() -> torch.device:
    """The accelerator of this machine: "cuda" (NVIDIA, and AMD with ROCm), "mps" (Apple), "xpu" (Intel) or another
    that this build of PyTorch has. It is the CPU if there is none, or if ACCELERATE_USE_CPU is set."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if found is None or _told_to_use_cpu() else found


def use_cpu() -> bool:
    """Whether a run uses the CPU only: if accelerate was told so, or if there are several processes and no GPU. In
    that case accelerate by itself would train a separate model in each process."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return _told_to_use_cpu() or (several and not torch.accelerator.is_available())


def _told_to_use_cpu() -> bool:
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in TRUE


def device_name(device: torch.device) -> str:
    """The name of a device for cards and logs, such as "NVIDIA H200", "Apple M2" or "CPU, 2 threads"; its type if
    PyTorch does not know its name."""
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    if device.type == "mps":
        return torch.backends.mps.get_name() if hasattr(torch.backends.mps, "get_name") else "mps"  # since torch 2.9
    get_name = getattr(torch.get_device_module(device), "get_device_name", None)
    return get_name(device) if get_name else device.type


def peak_memory(device: torch.device) -> int | None:
    """The highest allocation on an accelerator so far, in bytes. None on a CPU, and where PyTorch does not record it,
    as on Apple's GPUs."""
    get_peak = getattr(torch.get_device_module(device), "max_memory_allocated", None)
    return get_peak(device) if get_peak else None


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has bf16 instructions: NVIDIA GPUs since Ampere, AMD GPUs of `BFLOAT16_ARCHITECTURES`,
    Intel GPUs that say so, and CPUs with AVX-512 BF16 or AMX, unless ATEN_CPU_CAPABILITY tells PyTorch to do without
    AVX-512. PyTorch does not say it of Apple's GPUs, so the answer for "mps" is no."""
    if device.type == "cuda" and torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.startswith(BFLOAT16_ARCHITECTURES)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "xpu":
        return torch.xpu.get_device_properties(device).has_bfloat16_conversions
    is_used = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "AVX2"
    has = torch.cpu.get_capabilities() if is_used else {}
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))


def prepare_backends(device: torch.device, allow_tf32: bool) -> None:
    """Sets the global options of this process. On NVIDIA and AMD GPUs these are TF32 and the search for the fastest
    convolutions. On a CPU with Linux, the allocator keeps freed memory: every training step needs the same sizes
    again, and new pages are slow. On other devices nothing is set."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
        torch.backends.cudnn.benchmark = True
    elif device.type == "cpu" and sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL("libc.so.6").mallopt
        except (OSError, AttributeError):  # not glibc
            return
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)
