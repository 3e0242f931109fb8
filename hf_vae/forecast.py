"""How long a run will take on this machine, said as soon as its first updates have shown it."""

import time
from datetime import datetime, timedelta


WARM_UP_STEPS = 5  # not counted: memory is allocated, and kernels are chosen or compiled
TIMED_SECONDS = 5.0
WORTH_SAYING = timedelta(minutes=1)


class Forecast:
    """A clock that looks at the first updates of a run, and at nothing else of it.

    Args:
        step: Updates that were made before.
        last_step: Updates after which the run ends.
    """

    def __init__(self, step: int, last_step: int):
        self._timed_from, self._last_step = step + WARM_UP_STEPS, last_step
        self._since = time.perf_counter()
        self._is_said = False

    def after(self, step: int) -> str | None:
        """What to say after `step` updates: once, when enough of them were timed, and only of a run that takes more
        than a minute."""
        now = time.perf_counter()
        if step <= self._timed_from:
            self._since = now
        if self._is_said or now - self._since < TIMED_SECONDS:
            return None
        self._is_said = True
        seconds = (now - self._since) / (step - self._timed_from)
        left = timedelta(seconds=seconds * (self._last_step - step))
        if left < WORTH_SAYING:
            return None
        return (
            f"  on this machine that takes about {duration(left)}, until {datetime.now() + left:%a %H:%M} "
            f"({seconds:.2g} s an update), and some minutes for prior, measurements and card"
        )


def duration(time_span: timedelta) -> str:
    """A time span as a person would say it, such as "2 h 5 min"."""
    minutes = round(time_span.total_seconds() / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
