"""Processes of their own for tests, without the seconds that each would take to import torch.

They are forks of one server process (`multiprocessing`'s forkserver) that has imported everything once. Each is a
process like any other: it can be killed, has its own signals and its own state of accelerate, and starts with the
environment, the working directory and the import path of the test that asks for it.
"""

import ctypes
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest import mock

import pytest


TIMEOUT = 300  # seconds
PRELOADED = ["conftest", "train_accelerate", "torch.distributed.launcher.api"]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # <linux/sched.h>


@dataclass(frozen=True)
class Finished:
    """What became of a process: its exit code, negative if a signal ended it, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_apart(function: Callable[..., None], *arguments: Any, **environment: str) -> Finished:
    """Calls a function of a module in a process of its own, with more environment variables, and waits for its end.

    Raises:
        TimeoutError: If it takes longer than `TIMEOUT`. The process is killed.
    """
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        forkserver.ensure_running()  # once; it imports the code under test, not an installed copy
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("stdout", "stderr")]
        process = CONTEXT.Process(target=_call, args=(function, arguments, os.environ | environment, *files))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{function.__name__} has not ended after {TIMEOUT} seconds.")
        printed = [Path(file).read_text() if Path(file).exists() else "" for file in files]
    return Finished(process.exitcode, *printed)


def _call(function: Callable[..., None], arguments: tuple, environment: dict[str, str], *files: str) -> None:
    """Replaces the environment and the two standard streams of this process, and calls the function."""
    os.environ.clear()
    os.environ |= environment
    for descriptor, file in zip((1, 2), files, strict=True):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    function(*arguments)


def launch_forks(function: Callable[..., None], *arguments: Any) -> Finished:
    """Calls a function in two processes as `accelerate launch` would start them with docs/launch/cpu_processes.yaml:
    under the agent of torchrun, which ends both of them if one fails."""
    return run_apart(_launch, function, arguments, ACCELERATE_USE_CPU="true", ACCELERATE_MIXED_PRECISION="no")


def _launch(function: Callable[..., None], arguments: tuple) -> None:
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, function)(*arguments)


def enter_private_file_system() -> None:
    """Gives this process mounts of its own, as `unshare --user --map-root-user --mount` does."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def skip_without_private_file_systems() -> None:
    """Ends a test where the kernel lets nobody mount a file system of their own."""
    if run_apart(enter_private_file_system).returncode:
        pytest.skip("no private file system can be mounted here")
