"""How long a run is: its updates of the networks and of the prior, as numbers, or fixed from minutes."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from ..config import RunConfig, TrainConfig
from ..run_folder import CLOCK_FILE, write_json
from .checkpoints import list_checkpoints


FEWEST_PRIOR_STEPS, MOST_PRIOR_STEPS = 300, 9000  # of --prior_steps auto
MARGIN = 0.03  # of the minutes, for what is not measured: checkpoints, the log, writing the model
PRIOR_SHARE = 0.5  # of the time that is left for both, at most
FEWEST_PRIOR_SHARE = 0.25  # of its planned updates, however late a run is: a prior has to learn something
EVALUATION_SHARE = 0.15  # of the minutes, at most, unless the fewest held-out images and the card take longer
FEWEST_HELDOUT = 100  # images that are evaluated, if there are as many
FIRST_PREVIEW_SECONDS = 55.0  # after the start of the command, if the run has trained by then
PREVIEW_SECONDS = (5.0, 30.0)  # of training before the first preview, at least and at most
PREVIEW_GROWTH = 1.5  # from the time of one preview to that of the next


def num_updates(config: TrainConfig, images_per_step: int, num_images: int | None) -> int:
    """The number of updates of the networks. `num_images` is the number of training images; None for a stream, whose
    configuration has `max_train_steps`."""
    if config.max_train_steps is not None:
        return config.max_train_steps
    assert num_images is not None
    return math.ceil(config.num_train_epochs * num_images / images_per_step)


def default_prior_steps(num_steps: int) -> int:
    """The updates of the prior that "auto" stands for: as many as those of the networks, at least 300 and at most
    9,000."""
    return min(max(num_steps, FEWEST_PRIOR_STEPS), MOST_PRIOR_STEPS)


@dataclass(frozen=True)
class Clock:
    """The time since a command was started.

    Args:
        started: When it was, by `now`.
        now: Gives the time in seconds, from any origin.
    """

    started: float
    now: Callable[[], float] = time.perf_counter

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self.now() - self.started

    @classmethod
    def from_now(cls) -> "Clock":
        """A clock that starts now."""
        return cls(time.perf_counter())

    @classmethod
    def of_process(cls) -> "Clock":
        """A clock that started with this process, so that it counts the imports too."""
        age = time.time() - psutil.Process().create_time()
        return cls(time.perf_counter() - age)


@dataclass(frozen=True)
class Afterwards:
    """The time that a command needs for a published model.

    Args:
        seconds: What does not depend on the number of held-out images.
        heldout_image: Seconds for each held-out image that is evaluated.
        num_heldout: Number of these images.
    """

    seconds: float = 0.0
    heldout_image: float = 0.0
    num_heldout: int = 0


@dataclass(frozen=True)
class Costs:
    """The time that the parts of a run take on this machine, in seconds.

    Args:
        before: From the start of the command until the end of the measurements.
        update: An update of the networks, once its work no longer changes.
        prior_update: An update of the prior; 0 if none is learned.
        evaluation: The card, and what of the evaluation does not depend on the number of images.
        preview: One preview.
        first_update: How much longer the first update of the networks takes than the others.
        details: Fitting the residual latents; 0 if the model has none.
        fitting: All that the prior needs besides its updates.
        heldout_image: The evaluation, for each held-out image.
        num_heldout: The number of held-out images that are evaluated.
        validation: The validation losses, for each update of the networks.
        early_update: One of the first `num_early` updates of the networks.
        num_early: How many of them have other work than those that follow; 0 if all are alike.
    """

    before: float
    update: float
    prior_update: float = 0.0
    evaluation: float = 0.0
    preview: float = 0.0
    first_update: float = 0.0
    details: float = 0.0
    fitting: float = 0.0
    heldout_image: float = 0.0
    num_heldout: int = 0
    validation: float = 0.0
    early_update: float = 0.0
    num_early: int = 0

    @property
    def cheapest_update(self) -> float:
        """The seconds of an update of the networks, at least."""
        return (min(self.update, self.early_update) if self.num_early else self.update) + self.validation

    @property
    def publishing(self) -> float:
        """The seconds from the last update of the networks to the end, without updates of the prior."""
        return self.details + self.fitting + self.evaluation + self.num_heldout * self.heldout_image

    def phases(self, num_steps: int, prior_steps: int, previews: int) -> dict[str, float]:
        """The seconds of each phase of a run with so many updates of networks and prior, and so many previews, in the
        order of time. Phases that the run does not have are left out."""
        num_early = min(num_steps, self.num_early)
        updates = num_early * self.early_update + (num_steps - num_early) * self.update
        training = self.first_update + updates + num_steps * self.validation + previews * self.preview
        seconds = {
            "start": self.before,
            "training": training,
            "details": self.details,
            "prior": self.fitting + prior_steps * self.prior_update,
            "evaluation and card": self.evaluation + self.num_heldout * self.heldout_image,
        }
        return {phase: taken for phase, taken in seconds.items() if taken > 0}


@dataclass(frozen=True)
class Length:
    """The length of a run that was fixed from minutes, as recorded in its folder.

    Args:
        minutes: The time that the whole command was given.
        steps: Updates of the networks.
        prior_steps: Updates of the prior.
        first_preview: Updates before the first preview.
        measured: The costs that this was computed from, in seconds.
        is_prior_final: Whether `prior_steps` stays as it is. If not, `with_rest_for_prior` changes it.
    """

    minutes: float
    steps: int
    prior_steps: int
    first_preview: int
    measured: dict[str, float]
    is_prior_final: bool = True

    @property
    def num_heldout(self) -> int | None:
        """How many held-out images are evaluated; None for all."""
        return int(self.measured.get("num_heldout", 0)) or None

    @property
    def costs(self) -> Costs:
        """What was measured."""
        return Costs(**self.measured)  # type: ignore[arg-type]  # asdict made it

    def with_rest_for_prior(self, seconds: float, update: float | None) -> "Length":
        """The length with as many updates of the prior as there is time for, once the networks are trained. So a run
        ends in time also if their updates took less or more than was measured. What follows is taken to be slower or
        faster by as much as the newest updates. The prior makes at least a quarter of the updates that were planned.

        Args:
            seconds: What the training of the networks took.
            update: What the newest of their updates took each, without validation; None if it is not known.
        """
        costs = self.costs
        pace = 1.0 if update is None else update / costs.update
        left = _usable_seconds(self.minutes) - costs.before - seconds - pace * costs.publishing
        most = min(int(left / (pace * costs.prior_update)), MOST_PRIOR_STEPS)
        return replace(
            self, prior_steps=max(math.ceil(FEWEST_PRIOR_SHARE * self.prior_steps), most), is_prior_final=True
        )

    def is_preview_due(self, step: int) -> bool:
        """Whether a preview comes after so many updates: the first one early, and each next one after half as many
        updates again."""
        due = self.first_preview
        while due < step:
            due = math.ceil(PREVIEW_GROWTH * due)
        return step in (due, self.steps)

    def sentence(self, learns_prior: bool) -> str:
        """What the run prints about it."""
        prior = f", then {self.prior_steps:,} of the prior and" if learns_prior else " and"
        enough = f"{as_minutes(self.minutes)} {'is' if self.minutes == 1 else 'are'} enough"
        return f"{enough} for {self.steps:,} updates{prior} the evaluation"

    def applied_to(self, config: TrainConfig) -> dict[str, int | None]:
        """The settings that stand in place of `max_train_minutes`. With the final ones, a recipe trains the same
        model."""
        return {"max_train_minutes": None, "max_train_steps": self.steps, "prior_steps": self.prior_steps}

    def save(self, folder: Path) -> None:
        """Writes it to the run folder, for a resumed run."""
        write_json(folder, CLOCK_FILE, asdict(self))


def as_minutes(minutes: float) -> str:
    """A number of minutes in words."""
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"


def estimate(phases: dict[str, float]) -> str:
    """What a run prints about the seconds of its phases: their sum, and each of them, in minutes, or in seconds if all
    of them together take less than 2 minutes."""
    total = sum(phases.values())
    unit, size = ("minutes", 60) if total >= 120 else ("seconds", 1)

    def rounded(seconds: float) -> str:
        return f"{max(1, round(seconds / size))}" if seconds >= size / 2 else "under 1"

    parts = ", ".join(f"{phase} {rounded(seconds)}" for phase, seconds in phases.items())
    return f"about {rounded(total)} {unit} in all: {parts}"


def fit_into(config: TrainConfig, costs: Costs) -> Length:
    """The longest run that ends within `max_train_minutes`.

    The prior makes `prior_steps` updates. If that is "auto", it makes as many as `default_prior_steps` says, but takes
    at most half of the time that is left for the networks and the prior. If there are many held-out images for the
    time, a part of them is evaluated.

    Raises:
        ValueError: If there is no time for an update.
    """
    assert config.max_train_minutes is not None
    seconds = _usable_seconds(config.max_train_minutes)
    costs = replace(costs, num_heldout=_num_evaluated(costs, seconds))
    previews = num_previews(seconds) if config.preview_steps else 0
    fixed = sum(costs.phases(0, 0 if config.prior_steps == "auto" else config.prior_steps, previews).values())
    left = seconds - fixed
    most_of_prior = MOST_PRIOR_STEPS
    if config.prior_steps == "auto" and costs.prior_update > 0:
        most_of_prior = max(1, int(PRIOR_SHARE * left / costs.prior_update))

    def prior_steps(num_steps: int) -> int:
        if config.prior_steps == "auto":
            return min(default_prior_steps(num_steps), most_of_prior)
        return config.prior_steps

    def is_possible(num_steps: int) -> bool:
        return sum(costs.phases(num_steps, prior_steps(num_steps), previews).values()) <= seconds

    if not is_possible(1):
        needed = math.ceil((fixed + costs.cheapest_update + costs.prior_update) / (1 - MARGIN) / 6) / 10
        raise ValueError(
            f"max_train_minutes={config.max_train_minutes:g} is not enough on this machine: all that a run does "
            f"besides updates of its networks takes about {needed:.1f} minutes. Pass --max_train_minutes of at least "
            f"{math.ceil(2 * needed)}."
        )
    least, most = 1, max(2, int(left / costs.cheapest_update) + 2)
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if is_possible(middle) else (least, middle)
    shortest, longest = PREVIEW_SECONDS
    training_before_preview = min(longest, max(shortest, FIRST_PREVIEW_SECONDS - costs.before - costs.preview))
    first_preview = min(least, max(1, round(training_before_preview / costs.cheapest_update)))
    measured = {name: round(value, 4) for name, value in asdict(costs).items()}
    is_prior_final = config.prior_steps != "auto" or costs.prior_update == 0
    return Length(config.max_train_minutes, least, prior_steps(least), first_preview, measured, is_prior_final)


def _usable_seconds(minutes: float) -> float:
    return 60 * minutes * (1 - MARGIN)


def _num_evaluated(costs: Costs, seconds: float) -> int:
    """The number of held-out images whose evaluation takes at most its share of the time of a run."""
    if costs.heldout_image == 0:
        return costs.num_heldout
    fitting = int((EVALUATION_SHARE * seconds - costs.evaluation) / costs.heldout_image)
    return min(costs.num_heldout, max(FEWEST_HELDOUT, fitting))


def num_previews(seconds: float) -> int:
    """The most previews that a run of so many seconds draws."""
    return 2 + max(0, math.ceil(math.log(seconds / PREVIEW_SECONDS[0], PREVIEW_GROWTH)))


def recorded_length(run: RunConfig) -> Length | None:
    """The length that an earlier launch of a run by the clock fixed; None for a new run, and for one that was stopped
    before it had fixed a length.

    Raises:
        ValueError: If the run to resume was given another time, or none, or if its record cannot be read.
    """
    config = run.train
    if not config.resume_from_checkpoint or config.max_train_minutes is None:
        return None
    folders = [Path(config.output_dir)]
    if config.resume_from_checkpoint != "latest":
        folders.append(Path(config.resume_from_checkpoint).parent)
    for file in (folder / CLOCK_FILE for folder in folders):
        if file.is_file():
            try:
                length = Length(**json.loads(file.read_text()))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{file} cannot be read: {error}. Restore it, or pass --max_train_steps.") from error
            if length.minutes != config.max_train_minutes:
                raise ValueError(
                    f"max_train_minutes={config.max_train_minutes:g} is not possible: {file} says that this run was "
                    f"given {as_minutes(length.minutes)}. Pass --max_train_minutes {length.minutes:g}, or "
                    f"--max_train_steps of more than {length.steps} to train for longer."
                )
            if config.prior_steps != "auto":
                length = replace(length, prior_steps=config.prior_steps, is_prior_final=True)
            return length
    if any(list_checkpoints(folder) for folder in folders):
        raise ValueError(
            f"{config.output_dir} has no {CLOCK_FILE}: this run was started without --max_train_minutes. Leave the "
            "flag out, or pass --max_train_steps."
        )
    return None
