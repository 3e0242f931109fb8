"""How long a run is: the prior's share of the updates, and a run by the clock. Time is that of a clock of the test."""

import dataclasses
import json
import math
import os
import re
import signal
from pathlib import Path

import pytest
from apart import launch_forks
from conftest import assert_equal_runs, flags_of, reset_accelerate, tiny_run, weights
from test_interruptions import signal_in_prior

import train_accelerate
from hf_vae.config import TrainConfig
from hf_vae.evaluation import evaluate as evaluation
from hf_vae.flags import training_command
from hf_vae.models.priors.code import CodeTraining
from hf_vae.objectives import VAEGANObjective
from hf_vae.objectives.batch import Batch
from hf_vae.training import length, loop
from hf_vae.training.interruptions import TrainingInterrupted
from hf_vae.training.length import Afterwards, Clock, Costs, Length, estimate, fit_into
from hf_vae.training.preflight import refuse_impossible


UPDATE, PRIOR_UPDATE, AFTER = 1.0, 0.5, 10.0  # seconds


@dataclasses.dataclass(frozen=True)
class FakeClock(Clock):
    """A clock that a test sets."""

    time: dict[str, float] = dataclasses.field(default_factory=dict)

    def skip(self, seconds: float) -> None:
        self.time["now"] += seconds


@pytest.fixture
def clock(monkeypatch) -> FakeClock:
    """A clock on which an update takes a second, one of the prior half a second, and all else no time."""
    return fake_clock(monkeypatch.setattr)


def fake_clock(setattr) -> FakeClock:
    time = {"now": 0.0}
    update, prior_update = loop.update, CodeTraining.update

    def timed_update(*arguments):
        time["now"] += UPDATE
        return update(*arguments)

    def timed_prior_update(training: CodeTraining) -> None:
        time["now"] += PRIOR_UPDATE
        prior_update(training)

    setattr(loop, "update", timed_update)
    setattr(CodeTraining, "update", timed_prior_update)
    return FakeClock(0.0, lambda: time["now"], time)


def by_the_clock(folder: Path, output_dir: Path, **settings):
    """A tiny run of one minute. Measuring takes 18 updates and 20 of the prior, 28 seconds."""
    settings = {"max_train_steps": None, "prior_steps": "auto", "max_train_minutes": 1.0, **settings}
    return tiny_run("vae", folder, output_dir, **settings)


def start(run, clock: Clock) -> loop.Training:
    return loop.Training.start(run, clock, lambda model, images: Afterwards(AFTER))


def recorded(folder: Path) -> dict:
    return json.loads((folder / "train_config.json").read_text())


@pytest.mark.parametrize(
    ("num_steps", "settings", "expected"),
    [
        (24, {}, 300),
        (1380, {}, 1380),
        (50_000, {}, 9000),
        (24, {"prior_steps": 7}, 7),
    ],
)
def test_the_prior_makes_a_share_of_the_updates(num_steps, settings, expected, picture_folder, tmp_path):
    settings = {"max_train_steps": num_steps, "prior_steps": "auto", **settings}
    training = loop.Training.start(tiny_run("vae", picture_folder, tmp_path, **settings))
    assert training.run.train.prior_steps == recorded(tmp_path)["train"]["prior_steps"] == expected


def test_the_share_is_the_default_and_follows_epochs_too(picture_folder, tmp_path):
    assert TrainConfig().prior_steps == "auto"
    settings = {"max_train_steps": None, "num_train_epochs": 100, "prior_steps": "auto"}
    training = loop.Training.start(tiny_run("vae", picture_folder, tmp_path, **settings))
    assert training.num_steps == training.run.train.prior_steps == 600


def test_a_resumed_run_keeps_the_recorded_share(picture_folder, tmp_path):
    loop.Training.start(tiny_run("vae", picture_folder, tmp_path, max_train_steps=400, prior_steps="auto")).advance(3)
    reset_accelerate()
    settings = {"max_train_steps": 800, "prior_steps": "auto", "resume_from_checkpoint": "latest"}
    training = loop.Training.start(tiny_run("vae", picture_folder, tmp_path, **settings))
    assert training.run.train.prior_steps == 400
    assert training.progress.launches[-1]["changed"] == ["train.max_train_steps: 400 -> 800"]


def test_a_command_has_no_updates_of_a_prior_that_learns_nothing(picture_folder, tmp_path):
    run = tiny_run("vae", picture_folder, tmp_path, prior_steps=77)
    assert "--prior_steps 77" in training_command(run)
    fitted = dataclasses.replace(run, model=run.model | {"prior": "mixture"})
    assert "--prior_steps" not in training_command(fitted)
    kept = {"prior_steps": 0, "pretrained_model_name_or_path": "runs/start"}
    assert "--prior_steps 0" in training_command(
        dataclasses.replace(fitted, train=dataclasses.replace(run.train, **kept))
    )


@pytest.mark.parametrize(
    ("costs", "prior_steps"),
    [
        (Costs(30, 1.0, 0.5, 60, 1.0), "auto"),
        (Costs(30, 1.0, 5.0, 60, 1.0), "auto"),  # a slow prior
        (Costs(30, 0.01, 0.02, 60, 0.1), "auto"),  # fast hardware
        (Costs(30, 1.0, 0.5, 60, 1.0), 500),
        (Costs(30, 1.0), "auto"),  # no prior to learn
    ],
)
def test_what_is_fixed_fits_into_the_minutes_and_uses_them(costs, prior_steps):
    config = TrainConfig(max_train_minutes=20, prior_steps=prior_steps)
    length = fit_into(config, costs)
    prior = length.prior_steps * costs.prior_update
    total = costs.before + length.steps * costs.update + prior + costs.evaluation
    assert 0.94 * 1200 < total <= 1200
    if prior_steps == "auto":
        assert prior <= length.steps * costs.update + max(costs.update, costs.prior_update)
    else:
        assert length.prior_steps == prior_steps
    longer = fit_into(dataclasses.replace(config, max_train_minutes=40), costs)
    assert longer.steps > length.steps


@pytest.mark.parametrize(("minutes", "expected"), [(20, 144), (4, 100), (60, 493), (600, 1200)])
def test_a_short_run_evaluates_a_part_of_the_heldout_images(minutes, expected):
    costs = Costs(30, 1.0, 0.5, 30, 1.0, heldout_image=1.0, num_heldout=1200)
    length = fit_into(TrainConfig(max_train_minutes=minutes), costs)
    assert length.num_heldout == expected
    assert fit_into(TrainConfig(max_train_minutes=20), Costs(30, 1.0, 0.5, 30, 1.0)).num_heldout is None, "all"


def test_too_few_minutes_are_refused_and_the_error_says_how_many_are_needed():
    config = TrainConfig(max_train_minutes=2)
    with pytest.raises(ValueError, match=r"max_train_minutes=2 is not enough .* about 3.2 minutes.* at least 7") as e:
        fit_into(config, Costs(60, 1.0, 0.5, 120))
    enough = int(str(e.value).split()[-1].rstrip("."))
    assert fit_into(dataclasses.replace(config, max_train_minutes=enough), Costs(60, 1.0, 0.5, 120)).steps > 0


def test_previews_come_early_and_then_thin_out():
    length = fit_into(TrainConfig(max_train_minutes=20), Costs(30, 1.0, 0.5, 60, 1.0))
    due = [step for step in range(1, length.steps + 1) if length.is_preview_due(step)]
    assert due[0] * 1.0 + 20 <= 60 and due[-1] == length.steps and 5 < len(due) < 15
    gaps = [after - before for before, after in zip(due, due[1:-1], strict=False)]
    assert gaps == sorted(gaps)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_train_steps": 5}, "--max_train_minutes 20 and --max_train_steps 5 both set the length"),
        ({"num_train_epochs": 7}, "--max_train_minutes 20 and --num_train_epochs 7 both set the length"),
    ],
)
def test_two_lengths_are_refused_by_name(settings, message, picture_folder, tmp_path):
    run = tiny_run("vae", picture_folder, tmp_path, **{"max_train_steps": None, "max_train_minutes": 20, **settings})
    with pytest.raises(ValueError, match=message):
        refuse_impossible(run)
    with pytest.raises(ValueError, match="max_train_minutes=0 is not possible; it must be above 0"):
        refuse_impossible(tiny_run("vae", picture_folder, tmp_path, max_train_steps=None, max_train_minutes=0))


def test_a_run_by_the_clock_ends_in_time(picture_folder, tmp_path, clock, capsys):
    training = start(by_the_clock(picture_folder, tmp_path), clock)
    assert clock.seconds == 18 * UPDATE + 20 * PRIOR_UPDATE
    folder = training.finish()
    assert 55 < clock.seconds + AFTER <= 60
    facts = json.loads((folder / "training.json").read_text())
    assert facts["clock"]["minutes"] == 1 and facts["steps"] == facts["clock"]["steps"]
    assert facts["prior"]["steps"] == facts["clock"]["prior_steps"] == recorded(folder)["train"]["prior_steps"]
    printed = capsys.readouterr().out
    assert "1 minute for the whole run, which first measures itself *****" in printed
    steps, prior_steps = facts["steps"], facts["prior"]["steps"]
    assert f"1 minute is enough for {steps} updates, then {prior_steps} of the prior and the evaluation." in printed
    assert "fixed for 1 minute" in printed


@pytest.mark.parametrize(
    ("sizes", "minutes", "is_advised"),
    [
        ({"width": 24}, 1.0, True),
        ({"width": 16}, 1.0, False),
        ({"width": 24}, 120.0, False),  # more than 1,000 updates
        ({"width": 24, "block": "plain"}, 1.0, False),
    ],
)
def test_few_updates_of_a_wide_network_get_advice(
    sizes, minutes, is_advised, picture_folder, tmp_path, clock, monkeypatch, capsys
):
    monkeypatch.setattr(loop, "MEASURED_SHARE", 0.0)
    run = by_the_clock(picture_folder, tmp_path, max_train_minutes=minutes)
    training = start(dataclasses.replace(run, model=run.model | {"max_width": 32, **sizes}), clock)
    assert (training.num_steps < 1000) == (minutes == 1)
    advice = "few updates for a network of width 24: with --width 16 --max_width 64, there is time for more"
    assert (advice in capsys.readouterr().out) == is_advised


@pytest.mark.parametrize("pace", [0.25, 0.6, 1.0, 1.3])
def test_the_prior_gets_the_time_that_the_networks_left(pace, picture_folder, tmp_path, clock, monkeypatch, capsys):
    """Also where the machine got faster or slower after the run had measured itself."""
    settings = {"max_train_minutes": 3.0, "preview_steps": 0, "checkpointing_steps": 0}
    planned = start(by_the_clock(picture_folder, tmp_path, **settings), clock)
    steps, prior_steps = planned.length.steps, planned.length.prior_steps
    monkeypatch.setattr(f"{__name__}.UPDATE", pace * UPDATE)
    monkeypatch.setattr(f"{__name__}.PRIOR_UPDATE", pace * PRIOR_UPDATE)
    folder = planned.finish()
    facts = json.loads((folder / "training.json").read_text())
    assert facts["steps"] == steps and facts["clock"]["is_prior_final"]
    assert facts["prior"]["steps"] == recorded(folder)["train"]["prior_steps"] == planned.length.prior_steps
    assert (
        abs(planned.length.prior_steps - prior_steps) <= 2
        if pace == 1
        else (planned.length.prior_steps > prior_steps) == (pace < 1)
    )
    assert abs(clock.seconds + pace * AFTER - 0.97 * 180) <= 1.5
    said = f"enough for {facts['prior']['steps']:,} updates of the prior ({prior_steps} were planned)"
    assert (said in capsys.readouterr().out) is (facts["prior"]["steps"] != prior_steps)
    assert json.loads((folder / "clock.json").read_text())["prior_steps"] == planned.length.prior_steps


@pytest.mark.parametrize("name", ["_save_checkpoint", "_preview", "_validate"])
def test_what_comes_between_updates_does_not_count_as_a_slower_machine(
    name, picture_folder, tmp_path, clock, monkeypatch
):
    """A checkpoint, a preview or a validation that takes long just before the prior is fixed."""
    work, fixed, seen = getattr(loop.Training, name), Length.with_rest_for_prior, []

    def slow(training: loop.Training) -> None:
        clock.skip(3.0)
        work(training)

    def noted(length: Length, seconds: float, update: float) -> Length:
        seen.append(update)
        return fixed(length, seconds, update)

    settings = {"checkpointing_steps": 5, "preview_steps": 5, "early_stopping_patience": 50}
    training = start(by_the_clock(picture_folder, tmp_path, **settings), clock)
    monkeypatch.setattr(loop.Training, name, slow)
    monkeypatch.setattr(Length, "with_rest_for_prior", noted)
    training.advance(training.num_steps)
    assert seen == [UPDATE]


def test_a_vae_gan_counts_that_its_later_updates_take_longer(picture_folder, tmp_path, clock, monkeypatch):
    ramp = VAEGANObjective._ramp

    def slow(objective: VAEGANObjective, batch: Batch) -> float:
        clock.skip(0.5 if ramp(objective, batch) else 0.0)
        return ramp(objective, batch)

    monkeypatch.setattr(VAEGANObjective, "_ramp", slow)
    settings = {"max_train_steps": None, "max_train_minutes": 4.0, "prior_steps": "auto"}
    run = tiny_run("vaegan", picture_folder, tmp_path, **settings)
    run = dataclasses.replace(run, objective=dataclasses.replace(run.objective, adversarial_start=20))
    training = start(run, clock)
    measured = training.length.measured
    assert measured["num_early"] == 21 and measured["update"] == measured["early_update"] + 0.5
    training.finish()
    assert training.length.steps > 21 and 0.95 * 240 < clock.seconds + AFTER <= 240


def test_a_command_evaluates_as_many_heldout_images_as_there_is_time_for(picture_folder, tmp_path, clock, monkeypatch):
    evaluate, evaluated = evaluation.evaluate_folder, []

    def noted(*arguments, **settings) -> dict:
        evaluated.append(evaluate(*arguments, **settings)["num_heldout"])

    monkeypatch.setattr(Clock, "of_process", lambda: clock)
    monkeypatch.setattr(length, "FEWEST_HELDOUT", 2)
    monkeypatch.setattr(evaluation, "estimate_seconds", lambda *_: (6.0, 1.0))
    monkeypatch.setattr(evaluation, "evaluate_folder", noted)
    train_accelerate.run_training(by_the_clock(picture_folder, tmp_path))
    assert evaluated == [2]
    assert "measured on 2 of the 4 held-out images" in (tmp_path / "README.md").read_text()


def test_a_prior_on_a_far_slower_machine_still_makes_a_quarter_of_its_updates(
    picture_folder, tmp_path, clock, monkeypatch
):
    planned = start(by_the_clock(picture_folder, tmp_path), clock)
    prior_steps = planned.length.prior_steps
    monkeypatch.setattr(f"{__name__}.UPDATE", 10 * UPDATE)
    planned.finish()
    assert planned.length.prior_steps == math.ceil(prior_steps / 4)


def test_the_recipe_of_a_run_by_the_clock_trains_the_same_model(picture_folder, tmp_path, clock):
    one, other = tmp_path / "one", tmp_path / "other"
    start(by_the_clock(picture_folder, one, preview_steps=4), clock).finish()
    reset_accelerate()
    recipe = recorded(one)
    assert recipe["train"]["max_train_minutes"] is None and recipe["train"]["max_train_steps"] > 0
    arguments = ["--recipe", str(one / "train_config.json"), "--output_dir", str(other)]
    loop.train(train_accelerate.parse_arguments(arguments))
    assert_equal_runs(one, other)
    with pytest.raises(ValueError, match="To train a recipe by the clock, pass --max_train_steps None too"):
        refuse_impossible(train_accelerate.parse_arguments([*arguments, "--max_train_minutes", "2"]))
    more = ["--max_train_minutes", "2", "--max_train_steps", "None", "--prior_steps", "auto"]
    refuse_impossible(train_accelerate.parse_arguments([*arguments, *more]))


@pytest.mark.parametrize("moment", ["before the first checkpoint", "after a checkpoint", "in the prior"])
def test_a_stopped_run_by_the_clock_ends_where_the_first_would_have(
    moment, picture_folder, tmp_path, clock, monkeypatch, capsys
):
    quiet, stopped = tmp_path / "quiet", tmp_path / "stopped"
    start(by_the_clock(picture_folder, quiet), clock).finish()
    reset_accelerate()
    clock = Clock(clock.now(), clock.now)
    training = start(by_the_clock(picture_folder, stopped), clock)
    if moment == "after a checkpoint":
        training.advance(4)
    elif moment == "in the prior":
        training.advance(training.num_steps)
        with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted, match="at update 5 of"):
            signal_in_prior(5, signal.SIGTERM, patch)
            training.publish()
    reset_accelerate()
    capsys.readouterr()
    clock = Clock(clock.now() - 1000, clock.now)  # a launch that is late: what was fixed stays
    resumed = by_the_clock(picture_folder, stopped, resume_from_checkpoint="latest")
    start(resumed, clock).finish()
    assert "measures itself" not in capsys.readouterr().out
    assert_equal_runs(quiet, stopped)


def test_a_run_that_was_killed_while_it_measured_itself_measures_again_and_says_so(
    picture_folder, tmp_path, clock, monkeypatch, capsys
):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    start(by_the_clock(picture_folder, quiet), clock).finish()
    reset_accelerate()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "fit_into", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        start(by_the_clock(picture_folder, killed), Clock(clock.now(), clock.now))
    reset_accelerate()
    run = by_the_clock(picture_folder, killed, resume_from_checkpoint="latest")
    start(run, Clock(clock.now(), clock.now)).finish()
    assert "measures itself again, as the stopped run had fixed no number of updates" in capsys.readouterr().out
    assert_equal_runs(quiet, killed)


def test_another_time_is_refused_when_a_run_is_resumed_and_a_number_is_not(picture_folder, tmp_path, clock):
    training = start(by_the_clock(picture_folder, tmp_path), clock)
    training.advance(3)
    reset_accelerate()
    resumed = {"resume_from_checkpoint": "latest"}
    with pytest.raises(
        ValueError, match=r"clock.json says that this run was given 1 minute. Pass --max_train_minutes 1"
    ):
        start(by_the_clock(picture_folder, tmp_path, max_train_minutes=3, **resumed), clock)
    longer = tiny_run("vae", picture_folder, tmp_path, max_train_steps=training.num_steps + 2, **resumed)
    start(longer, clock).advance(4)
    reset_accelerate()
    with pytest.raises(ValueError, match=r"has no clock.json: this run was started without --max_train_minutes"):
        start(by_the_clock(picture_folder, tmp_path, **resumed), clock)


def test_an_explicit_prior_is_kept_and_its_time_counted(picture_folder, tmp_path, clock):
    folder = start(by_the_clock(picture_folder, tmp_path, prior_steps=12), clock).finish()
    assert json.loads((folder / "training.json").read_text())["prior"]["steps"] == 12
    assert 55 < clock.seconds + AFTER <= 60


@pytest.mark.parametrize(
    "settings", [{"early_stopping_patience": 50}, {"preview_steps": 0}, {"data": {"streaming": True}}]
)
def test_other_settings_work_with_the_clock(settings, picture_folder, tmp_path, clock):
    folder = start(by_the_clock(picture_folder, tmp_path, checkpointing_steps=0, **settings), clock).finish()
    assert 55 < clock.seconds + AFTER <= 60 and weights(folder)


def test_every_family_can_be_trained_by_the_clock(family, picture_folder, tmp_path, clock):
    run = tiny_run(family, picture_folder, tmp_path, max_train_steps=None, prior_steps="auto", max_train_minutes=1.0)
    folder = start(run, clock).finish()
    assert 55 < clock.seconds + AFTER <= 60 and weights(folder)


def named_phases(printed: str) -> list[str]:
    """The phases in the estimate that a run printed."""
    (line,) = [line for line in printed.splitlines() if "in all: " in line]
    return re.findall(r"(start|training|details|prior|evaluation and card) (?:\d+|under 1)", line)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("vae", {"max_train_steps": 30}, ["start", "training", "prior", "evaluation and card"]),
        ("vae", {"max_train_steps": 3}, ["start", "training", "prior", "evaluation and card"]),
        ("dcgan", {"max_train_steps": 30}, ["start", "training", "evaluation and card"]),
    ],
)
def test_a_run_says_how_long_each_of_its_phases_takes(
    name, settings, expected, picture_folder, tmp_path, clock, capsys
):
    run = tiny_run(name, picture_folder, tmp_path, prior_steps=24, **settings)
    loop.Training.start(run, Clock(-5.0, clock.now), lambda model, images: Afterwards(AFTER)).finish()
    printed = capsys.readouterr().out
    assert named_phases(printed) == expected
    steps = settings["max_train_steps"] * UPDATE
    assert f"training {steps:.0f}, " in printed and f"evaluation and card {AFTER:.0f}" in printed
    total = clock.seconds + 5 + AFTER
    assert abs(int(re.search(r"about (\d+) seconds in all", printed)[1]) - total) <= 1


def test_an_estimate_counts_the_fit_of_residual_latents(picture_folder, tmp_path, capsys):
    run = tiny_run("vaegan", picture_folder, tmp_path, max_train_steps=2)
    run = dataclasses.replace(run, model=run.model | {"latent_size": 7, "latent_dim": 49, "detail_dim": 588})
    loop.Training.start(run, None, lambda model, images: Afterwards(AFTER)).advance(2)
    assert named_phases(capsys.readouterr().out) == ["start", "training", "details", "prior", "evaluation and card"]


def test_an_estimate_changes_nothing(family, picture_folder, tmp_path):
    silent, speaking = tmp_path / "silent", tmp_path / "speaking"
    loop.train(tiny_run(family, picture_folder, silent, max_train_steps=20))
    reset_accelerate()
    run = tiny_run(family, picture_folder, speaking, max_train_steps=20)
    loop.Training.start(run, None, lambda model, images: Afterwards(AFTER)).finish()
    assert_equal_runs(silent, speaking)


def test_a_run_by_the_clock_gives_no_second_estimate(picture_folder, tmp_path, clock, capsys):
    start(by_the_clock(picture_folder, tmp_path), clock).finish()
    assert "in all: " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (
            {"start": 20, "training": 1560, "prior": 540},
            "about 35 minutes in all: start under 1, training 26, prior 9",
        ),
        (
            {"training": 50.4, "evaluation and card": 0.3},
            "about 51 seconds in all: training 50, evaluation and card under 1",
        ),
    ],
)
def test_an_estimate_is_in_minutes_or_seconds(seconds, expected):
    assert estimate(seconds) == expected


def train_by_unequal_clocks(flags: list[str]) -> None:
    """Trains by the clock in one of several processes, whose clocks differ."""
    rank = int(os.environ["RANK"])
    clock = fake_clock(setattr)
    slow = Clock(0.0, lambda: clock.now() * (1 + 2 * rank))
    training = start(train_accelerate.parse_arguments(flags), slow)
    training.finish()
    made = training.num_steps, training.progress.step, training.run.train.prior_steps
    (Path(training.output_dir) / f"steps{rank}.txt").write_text(f"{made}")


def test_all_processes_agree_on_the_length(picture_folder, tmp_path):
    flags = flags_of("vae", picture_folder, tmp_path, 3)
    for name, value in (("--max_train_steps", "None"), ("--prior_steps", "auto")):
        flags[flags.index(name) + 1] = value
    done = launch_forks(train_by_unequal_clocks, [*flags, "--max_train_minutes", "1"])
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [(tmp_path / f"steps{rank}.txt").read_text() for rank in (0, 1)]
    fixed = json.loads((tmp_path / "clock.json").read_text())
    assert steps == [f"{(fixed['steps'], fixed['steps'], fixed['prior_steps'])}"] * 2
