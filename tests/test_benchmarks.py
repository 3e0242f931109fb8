"""The benchmarks assert nothing, so it is here that their contestants must run."""

import math
import re
from pathlib import Path

import datasets
import pytest

from benchmarks import feature_study, gpu
from benchmarks.contestants import Ceiling, ShippedModel, covered
from benchmarks.pictures import load_pictures
from benchmarks.plain_loop import PlainLoop
from benchmarks.throughput import _our_run
from benchmarks.time_to_quality import OurContestant, PlainContestant
from benchmarks.update import Update
from benchmarks.workers import Turn, Worker, take_turns
from hf_vae.pictures import to_float


@pytest.fixture
def pictures(picture_folder: Path):
    return load_pictures(picture_folder)


def test_images_come_from_a_folder_of_parquet_files_or_from_one_of_them(picture_folder: Path, tmp_path):
    rows = [{"image": {"bytes": file.read_bytes(), "path": None}} for file in sorted(picture_folder.glob("*.jpg"))]
    file = tmp_path / "train.parquet"
    datasets.Dataset.from_list(rows, datasets.Features({"image": datasets.Image()})).to_parquet(file)
    alone, together = load_pictures(file), load_pictures(tmp_path)
    assert len(alone.train_files) == len(alone.splits.train) > 0
    assert sorted(alone.train_files) == sorted(together.train_files)


def test_both_loops_train_on_the_same_pictures_and_are_measured_alike(pictures, tmp_path):
    heldout = pictures.splits.heldout[:]
    plain = PlainContestant(heldout, files=pictures.train_files * 2)
    ours = OurContestant(_our_run(pictures.folder, tmp_path / "run", "no"))
    before = [contestant.measure() for contestant in (plain, ours)]
    for contestant in (plain, ours):
        contestant.run(2)
    assert len(plain.losses) == 2 and all(map(math.isfinite, plain.losses))
    assert ours.training.progress.step == 2
    after = [contestant.measure() for contestant in (plain, ours)]
    assert all(math.isfinite(error) for error in before + after)
    assert all(error != earlier for error, earlier in zip(after, before, strict=True))


def test_contestants_in_processes_of_their_own_take_turns_and_one_that_fails_is_shown(pictures, tmp_path):
    images = to_float(pictures.splits.train[:8])
    with (
        Worker(Ceiling, tmp_path / "ceiling.log", images=images) as ceiling,
        Worker(PlainLoop, tmp_path / "plain.log", files=pictures.train_files * 2) as plain,
    ):
        found = take_turns({"ceiling": Turn(ceiling, seconds=0.01), "plain": Turn(plain, seconds=0.01)}, rounds=1)
        assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in found.values())
        assert ceiling.memory()["memory"] > 0
        with pytest.raises(SystemExit, match="(?s)A contestant failed.*TypeError"):
            plain.call("run", "twice")


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_anywhere(picture_folder, capsys):
    gpu.main(picture_folder, smoke=True)
    printed = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    measured = {row[0]: float(row[1].split()[0]) for row in rows if row[1][0].isdigit()}
    assert set(measured) == {
        *(gpu.PLAIN, gpu.OURS, gpu.CEILING),
        *("vae, default recipe, ours", "vaegan, default recipe, ours", "code", "flow"),
    }
    assert all(speed > 0 for speed in measured.values())
    assert "- machine: " in printed and re.search(r"Ours is [\d.]+ .* times as fast as the plain loop", printed)


def test_the_time_of_kernels_that_overlap_counts_once():
    assert covered([(0, 2), (1, 3), (5, 6), (1, 2)]) == 4 and covered([]) == 0


def test_a_published_model_is_timed(published_models):
    model = ShippedModel(published_models / "faces-vae")
    assert model.can_reconstruct()
    model.sample(1)
    model.reconstruct(2)


def test_real_images_are_damaged_and_measured_in_each_network(picture_folder, tmp_path, capsys):
    feature_study.main(picture_folder, probes=True, grey=True, sheet=tmp_path / "sheet.png")
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in table[2:]] == list(feature_study.DAMAGES)
    assert {len(row) for row in table} == {2 + 4 * 3}
    assert all(math.isfinite(float(row[2])) for row in table[2:])
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize("name", [name for name in feature_study.DAMAGES if name != "real"])
def test_a_damage_is_one_and_the_same_each_time(name, images):
    images = images.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :, :64, :64]
    damage = feature_study.DAMAGES[name]
    damaged = damage(images)
    assert damaged.shape == images.shape and (damaged - images).abs().mean() > 0.01
    assert (damaged == damage(images)).all()


def test_an_update_is_told_apart_into_kinds_of_work():
    shares = Update("no", channels_last=True).shares()
    assert abs(sum(shares.values()) - 1) < 1e-6 and shares["convolution"] > 0.3 and "GroupNorm" in shares
