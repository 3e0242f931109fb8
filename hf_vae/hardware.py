"""Settings that depend on the hardware: precision, compilation, memory format and allocator. A run chooses them once,
at its start, and prints them."""

import ctypes
import os
import shutil
import sys
from dataclasses import dataclass

import torch
from accelerate.utils import parse_flag_from_env
from torch import nn

from .config import TrainConfig


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
COMPILE_PAYS_FROM = 20_000  # updates: compiling takes a minute, and the gain is small


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
        return f"precision {self.precision}, compile {self.compile_mode or 'no'}, {layout}"


def choose(config: TrainConfig, device: torch.device, num_steps: int, model: nn.Module) -> Choices:
    """Resolves every "auto" in `config` except the batch size.

    - precision: the setting of `accelerate launch`, or else bf16 if the hardware supports it. Emulated bf16 is slower
      than fp32.
    - compile: the default mode for long runs on a CPU without GroupNorm. On a GPU it gained nothing
      (docs/benchmarks.md).
    - channels_last: yes, except on a CPU with GroupNorm, where it is slower.

    `num_steps` is the total number of updates, so a resumed run makes the same choices.
    """
    on_gpu = device.type == "cuda"
    has_group_norm = any(isinstance(module, nn.GroupNorm) for module in model.modules())
    compile_mode = None if config.compile == "no" else config.compile
    if compile_mode == "auto":
        pays = num_steps >= COMPILE_PAYS_FROM and not on_gpu and not has_group_norm
        compile_mode = "default" if pays and shutil.which("cc") else None
    channels_last = (on_gpu or not has_group_norm) if config.channels_last == "auto" else config.channels_last == "yes"
    return Choices(choose_precision(config, device), compile_mode, channels_last)


def choose_precision(config: TrainConfig, device: torch.device) -> str:
    """The precision that `choose` resolves to: "no", "fp16" or "bf16".

    Raises:
        ValueError: If the device does not support it. Accelerate would silently use fp32 for fp16 on a CPU.
    """
    wanted: str = config.mixed_precision
    place = "--mixed_precision"
    if config.mixed_precision == "auto":
        wanted = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        place = "The mixed precision of `accelerate launch` or its configuration file (ACCELERATE_MIXED_PRECISION)"
    if (wanted == "fp16" and device.type == "cpu") or wanted not in ("no", "fp16", "bf16"):
        raise ValueError(
            f"{place} is {wanted}, which the device {device.type} does not support; pass --mixed_precision no or bf16."
        )
    if config.mixed_precision == "auto" and wanted == "no":
        return "bf16" if computes_in_bfloat16(device) else "no"
    return wanted


def use_cpu() -> bool:
    """Whether a run uses the CPU only: if accelerate was told so, or if there are several processes and no GPU. In
    that case accelerate by itself would train a separate model in each process."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return parse_flag_from_env("ACCELERATE_USE_CPU") or (several and not torch.accelerator.is_available())


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has bf16 instructions: GPUs since Ampere, and CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    has = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))


def prepare_backends(device: torch.device, allow_tf32: bool) -> None:
    """Sets the global options of this process. On a GPU these are TF32 and the search for the fastest convolutions. On
    a CPU with Linux, the allocator keeps freed memory: every training step needs the same sizes again, and new pages
    are slow."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
        torch.backends.cudnn.benchmark = True
    elif sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL("libc.so.6").mallopt
        except (OSError, AttributeError):  # not glibc
            return
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)
