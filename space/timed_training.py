"""Trains as train_accelerate.py does, and ends near its minutes also if the machine gets busier meanwhile.

A run by the clock fixes its updates before the first one. Here it makes fewer if they turn out to take longer.
"""

from pathlib import Path
from typing import Any

import train_accelerate


SECONDS_BETWEEN_LOOKS = 2.0
MARGIN = 0.03  # of the minutes, for what is not measured, as in the plan of the run
NEWEST_SHARE = 0.7  # of the newest updates, in the mean of how much slower the machine has become


def finish_in_time(training: Any, clock: Any) -> Path:
    """Makes as many updates of the networks and of the prior as there is time for, in the planned proportion, at the
    speed that the machine has meanwhile. Publishes the model and returns its folder.

    Args:
        training: A `Training` that was started by `train_accelerate`. The Space imports nothing that trains.
        clock: The `Clock` of its minutes.
    """
    if training.length is not None:
        _train_in_time(training, clock)
    return training.finish()


def _train_in_time(training: Any, clock: Any) -> None:
    length, progress = training.length, training.progress
    costs = length.costs
    planned = length.steps * costs.update + length.prior_steps * costs.prior_update
    at_once = max(1, round(SECONDS_BETWEEN_LOOKS / costs.update))
    slower, share = 1.0, 1.0
    last = length.steps - 1  # `finish` makes the last update, which comes with a preview
    while progress.step < min(last, int(share * length.steps)):
        begin, first = clock.seconds, progress.step
        training.advance(min(first + at_once, last))
        newest = (clock.seconds - begin) / ((progress.step - first) * costs.update)
        slower += NEWEST_SHARE * (max(1.0, newest) - slower)
        left = 60 * length.minutes * (1 - MARGIN) - clock.seconds
        left = left / slower - costs.publishing  # at the speed that was measured
        share = min(1.0, max(0.0, left + progress.step * costs.update) / planned)
    if share < 1:
        training.shorten(progress.step + 1)


if __name__ == "__main__":
    train_accelerate.main(finish_in_time)
