"""Contestants in their own processes, of which one works at a time. Allocator, compilation and memory belong to a
process, and changes of the machine's speed must affect all contestants equally."""

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import psutil
import torch


MIB = 2**20


class Worker:
    """A contestant in its own process, which waits for calls. It is a context manager: leaving it ends the process.

    Args:
        build: Makes the contestant in that process: a class at the top level of a module.
        log: File for what it prints.
        arguments: Passed to `build`.
    """

    def __init__(self, build: Callable[..., Any], log: Path, **arguments: Any):
        self._log = log
        self._connection, theirs = multiprocessing.Pipe()
        # spawned: a fork would inherit this process's threads and memory
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(theirs, build, arguments, log))
        self._process.start()
        theirs.close()
        self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls `method` of the contestant and returns its result."""
        return self.timed(method, *arguments)[0]

    def timed(self, method: str, *arguments: Any) -> tuple[Any, float]:
        """Calls `method` and returns its result, and the seconds that it took until the device had finished."""
        self._connection.send((method, arguments))
        return self._receive()

    def memory(self) -> dict[str, float]:
        """Peak memory so far, in MiB. `memory` is resident memory, plus the memory that child processes do not share;
        `gpu_memory` is allocated memory."""
        self._connection.send((None, ()))
        return self._receive()[0]

    def _receive(self) -> tuple[Any, float]:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            sys.exit(f"A contestant failed:\n{self._log.read_text()[-3000:]}")


def _serve(connection: Connection, build: Callable[..., Any], arguments: dict[str, Any], log: Path) -> None:
    with open(log, "w") as out:
        for stream in (1, 2):
            os.dup2(out.fileno(), stream)
    contestant = build(**arguments)
    connection.send((None, 0.0))
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        start = time.perf_counter()
        answer = getattr(contestant, method)(*arguments) if method else _peak_memory()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        connection.send((answer, time.perf_counter() - start))


def _peak_memory() -> dict[str, float]:
    children = psutil.Process().children(recursive=True)
    unshared = sum(child.memory_full_info().uss for child in children)
    status = Path("/proc/self/status")
    if status.exists():  # the other counter starts at the memory that the parent had when it spawned this process
        kib = int(status.read_text().split("VmHWM:")[1].split()[0])
    else:
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"memory": kib / 1024 + unshared / MIB, "gpu_memory": gpu / MIB}


@dataclass
class Turn:
    """One turn of a worker.

    Args:
        worker: The worker.
        method: The contestant's method, which takes a number of steps.
        seconds: How long a turn takes, about.
        lead_in: Steps before the clock starts: what a data loader has fetched meanwhile must be used up.
        cycle: Steps after which the work repeats itself; a turn has whole cycles.
    """

    worker: Worker
    method: str = "run"
    seconds: float = 3.0
    lead_in: int = 1
    cycle: int = 1


def take_turns(turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Takes all turns `rounds` times, and returns the seconds per step of each in each round."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for name, turn in turns.items():  # compiles, and finds the number of steps of a turn
        turn.worker.call(turn.method, 2 * turn.cycle)
        found[name] = [turn.worker.timed(turn.method, turn.cycle)[1] / turn.cycle]
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        for name, turn in turns.items():
            steps = turn.cycle * max(1, round(turn.seconds / (found[name][-1] * turn.cycle)))
            turn.worker.call(turn.method, turn.lead_in)
            found[name].append(turn.worker.timed(turn.method, steps)[1] / steps)
    print(file=sys.stderr)
    return {name: seconds[1:] for name, seconds in found.items()}
