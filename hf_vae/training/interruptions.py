"""SIGTERM and Ctrl-C: the run finishes its update and saves its state before it exits."""

import signal
import time
from types import FrameType

import torch
from accelerate import Accelerator


SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGREE_EVERY = 10  # updates between two times that the ranks tell each other of signals, which makes them wait
ECHO_SECONDS = 1.0  # a second Ctrl-C within this time is the first one, passed on by a launcher


class TrainingInterrupted(Exception):  # noqa: N818, it is not an error
    """Raised when a run was stopped by a signal. It can be resumed.

    Args:
        signal_number: The signal.
        kept: The file or folder that it saved its state to.
    """

    def __init__(self, signal_number: int, kept: str):
        super().__init__(signal_number, kept)  # so that it can be pickled and sent to the other ranks
        self.exit_code = 128 + signal_number  # as shells do: 143 for SIGTERM, 130 for Ctrl-C

    def __str__(self) -> str:
        signal_number, kept = self.args
        return f"Stopped by {signal.Signals(signal_number).name} after writing {kept}."


class StopSignals:
    """A context that records the first SIGTERM or Ctrl-C instead of exiting. A second Ctrl-C stops at once. The record
    is kept when the context is entered again."""

    def __init__(self) -> None:
        self._received, self._when = 0, 0.0

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._received and time.monotonic() - self._when > ECHO_SECONDS:
            raise KeyboardInterrupt
        self._received, self._when = number, time.monotonic()

    @property
    def received(self) -> int:
        """The signal that this process received, or 0."""
        return self._received

    def raise_if_received(self, kept: str) -> None:
        """Stops the run if this process received a signal. Call it when the state is in `kept`.

        Raises:
            TrainingInterrupted: If it received a signal.
        """
        if self._received:
            raise TrainingInterrupted(self._received, kept)

    def agreed(self, accelerator: Accelerator, step: int) -> int:
        """The signal that any rank received, or 0; the same on all ranks."""
        if accelerator.num_processes == 1:
            return self._received
        if step % AGREE_EVERY:
            return 0
        received = torch.tensor([self._received], device=accelerator.device)
        return int(accelerator.gather(received).max())
