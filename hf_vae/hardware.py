"""What suits the machine that a run is on: precision, compilation, memory layout and allocator, chosen once at its
start and shown in its first lines."""

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
COMPILE_PAYS_FROM = 20_000  # updates: compiling takes a minute, and gains little


@dataclass(frozen=True)
class Choices:
    """How a run computes.

    Args:
        precision: "no", "fp16" or "bf16".
        compile_mode: A mode of torch.compile, or None.
        channels_last: Whether images and weights are stored with their channels together.
    """

    precision: str
    compile_mode: str | None
    channels_last: bool

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        return f"precision {self.precision}, compile {self.compile_mode or 'no'}, {layout}"


def choose(config: TrainConfig, device: torch.device, num_steps: int, model: nn.Module) -> Choices:
    """Resolves every "auto" in `config` but the batch size.

    Precision is what `accelerate launch` was told, else bf16 where the hardware computes in it: emulating it is slower
    than fp32. Channels lie together, but on a CPU not where there is GroupNorm, which that makes slower. Long runs on
    a CPU are compiled, but for GroupNorm again; on a GPU none, as no gain was seen there (docs/benchmarks.md). A
    resumed run chooses as it did before, as its length counts as a whole.
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
    """The precision that `choose` settles on.

    Raises:
        ValueError: If accelerate would compute in another one: it takes fp16 for fp32 on a CPU.
    """
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if config.mixed_precision != "auto":
        wanted, place = config.mixed_precision, "--mixed_precision"
    else:
        wanted, place = told, "`accelerate launch`, or its configuration file, (ACCELERATE_MIXED_PRECISION)"
    if (wanted == "fp16" and device.type == "cpu") or wanted not in ("no", "fp16", "bf16"):
        raise ValueError(
            f"{place} asks for {wanted}, which a run cannot compute in on the device {device.type}; pass "
            "--mixed_precision no, or bf16."
        )
    if config.mixed_precision == "auto" and wanted == "no":
        return "bf16" if computes_in_bfloat16(device) else "no"
    return wanted


def use_cpu() -> bool:
    """Whether a run stays on the CPU: because it was told so, or because its launcher started several processes where
    there is no GPU. Left to itself, accelerate would then train one model in each of them."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return parse_flag_from_env("ACCELERATE_USE_CPU") or (several and not torch.accelerator.is_available())


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has instructions for bf16: GPUs since Ampere, CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    has = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))


def prepare_backends(device: torch.device, allow_tf32: bool) -> None:
    """Sets what is global in a process: TF32 and convolution search on a GPU; on Linux, an allocator that keeps what
    was freed, since a training step asks for the same sizes again and fresh pages are slow."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
        torch.backends.cudnn.benchmark = True
    elif sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL("libc.so.6").mallopt
        except (OSError, AttributeError):  # another C library than glibc: it allocates as it does
            return
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)
