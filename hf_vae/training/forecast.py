"""How long a run will take on this machine, said as soon as its first updates have shown it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta


WARM_UP_STEPS = 5  # not counted: memory is allocated, and kernels are chosen or compiled
TIMED_SECONDS = 5.0
WORTH_SAYING = timedelta(minutes=1)


class Forecast:
    """A clock that looks at the first updates of a run, and at nothing else of it.

    Args:
        step: Updates that were made before.
        last_step: Updates after which the networks are trained.
        prior_steps: Updates of the prior that follow; 0 if it does not learn.
        time_prior: Measures how many seconds one of these takes. It is called once, when there is something to say.
    """

    def __init__(self, step: int, last_step: int, prior_steps: int = 0, time_prior: Callable[[], float] = float):
        self._timed_from, self._last_step = step + WARM_UP_STEPS, last_step
        self._prior_steps, self._time_prior = prior_steps, time_prior
        self._since = time.perf_counter()
        self._is_said = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context for what is no update, such as a preview."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started

    def after(self, step: int) -> str | None:
        """What to say after `step` updates: once, when enough of them were timed, and only of a run that takes more
        than a minute, its prior included."""
        now = time.perf_counter()
        if step <= self._timed_from:
            self._since = now
        if self._is_said or now - self._since < TIMED_SECONDS:
            return None
        self._is_said = True
        seconds = (now - self._since) / (step - self._timed_from)
        left, prior, then = timedelta(seconds=seconds * (self._last_step - step)), timedelta(), ""
        if self._prior_steps:
            each = self._time_prior()
            prior = timedelta(seconds=each * self._prior_steps)
            then = f", then about {duration(prior)} for {self._prior_steps:,} updates of the prior ({each:.2g} s each)"
        if left + prior < WORTH_SAYING:
            return None
        return (
            f"  on this machine that takes about {duration(left)} ({seconds:.2g} s an update){then}, until about "
            f"{datetime.now() + left + prior:%a %H:%M}; the evaluation follows"
        )


def duration(time_span: timedelta) -> str:
    """A time span as a person would say it, such as "2 h 5 min", and at least a minute."""
    minutes = max(1, round(time_span.total_seconds() / 60))
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
