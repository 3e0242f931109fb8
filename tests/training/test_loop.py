"""The loop: what a run leaves behind, and that an interrupted run ends where an uninterrupted one does."""

import copy
import dataclasses
import json
import re
import shutil

import pytest
import torch
from accelerate import Accelerator
from conftest import (
    REPOSITORY,
    assert_equal_runs,
    log_lines,
    reset_accelerate,
    tiny_config,
    tiny_model,
    tiny_run,
    weights,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from hf_vae import AutoGenerator
from hf_vae.families import FAMILIES, new_model
from hf_vae.hardware import computes_in_bfloat16
from hf_vae.objectives import losses
from hf_vae.objectives.batch import Batch
from hf_vae.pictures import to_float
from hf_vae.training import batch_size, fitting, loop
from hf_vae.training.checkpoints import UNFINISHED, list_checkpoints
from hf_vae.training.dry_run import describe
from hf_vae.training.length import Clock
from hf_vae.training.loop import Training, train
from hf_vae.training.state import follow, num_parameters


def test_a_run_leaves_a_model_a_log_previews_and_checkpoints(family, finished_run):
    run = finished_run(family)
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "diffusion_pytorch_model.safetensors", "train_config.json", "training.json"} <= names
    assert {"log.jsonl", "timelapse.webp", "checkpoint-3", "checkpoint-6"} <= names
    assert [line["step"] for line in log_lines(run)] == [2, 4, 6]
    has_encoder = AutoGenerator.from_pretrained(run).has_encoder
    last = ["step_0000006_prior.png"] if has_encoder else []
    assert sorted(path.name for path in (run / "previews").iterdir()) == [
        *("step_0000003.png", "step_0000006.png"),
        *last,
    ]
    facts = json.loads((run / "training.json").read_text())
    assert facts["images_seen"] == 36 and facts["pictures"]["train"] == 36 and facts["pictures"]["heldout"] == 4
    model = AutoGenerator.from_pretrained(run)
    untrained = tiny_model(family)
    assert not torch.equal(model.sample(1, temperature=0.0), untrained.sample(1, temperature=0.0))


RESUMED = {
    "plain": {},
    # a run without a setting takes bf16 where the CPU has instructions for it
    "other_precision": {"mixed_precision": "no" if computes_in_bfloat16(torch.device("cpu")) else "bf16"},
    "accumulation": {"gradient_accumulation_steps": 2},
    "no_ema": {"use_ema": False},
    "moved": {"data": {"random_shift": 0.1, "random_zoom": 0.1}},
}


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        pytest.param(family, name, marks=pytest.mark.slow if family != "vae" and name != "plain" else [])
        for family in FAMILIES
        for name in RESUMED
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    family, setting, finished_run, picture_folder, tmp_path
):
    resumed, settings = tmp_path / "resumed", RESUMED[setting]
    whole = finished_run(family)
    if settings:
        plain, whole = whole, train(tiny_run(family, picture_folder, tmp_path / "whole", **settings))
        assert (log_lines(whole) == log_lines(plain)) == (setting == "no_ema")
    # what a kill after the checkpoint at step 3, while the next one was being written, leaves behind
    shutil.copytree(whole, resumed, ignore=shutil.ignore_patterns("checkpoint-6", "*.safetensors", "*06.png"))
    shutil.copytree(whole / "checkpoint-3", resumed / "checkpoint-3", dirs_exist_ok=True)
    (resumed / f"{UNFINISHED}checkpoint-6").mkdir()
    reset_accelerate()
    train(tiny_run(family, picture_folder, resumed, resume_from_checkpoint="latest", **settings))
    assert_equal_runs(whole, resumed)
    assert not list(resumed.glob(f"{UNFINISHED}*"))


def test_all_of_a_step_is_computed_in_the_precision_that_was_asked_for(picture_folder, tmp_path, monkeypatch):
    """Of a VAE-GAN also what the discriminator's layers see, which is no `forward`."""
    seen, distance = set(), losses.feature_distance

    def record(features, references):
        seen.update(feature.dtype for feature in [*features, *references])
        return distance(features, references)

    monkeypatch.setattr(losses, "feature_distance", record)
    for precision, dtype in (("no", torch.float32), ("bf16", torch.bfloat16)):
        run = tiny_run("vaegan", picture_folder, tmp_path / precision, mixed_precision=precision, max_train_steps=2)
        objective = dataclasses.replace(run.objective, adversarial_start=0, adversarial_ramp=1)
        train(dataclasses.replace(run, objective=objective))
        reset_accelerate()
        assert seen == {dtype}
        seen.clear()
    ours, theirs = (log_lines(tmp_path / precision)[-1] for precision in ("no", "bf16"))
    assert ours["feature_distance"] == pytest.approx(theirs["feature_distance"], rel=0.05)
    assert {weight.dtype for weight in weights(tmp_path / "bf16").values()} == {torch.float32}


def test_resuming_what_was_killed_before_its_first_checkpoint_starts_over(finished_run, picture_folder, tmp_path):
    whole, killed = finished_run("vae"), tmp_path / "killed"
    shutil.copytree(whole, killed, ignore=shutil.ignore_patterns("checkpoint-*", "*.safetensors"))
    (killed / "previews" / "step_0000099.png").write_bytes(b"of a longer run")
    train(tiny_run("vae", picture_folder, killed, resume_from_checkpoint="latest"))
    assert_equal_runs(whole, killed)


def test_what_is_left_out_is_said_at_the_start_and_recorded(picture_folder, tmp_path, capsys):
    shutil.copytree(picture_folder, tmp_path / "in" / "train")
    shutil.copytree(picture_folder, tmp_path / "in" / "test")
    (tmp_path / "in" / "train" / "photo.heic").write_bytes(b"not read")
    train(tiny_run("vae", tmp_path / "in", tmp_path / "run", max_train_steps=1))
    assert "  left out: files with the ending .heic: 1, images of the split test: 40\n" in capsys.readouterr().out
    pictures = json.loads((tmp_path / "run" / "training.json").read_text())["pictures"]
    assert pictures["left_out"] == {"files with the ending .heic": 1, "images of the split test": 40}
    assert (pictures["pictures_found"], pictures["train"]) == (40, 36)


def test_a_recipe_keeps_nothing_of_the_launch(picture_folder, tmp_path):
    run = tiny_run("vae", picture_folder, tmp_path, resume_from_checkpoint="latest", hub_model_id="me/mine")
    train(run)
    recipe = json.loads((tmp_path / "train_config.json").read_text())
    assert not {"resume_from_checkpoint", "hub_model_id", "push_to_hub", "dry_run"} & recipe["train"].keys()
    assert recipe["train"]["max_train_steps"] == 6


def test_previews_and_checkpoints_do_not_change_the_weights(family, finished_run, picture_folder, tmp_path):
    train(tiny_run(family, picture_folder, tmp_path, preview_steps=0, checkpointing_steps=0))
    for name, value in weights(finished_run(family)).items():
        assert torch.equal(value, weights(tmp_path)[name]), name


@pytest.mark.parametrize("native", [True, False])
def test_a_cpu_without_bf16_instructions_is_named_if_the_run_asks_for_bf16(
    native, picture_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(loop, "computes_in_bfloat16", lambda device: native)
    Training.start(tiny_run("vae", picture_folder, tmp_path, mixed_precision="bf16"))
    assert ("several times faster with --mixed_precision no" in capsys.readouterr().out) is not native


def test_weights_published_in_half_precision_are_half_as_large_and_load_as_they_were(
    family, finished_run, picture_folder, tmp_path
):
    whole = finished_run(family)
    half = train(tiny_run(family, picture_folder, tmp_path, save_precision="fp16"))
    sizes = [(folder / "diffusion_pytorch_model.safetensors").stat().st_size for folder in (whole, half)]
    assert 0.4 < sizes[1] / sizes[0] < 0.6
    whole, half = (AutoGenerator.from_pretrained(folder) for folder in (whole, half))
    assert whole.dtype == half.dtype == torch.float32
    ours, others = (model.sample(4, torch.Generator().manual_seed(0)) for model in (whole, half))
    torch.testing.assert_close(ours, others, atol=0.02, rtol=0)


def test_old_checkpoints_are_deleted(picture_folder, tmp_path):
    train(tiny_run("vae", picture_folder, tmp_path, checkpointing_steps=1, checkpoints_total_limit=2))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-6"]


def test_another_run_is_neither_overwritten_nor_resumed(finished_run, picture_folder, tmp_path):
    shutil.copytree(finished_run("vae"), tmp_path, dirs_exist_ok=True)
    run = tiny_run("vae", picture_folder, tmp_path)
    with pytest.raises(ValueError, match="holds another run"):
        train(run)
    reset_accelerate()
    changed = dataclasses.replace(
        tiny_run("vae", picture_folder, tmp_path, resume_from_checkpoint="latest"),
        model=tiny_config("vae", latent_dim=9),
    )
    with pytest.raises(ValueError, match="model.latent_dim: 8 -> 9"):
        train(changed)
    reset_accelerate()
    with pytest.raises(ValueError, match="checkpoint-7.*checkpoint-3, checkpoint-6"):
        train(tiny_run("vae", picture_folder, tmp_path, resume_from_checkpoint="checkpoint-7"))


def test_a_loss_that_is_not_finite_stops_the_run_before_a_checkpoint(picture_folder, tmp_path):
    with pytest.raises(ValueError, match=r"At step \d+, .*loss is (nan|inf)"):
        train(tiny_run("vae", picture_folder, tmp_path, learning_rate=1e30, max_grad_norm=0.0, logging_steps=50))
    assert not list_checkpoints(tmp_path)


def test_the_running_average_includes_batch_norm_buffers():
    network = nn.Sequential(nn.Identity(), nn.BatchNorm1d(2))
    averaged = copy.deepcopy(network)
    for num_updates in range(200):
        network(torch.randn(16, 2) * 3 + 5)
        follow(averaged, network, num_updates, decay=0.5)
    assert torch.allclose(averaged[1].running_var, network[1].running_var, rtol=0.5)
    assert averaged[1].running_var.min() > 1.5  # where the buffer started
    assert averaged[1].num_batches_tracked == network[1].num_batches_tracked == 200


def test_accumulation_updates_every_network_once(picture_folder, tmp_path):
    """One `accumulate` around all networks; one around each made the first take one step of sixteen."""
    train(tiny_run("dcgan", picture_folder, tmp_path, gradient_accumulation_steps=2, checkpointing_steps=6))
    state = torch.load(tmp_path / "checkpoint-6" / "optimizer.bin", weights_only=True)["state"]
    other = torch.load(tmp_path / "checkpoint-6" / "optimizer_1.bin", weights_only=True)["state"]
    assert {entry["step"].item() for entry in [*state.values(), *other.values()]} == {6.0}


@pytest.mark.parametrize("image_channels", [1, 3])
def test_tensorboard_gets_losses_and_previews(image_channels, picture_folder, tmp_path):
    run = tiny_run("vae", picture_folder, tmp_path, report_to="tensorboard")
    train(dataclasses.replace(run, model=tiny_config("vae", image_channels=image_channels)))
    events = EventAccumulator(str(next((tmp_path / "logs").rglob("events.*")).parent)).Reload()
    assert {"loss", "mse", "kl", "learning_rate", "images_per_second"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [line["step"] for line in log_lines(tmp_path)]
    assert [event.step for event in events.Images("previews")] == [3, 6]


def test_dry_run_shows_the_configuration_and_every_layer(family, picture_folder, tmp_path):
    run = tiny_run(family, picture_folder, tmp_path / "never")
    text = describe(run)
    assert json.loads(text[: text.index("\nlayer")]) == json.loads(json.dumps(run.to_dict()))
    for name, network in run.objective.networks(new_model(run)).items():
        assert f"{num_parameters(network):,}" in text
        assert f"{name}." in text
    assert not (tmp_path / "never").exists()


def test_dry_run_shows_the_layers_that_training_does_not_use(finished_run, picture_folder, tmp_path):
    start = {"pretrained_model_name_or_path": str(finished_run("vae")), "prior_steps": 0}
    text = describe(tiny_run("vae", picture_folder, tmp_path / "never", **start))
    assert re.search(r"^model\.latent_prior\.code\.\S+ +- ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_train_steps", 0, "must be at least 1"),
        ("max_train_steps", -5, "must be at least 1"),
        ("early_stopping_patience", 0, "must be at least 1"),
        ("checkpoints_total_limit", 0, "must be at least 1"),
        ("preview_columns", 0, "must be at least 1"),
        ("preview_file", "{step}.png", "needs leading zeros"),
        ("preview_file", "{step:07d}.webp", "must end with .png or .jpg"),
        ("timelapse_file", "movie.mp4", "must be timelapse.webp or timelapse.gif"),
    ],
)
def test_what_would_fail_at_the_end_of_a_run_is_refused_before_it(name, value, message, picture_folder, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(tiny_run("vae", picture_folder, tmp_path / "never", **{name: value}))
    assert not (tmp_path / "never").exists()


def test_a_resumed_run_takes_its_learning_rate_from_the_flags(picture_folder, tmp_path):
    """The optimizer's state brings the old one along."""
    constant = {"lr_scheduler": "constant", "lr_warmup_steps": 0}
    train(tiny_run("vae", picture_folder, tmp_path, max_train_steps=3, learning_rate=1e-3, **constant))
    before = weights(tmp_path)
    reset_accelerate()
    resumed = {"resume_from_checkpoint": "latest", "use_ema": True, "ema_decay": 0.0}
    train(tiny_run("vae", picture_folder, tmp_path, learning_rate=1e-9, **constant, **resumed))
    assert [line["learning_rate"] for line in log_lines(tmp_path)] == [1e-3, 1e-3, 1e-9, 1e-9]
    reset_accelerate()
    state = torch.load(tmp_path / "checkpoint-6" / "optimizer.bin", weights_only=True)
    assert [group["lr"] for group in state["param_groups"]] == [1e-9]
    assert not torch.equal(weights(tmp_path)["decoder.head.weight"], before["decoder.head.weight"])


def test_the_step_and_the_term_that_is_not_finite_are_named(picture_folder, tmp_path, monkeypatch):
    update, calls = loop.update, []

    def spoil(*arguments):
        calls.append(1)
        logs = update(*arguments)
        return logs | {"kl": logs["kl"] * float("inf")} if len(calls) == 4 else logs

    monkeypatch.setattr(loop, "update", spoil)
    with pytest.raises(ValueError, match="At step 4, kl is inf. Nothing was saved since"):
        train(tiny_run("vae", picture_folder, tmp_path, logging_steps=50))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]


def test_fewer_images_than_a_batch_are_seen_several_times_in_it(family, picture_folder, tmp_path):
    train(tiny_run(family, picture_folder, tmp_path, train_batch_size=50, max_train_steps=2))
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["pictures"]["train"] == 36 and facts["images_seen"] == 100


def test_the_largest_batch_that_fits_is_found(family, monkeypatch):
    tried, two_updates = [], batch_size._two_updates

    def with_room_for_twenty(accelerator, model, objective, size):
        tried.append(size)
        if size > 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")
        two_updates(accelerator, model, objective, size)

    monkeypatch.setattr(batch_size, "_two_updates", with_room_for_twenty)
    objective = FAMILIES[family].objective()
    assert batch_size._largest_that_fits(Accelerator(cpu=True), tiny_model(family), objective, 36) == 16
    assert tried == [36, 32, 16]  # from all there are, down the powers of two


def test_a_batch_size_that_was_chosen_is_recorded_and_kept(picture_folder, tmp_path, monkeypatch, capsys):
    assert batch_size.CPU_BATCH == 64
    monkeypatch.setattr(batch_size, "CPU_BATCH", 16)
    auto = {"train_batch_size": "auto"}
    train(tiny_run("vae", picture_folder, tmp_path, **auto, max_train_steps=3))
    assert "16 a process" in capsys.readouterr().out
    assert json.loads((tmp_path / "train_config.json").read_text())["train"]["train_batch_size"] == 16
    reset_accelerate()
    monkeypatch.setattr(batch_size, "CPU_BATCH", 64)
    train(tiny_run("vae", picture_folder, tmp_path, **auto, resume_from_checkpoint="latest"))
    assert json.loads((tmp_path / "training.json").read_text())["images_seen"] == 96


@pytest.mark.parametrize(
    "name", ["train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "logging_steps"]
)
def test_a_count_below_one_is_refused_by_name(name, picture_folder, tmp_path):
    with pytest.raises(ValueError, match=f"{name}=0 is not possible"):
        train(tiny_run("vae", picture_folder, tmp_path, **{name: 0}))


@pytest.mark.slow  # measures memory
def test_memory_after_fifty_epochs_is_that_after_two(family, picture_folder, tmp_path):
    epochs = {"train_batch_size": 36, "max_train_steps": None, "num_train_epochs": 50, "logging_steps": 1}
    train(tiny_run(family, picture_folder, tmp_path, **epochs, preview_steps=10, checkpointing_steps=10))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 50
    assert lines[49]["memory_mib"] <= 1.02 * lines[1]["memory_mib"]


@pytest.mark.slow
def test_a_compiled_run_resumes_bit_for_bit(family, picture_folder, tmp_path):
    torch.compiler.reset()  # of what other tests compiled in this process, which counts towards a limit
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(tiny_run(family, picture_folder, whole, compile="default"))
    shutil.copytree(whole, resumed, ignore=shutil.ignore_patterns("checkpoint-6", "*.safetensors", "*06.png"))
    shutil.copytree(whole / "checkpoint-3", resumed / "checkpoint-3", dirs_exist_ok=True)
    reset_accelerate()
    train(tiny_run(family, picture_folder, resumed, compile="default", resume_from_checkpoint="latest"))
    assert_equal_runs(whole, resumed)


@pytest.mark.parametrize(
    ("family", "settings"), [("vaegan", {"adversarial_start": 1, "adversarial_ramp": 2}), ("vae", {})]
)
def test_a_run_starts_from_another_model_and_keeps_what_it_does_not_train(
    finished_run, picture_folder, tmp_path, family, settings
):
    first = finished_run({"vaegan": "vae", "vae": "vaegan"}[family])
    run = tiny_run(family, picture_folder, tmp_path / family, pretrained_model_name_or_path=str(first))
    frozen = dataclasses.replace(run.objective, train_encoder=False, **settings)
    second = train(dataclasses.replace(run, objective=frozen, train=dataclasses.replace(run.train, prior_steps=0)))
    before, after = (AutoGenerator.from_pretrained(folder).state_dict() for folder in (first, second))
    kept = [name for name in before if name.startswith(("encoder.", "latent_prior."))]
    assert kept and not [name for name in kept if not torch.equal(before[name], after[name])]
    assert not torch.equal(before["decoder.head.weight"], after["decoder.head.weight"])


def test_a_start_from_other_networks_is_refused_and_so_is_a_prior_that_nobody_learns(picture_folder, tmp_path):
    tiny_model("vae", width=16).save_pretrained(tmp_path / "wider")
    start = str(tmp_path / "wider")
    with pytest.raises(
        ValueError, match="wider has other networks .*; these settings differ: width is 16 there and 8 here"
    ):
        train(tiny_run("vaegan", picture_folder, tmp_path / "run", pretrained_model_name_or_path=start))
    tiny_model("autoencoder").save_pretrained(tmp_path / "other")
    start = str(tmp_path / "other")
    with pytest.raises(
        ValueError, match="other has other networks .*; these .* class is Autoencoder there and VAE here"
    ):
        train(tiny_run("vae", picture_folder, tmp_path / "run", pretrained_model_name_or_path=start))
    with pytest.raises(ValueError, match="prior_steps=0 keeps the prior of"):
        train(tiny_run("vae", picture_folder, tmp_path / "run", prior_steps=0))


def test_training_stops_when_the_validation_loss_no_longer_falls_and_resumes_to_the_same_end(
    picture_folder, tmp_path, monkeypatch
):
    falling = iter([3.0, 2.0, 2.5, 2.1, 9.0])
    monkeypatch.setattr(loop, "validation_loss", lambda *_: torch.tensor(next(falling)))
    run = tiny_run(
        "vae", picture_folder, tmp_path, max_train_steps=100, early_stopping_patience=2, train_batch_size=36
    )
    train(run)
    lines = log_lines(tmp_path)
    assert lines[-1]["step"] == 4 and list_checkpoints(tmp_path)[-1].name == "checkpoint-4"
    assert [line["validation_loss"] for line in lines] == [2.5, pytest.approx(2.3)]
    reset_accelerate()
    train(dataclasses.replace(run, train=dataclasses.replace(run.train, resume_from_checkpoint="latest")))
    assert json.loads((tmp_path / "training.json").read_text())["steps"] == 4


def test_the_validation_loss_is_the_objective_s_and_measuring_it_changes_no_weight(family, picture_folder, tmp_path):
    run = tiny_run(family, picture_folder, tmp_path / "a", early_stopping_patience=9, train_batch_size=36)
    watched = Training.start(run)
    networks = {**watched.trainees.bare, "model": watched.trainees.published}
    found = loop.validation_loss(watched.accelerator, run.objective, networks, watched.data.heldout[:], seed=0)
    expected, _ = run.objective.model_step(networks, Batch(to_float(watched.data.heldout[:]), seed=0))
    torch.testing.assert_close(found, expected.detach(), rtol=2e-2, atol=1e-4)  # one may be in bf16
    reset_accelerate()
    train(run)
    reset_accelerate()
    train(tiny_run(family, picture_folder, tmp_path / "b", train_batch_size=36))
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_first_weights_are_drawn_as_configured(picture_folder, tmp_path):
    run = tiny_run("dcgan", picture_folder, tmp_path, init_std=0.5, init_mean=2.0, max_train_steps=1)
    drawn = Training.start(run).trainees.bare
    for network in drawn.values():
        values = torch.cat(
            [layer.weight.flatten() for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
        )
        assert values.mean().item() == pytest.approx(2, abs=0.05) and values.std().item() == pytest.approx(
            0.5, rel=0.1
        )


def test_the_facts_tell_the_prior_s_time_and_machine_from_those_of_the_networks(picture_folder, tmp_path, monkeypatch):
    clock = {"now": 1000.0}
    monkeypatch.setattr("hf_vae.training.checkpoints.time.perf_counter", lambda: clock["now"])
    update, fit_prior = loop.update, fitting.fit_prior

    def slow_update(*arguments):
        clock["now"] += 10
        return update(*arguments)

    def slow_fit(*arguments, **settings):
        clock["now"] += 500
        fit_prior(*arguments, **settings)

    monkeypatch.setattr(loop, "update", slow_update)
    monkeypatch.setattr(fitting, "fit_prior", slow_fit)
    run = tiny_run("vae", picture_folder, tmp_path)
    loop.Training.start(run, Clock(clock["now"], lambda: clock["now"])).finish()
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["seconds"] == 60
    machine = {name: facts[name] for name in ("device", "num_processes", "precision")}
    assert facts["prior"] == {"steps": 2, "kept": 2, "seconds": 500, **machine}


@pytest.mark.parametrize("stops_early", [True, False])
def test_a_prior_knows_held_out_images_only_if_it_may_stop_early(stops_early, picture_folder, tmp_path, monkeypatch):
    seen, fit_prior = [], fitting.fit_prior

    def fit(*arguments, **settings):
        seen.append(settings["heldout"] is not None)
        fit_prior(*arguments, **settings)

    monkeypatch.setattr(fitting, "fit_prior", fit)
    train(tiny_run("vae", picture_folder, tmp_path, max_train_steps=1, prior_early_stopping=stops_early))
    assert seen == [stops_early]
    assert json.loads((tmp_path / "training.json").read_text())["prior"]["kept"] == 2


def test_the_facts_know_no_prior_where_none_was_learned(finished_run, picture_folder, tmp_path):
    runs = [tiny_run("dcgan", picture_folder, tmp_path / "dcgan", max_train_steps=1)]
    gaussian = tiny_run("vae", picture_folder, tmp_path / "gaussian", max_train_steps=1)
    runs.append(dataclasses.replace(gaussian, model=gaussian.model | {"prior": "gaussian"}))
    start = {"pretrained_model_name_or_path": str(finished_run("vae")), "prior_steps": 0}
    runs.append(tiny_run("vae", picture_folder, tmp_path / "kept", max_train_steps=1, **start))
    for run in runs:
        reset_accelerate()
        facts = json.loads((train(run) / "training.json").read_text())
        assert facts["prior"] is None


def test_the_facts_tell_each_launch_of_a_run_and_what_it_changed(picture_folder, tmp_path):
    train(tiny_run("vae", picture_folder, tmp_path, max_train_steps=3))
    (first,) = json.loads((tmp_path / "training.json").read_text())["launches"]
    assert first["from_step"] == 0 and first["changed"] == [] and first["num_processes"] == 1
    assert first["device"].startswith(("CPU, ", "NVIDIA"))
    for length, rate in ((6, 1e-4), (9, 1e-4)):
        reset_accelerate()
        changes = {"max_train_steps": length, "learning_rate": rate, "resume_from_checkpoint": "latest"}
        train(tiny_run("vae", picture_folder, tmp_path, **changes))
    launches = json.loads((tmp_path / "training.json").read_text())["launches"]
    assert [(launch["from_step"], launch["changed"]) for launch in launches] == [
        (0, []),
        (3, ["train.learning_rate: 0.001 -> 0.0001", "train.max_train_steps: 3 -> 6"]),
        (6, ["train.max_train_steps: 6 -> 9"]),
    ]
    reset_accelerate()  # what came after the checkpoint is no part of the run
    train(tiny_run("vae", picture_folder, tmp_path, max_train_steps=9, resume_from_checkpoint="checkpoint-6"))
    launches = json.loads((tmp_path / "training.json").read_text())["launches"]
    assert [launch["from_step"] for launch in launches] == [0, 3, 6]


def test_a_run_says_what_its_loss_is_and_shows_few_numbers(family, picture_folder, tmp_path, capsys):
    run = tiny_run(family, picture_folder, tmp_path, max_train_steps=2, checkpointing_steps=0, preview_steps=0)
    watched = Training.start(run)
    watched.advance(2)
    printed = capsys.readouterr()
    assert f"  {run.objective.legend}" in printed.out.splitlines()
    after = (
        "2 updates of the prior, then the evaluation" if watched.trainees.published.has_encoder else "the evaluation"
    )
    assert f"  after these steps: {after}; progress bars show the remaining time" in printed.out.splitlines()
    assert {"loss" if family != "dcgan" else "g_loss"} <= set(re.findall(r"\w*loss", run.objective.legend))
    postfix = re.findall(r"(?:step/s|s/step), ([^]]*)\]", printed.err)[-1]
    shown = [part.split("=")[0] for part in postfix.split(", ")]
    assert shown[-1] == "images/s" and len(shown) <= 5 and set(shown[:-1]) <= set(loop.SHOWN)
    names = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1]).keys() - {"step"}
    assert len(names) > len(shown)
    undocumented = [name for name in names if f"`{name}`" not in (REPOSITORY / "docs" / "training.md").read_text()]
    assert not undocumented
