"""An update of the default VAE: how long it takes in fp32 and bf16, in both memory layouts, and what of it.

python -m benchmarks.update
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python -m benchmarks.update --precisions no    # as without AVX-512
"""

import time
from collections import Counter
from typing import Literal

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from benchmarks.report import print_header, print_table, spread
from hf_vae import VAE
from hf_vae.flags import FLAG_STYLE
from hf_vae.hardware import prepare_backends
from hf_vae.objectives import VAEObjective
from hf_vae.objectives.batch import Batch


BATCH_SIZE, SEEN = 64, 4  # images in an update; updates that are looked into
PARTS = {
    "convolution": "convolution",
    "_slow_conv2d": "convolution",
    "group_norm": "GroupNorm",
    "silu": "SiLU",
    "copy_": "copies",
    "adamw": "optimizer",
}


class Update:
    """Updates of the default VAE on one batch."""

    def __init__(self, precision: str, channels_last: bool):
        torch.manual_seed(0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model, self.objective, self.precision = VAE().train().to(memory_format=layout), VAEObjective(), precision
        images = (torch.rand(BATCH_SIZE, 3, 64, 64) * 2 - 1).contiguous(memory_format=layout)
        self.batch = Batch(images, seed=0, number=0)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4, fused=True)

    def run(self) -> None:
        """Makes one update."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            loss, _ = self.objective.model_step({"model": self.model}, self.batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def seconds(self) -> float:
        """The time of one update."""
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start

    def shares(self) -> dict[str, float]:
        """The share of each kind of work in the time of an update."""
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(SEEN):
                self.run()
        taken: Counter[str] = Counter()
        for event in profiler.key_averages():
            kind = next((part for name, part in PARTS.items() if name in event.key.lower()), "other")
            taken[kind] += event.self_cpu_time_total
        return {kind: seconds / taken.total() for kind, seconds in taken.most_common()}


def main(rounds: int = 10, precisions: tuple[Literal["no", "bf16"], ...] = ("no", "bf16")) -> None:
    """Measures in turns, and prints.

    Args:
        rounds: Updates of each that are timed.
        precisions: "no" is fp32. On a CPU without its instructions, bf16 takes seconds for an update.
    """
    prepare_backends(torch.device("cpu"), allow_tf32=True)
    print_header("An update of the default VAE", f"random ones, 64x64, batch {BATCH_SIZE}")
    updates = {(name, last): Update(name, last) for name in precisions for last in (False, True)}
    for update in updates.values():
        update.run()
        update.run()
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in updates}
    for _ in range(rounds):
        for key, update in updates.items():
            times[key].append(1000 * update.seconds())
    rows = []
    for (precision, last), update in updates.items():
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in update.shares().items())
        names = "fp32" if precision == "no" else precision, "channels last" if last else "channels first"
        rows.append([" ".join(names), spread(times[precision, last], ".0f"), shares])
    print_table(["", "ms (range)", "of which"], rows)


if __name__ == "__main__":
    tyro.cli(main, **FLAG_STYLE)
