"""A run says how long it will take."""

from datetime import timedelta

import pytest

from hf_vae.training import forecast
from hf_vae.training.forecast import WARM_UP_STEPS, Forecast, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = {"seconds": 100.0}
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: now["seconds"])
    return now


def said(
    clock, seconds_per_step: float, first_step: int, last_step: int, prior: tuple = (), pause: float = 0.0
) -> list[str]:
    """What is said during a run whose first updates take ten times as long, and that pauses after each."""
    outlook, found = Forecast(first_step, last_step, *prior), []
    for step in range(first_step + 1, min(last_step, first_step + 100) + 1):
        clock["seconds"] += seconds_per_step * (10 if step <= first_step + WARM_UP_STEPS else 1)
        found.append(outlook.after(step))
        with outlook.paused():
            clock["seconds"] += pause
    return [line for line in found if line]


@pytest.mark.parametrize("first_step", [0, 4000])
def test_the_time_left_is_said_once_and_follows_the_speed_after_the_warm_up(clock, first_step):
    (line,) = said(clock, seconds_per_step=0.5, first_step=first_step, last_step=first_step + 14415)
    assert "about 2 h 0 min (0.5 s an update), until about" in line and line.endswith("; the evaluation follows")
    assert "prior" not in line


def test_the_prior_counts_and_is_timed_once(clock):
    timed = []

    def time_prior() -> float:
        timed.append(1)
        return 0.4

    (line,) = said(clock, 0.5, first_step=0, last_step=135, prior=(1500, time_prior))
    assert "about 1 min (0.5 s an update), then about 10 min for 1,500 updates of the prior (0.4 s each)" in line
    assert len(timed) == 1


def test_what_is_no_update_does_not_count_as_one(clock):
    (line,) = said(clock, seconds_per_step=0.5, first_step=0, last_step=14415, pause=3.0)
    assert "(0.5 s an update)" in line


def test_nothing_is_said_of_a_run_that_is_over_in_a_minute(clock):
    assert said(clock, seconds_per_step=0.5, first_step=0, last_step=50) == []


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (timedelta(seconds=3), "1 min"),
        (timedelta(minutes=3), "3 min"),
        (timedelta(minutes=125), "2 h 5 min"),
        (timedelta(hours=50, minutes=20), "2 d 2 h"),
    ],
)
def test_durations_read_as_a_person_says_them(span, expected):
    assert duration(span) == expected
