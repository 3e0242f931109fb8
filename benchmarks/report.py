"""Headers and tables: the machine, the versions, the command, and the format of numbers."""

import os
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contestants import Ceiling


# Dense bf16 TFLOP/s with fp32 accumulation, from the makers' data sheets.
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "RTX 4090": 165, "RTX 3090": 71}

CPU_FLAGS = ("avx512_bf16", "avx512_vnni", "amx_bf16")  # what computes faster in fewer bits


def print_header(title: str, pictures: str) -> None:
    """Prints what readers need to judge or repeat the numbers."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "accelerate", "pillow"))
    print(f"\n### {title}\n")
    print(f"- command: `python {' '.join(sys.argv)}`")
    print(f"- machine: {_machine()}")
    print(f"- versions: Python {platform.python_version()}, {versions}")
    print(f"- images: {pictures}\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table as Markdown. The first column holds names, the others numbers."""
    print(f"| {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * (len(columns) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def spread(values: list[float], form: str = ".2f") -> str:
    """The median, and the range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def ratios(above: list[float], below: list[float]) -> list[float]:
    """The ratio in each round."""
    return [numerator / denominator for numerator, denominator in zip(above, below, strict=True)]


def flops_of_a_step(images: torch.Tensor) -> int:
    """Floating-point operations of an update of the plain network on `images`, forward and backward. A multiplication
    and an addition count as two."""
    ceiling = Ceiling(images)
    with FlopCounterMode(display=False) as counter:
        ceiling.run(1)
    return counter.get_total_flops()


def share_of_peak(flops_per_second: float) -> str:
    """The speed in GFLOP/s, and on a GPU also its share of the peak in bf16 that the maker states."""
    speed = f"{flops_per_second / 1e9:,.0f}"
    if not torch.cuda.is_available():
        return speed
    name = torch.cuda.get_device_name()
    peak = next((tflops for chip, tflops in PEAK_TFLOPS.items() if chip in name), None)
    return f"{speed} ({flops_per_second / peak / 1e12:.1%} of peak)" if peak else f"{speed} (peak unknown)"


def _machine() -> str:
    information = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in information.splitlines() if line.startswith("model name")]
    units = [torch.backends.cpu.get_cpu_capability(), *(flag for flag in CPU_FLAGS if f" {flag} " in information)]
    cpu = f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores ({', '.join(units)})"
    cpu += f", {torch.get_num_threads()} threads"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cpu}; {gpu}; load average {os.getloadavg()[0]:.1f} before the start"
