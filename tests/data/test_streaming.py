"""Pictures that are read while training: what comes, in which order, from where, and with how much memory."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import REPOSITORY, draw_picture, reset_accelerate, tiny_config
from drawings import drawn, png
from PIL import Image
from safetensors.torch import load_file
from upload_corpus import encoded

import hf_vae.data.streaming
from hf_vae.config import DataConfig, RunConfig, TrainConfig
from hf_vae.data.cached import DataSplits, load_images
from hf_vae.data.streaming import open_stream
from hf_vae.evaluation.evaluate import evaluate_folder
from hf_vae.families import FAMILIES
from hf_vae.pictures import to_float
from hf_vae.publishing.cards import write_card
from hf_vae.training.loop import train


NUM_PICTURES = 50
HELDOUT = list(range(0, NUM_PICTURES, 10))
TRAINED_ON = [number for number in range(NUM_PICTURES) if number not in HELDOUT]


def flat(number: int) -> bytes:
    """A tiny picture whose pixels all say its number."""
    return encoded(Image.new("L", (4, 4), number), "png")


def write_parquet(file: Path, contents: list[bytes | None], rows_in_group: int = 4) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    columns = {
        "img": [content and {"path": None, "bytes": content} for content in contents],
        "label": list(range(len(contents))),
    }
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(file), batch_size=rows_in_group)


def write_folder(folder: Path, contents: list[bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number:04d}.png").write_bytes(content)
    return folder


@pytest.fixture(scope="module", params=["folder", "parquet"])
def numbered(request, tmp_path_factory) -> Path:
    """50 pictures that say their number, as files or in three parquet files of different lengths."""
    folder = tmp_path_factory.mktemp(request.param)
    contents = [flat(number) for number in range(NUM_PICTURES)]
    if request.param == "folder":
        return write_folder(folder, contents)
    for shard, (first, last) in enumerate([(0, 25), (25, 45), (45, 50)]):
        write_parquet(folder / f"{shard}.parquet", contents[first:last])
    return folder


def stream(path: Path, image_size: int = 28, image_channels: int = 1, **options) -> DataSplits:
    options = {"shuffle_buffer": 8, "streaming": True} | options
    return open_stream(DataConfig(train_data_dir=str(path), **options), image_size, image_channels)


def numbers(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def seen(batches: Iterator[torch.Tensor], count: int) -> list[int]:
    """The numbers of the next `count` batches."""
    return [number for batch in islice(batches, count) for number in numbers(batch)]


@pytest.mark.parametrize("batch_size", [1, 6, 64])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_every_picture_is_seen_once_an_epoch_by_all_ranks_together(batch_size, num_ranks, numbered):
    train = stream(numbered).train
    ranks = [train.training_batches(batch_size, 0, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    rounds = 1 + 3 * len(TRAINED_ON) // (batch_size * num_ranks)
    row = [number for _ in range(rounds) for batches in ranks for number in numbers(next(batches))]
    epochs = [row[start : start + len(TRAINED_ON)] for start in (0, 45, 90)]
    assert all(sorted(epoch) == TRAINED_ON for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("shuffle_buffer", [1, 8, 1000])
def test_the_order_is_shuffled_and_depends_on_the_seed_alone(shuffle_buffer, numbered):
    train = stream(numbered, shuffle_buffer=shuffle_buffer).train
    first, again, other = (seen(train.training_batches(45, seed), 1) for seed in (0, 0, 1))
    assert first == again and first != other
    assert sorted(first) == sorted(other) == TRAINED_ON != first


def test_a_buffer_mixes_pictures_of_one_file_that_lie_far_apart(tmp_path):
    write_parquet(tmp_path / "one.parquet", [flat(number) for number in range(200)])
    order = seen(stream(tmp_path, shuffle_buffer=50).train.training_batches(180, 0), 1)
    distances = torch.tensor(order).sub(torch.tensor(sorted(order))).abs().float()
    assert 15 < distances.mean() < 60


@pytest.mark.parametrize("first_image", [6, 24, 45, 48, 90, 300])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_stream_goes_on_from_any_place_with_any_number_of_ranks(first_image, num_ranks, numbered):
    whole = seen(stream(numbered).train.training_batches(6, 5), 70)
    resumed = stream(numbered).train
    ranks = [resumed.training_batches(6, 5, first_image, rank, num_ranks) for rank in range(num_ranks)]
    parts = [number for _ in range(4) for batches in ranks for number in numbers(next(batches))]
    assert parts == whole[first_image : first_image + len(parts)]


def test_replaying_decodes_nothing(numbered, monkeypatch):
    decoded = []
    decode = hf_vae.data.streaming.decode_file
    monkeypatch.setattr(hf_vae.data.streaming, "decode_file", lambda *a, **k: decoded.append(a[0]) or decode(*a, **k))
    train = stream(numbered).train
    decoded.clear()
    next(train.training_batches(6, 0, first_image=600))
    assert len(decoded) <= 6 * (1 + 2 * hf_vae.data.streaming.BATCHES_AHEAD)


def test_every_kth_picture_is_held_out_and_never_trained_on(numbered):
    splits = stream(numbered)
    assert sorted(numbers(splits.heldout[:])) == HELDOUT and splits.facts == {"heldout": 5}
    assert not set(HELDOUT) & set(seen(splits.train.training_batches(6, 0), 20))
    other = stream(numbered, validation_fraction=0.25, split_seed=7)
    assert sorted(numbers(other.heldout[:])) == list(range(3, NUM_PICTURES, 4))


def test_only_so_many_are_held_out_and_the_rest_is_not_read_for_that(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_vae.data.streaming, "HELDOUT_LIMIT", 3)
    write_folder(tmp_path, [flat(number) for number in range(100)])
    read, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read.append(file.name) or read_bytes(file))
    splits = stream(tmp_path)
    assert sorted(numbers(splits.heldout[:])) == [0, 10, 20] and max(read) < "0030.png"
    assert sorted(seen(splits.train.training_batches(97, 0), 1)) == sorted(set(range(100)) - {0, 10, 20})


def test_a_copy_of_a_held_out_picture_is_not_trained_on(tmp_path):
    write_folder(tmp_path, [flat(number) for number in [*range(20), 0, 10]])
    splits = stream(tmp_path)
    assert sorted(numbers(splits.heldout[:])) == [0, 10]
    assert set(seen(splits.train.training_batches(6, 0), 12)) == set(range(20)) - {0, 10}


def test_the_first_pictures_come_as_floats_without_shuffling(numbered):
    batches = list(stream(numbered).train.batches(20, batch_size=8))
    assert [len(batch) for batch in batches] == [8, 8, 4]
    expected = torch.tensor(TRAINED_ON[:20], dtype=torch.uint8)
    assert torch.equal(torch.cat(batches)[:, 0, 0, 0], to_float(expected))
    assert sum(map(len, stream(numbered).train.batches(1000))) == len(TRAINED_ON)


def as_set(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def assert_streams_the_drawn(splits: DataSplits, count: int = 12) -> None:
    trained_on = [number for number in range(count) if number not in (0, 10)]
    epoch = next(splits.train.training_batches(len(trained_on), 0))
    assert as_set(epoch) == as_set(drawn(trained_on))
    assert len(splits.heldout) == 2 and as_set(splits.heldout[:]) == as_set(drawn([0, 10]))


@pytest.mark.parametrize("options", [{}, {"crop_box": (4, 6, 40, 41)}])
def test_pictures_are_decoded_as_those_of_a_cache(options, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(12):
        picture = draw_picture(number, (160, 120))
        extra = {"exif": exif} if number % 3 == 0 else {"quality": 80}
        picture.convert("CMYK" if number == 5 else "RGB").save(tmp_path / f"{number:02d}.jpg", **extra)
    splits = stream(tmp_path, image_channels=3, **options)
    cached = load_images(DataConfig(train_data_dir=str(tmp_path), **options), 28, 3)
    everything = torch.cat([splits.heldout[:], next(splits.train.training_batches(10, 0))])
    assert as_set(everything) == as_set(torch.cat([cached.train[:], cached.heldout[:]]))


def test_folders_in_a_folder_are_read_and_hidden_files_are_not(tmp_path):
    for number in range(12):
        file = tmp_path / ("a" if number < 5 else "b/c") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(number).save(file)
        (file.parent / f"._{file.name}").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    assert_streams_the_drawn(stream(tmp_path, image_channels=3))


def test_one_parquet_file_is_read_whatever_its_name(tmp_path):
    file = tmp_path / "all [part 1*].parquet"
    write_parquet(file, [png(number) for number in range(12)])
    assert_streams_the_drawn(stream(file, image_channels=3))
    assert len(load_images(DataConfig(train_data_dir=str(file)), 28, 3).train) == 10


@pytest.mark.parametrize("cell", [lambda content: content, lambda content: {"bytes": content, "path": None}])
def test_parquet_that_does_not_say_that_it_holds_images_is_read(cell, tmp_path):
    table = pa.table({"face": [cell(png(number)) for number in range(12)], "label": list(range(12))})
    pq.write_table(table, tmp_path / "faces.parquet")
    assert_streams_the_drawn(stream(tmp_path, image_channels=3))


def test_a_dataset_repository_of_parquet_is_streamed_as_from_the_hub(tmp_path):
    contents = [png(number) for number in range(12)]
    for shard in range(2):
        name = f"train-{shard:05d}-of-00002.parquet"
        write_parquet(tmp_path / "faces" / "data" / name, contents[6 * shard : 6 * shard + 6])
    data = DataConfig(dataset_name=str(tmp_path / "faces"), streaming=True)
    assert_streams_the_drawn(open_stream(data, 28, 3))


@pytest.mark.parametrize("zipped", [False, True])
def test_a_dataset_repository_of_picture_files_is_streamed_as_from_the_hub(zipped, tmp_path):
    """Their rows hold addresses, within an archive too, and no bytes."""
    write_folder(tmp_path / "pictures", [png(number) for number in range(12)])
    repository = tmp_path / "pictures"
    if zipped:
        repository = tmp_path / "archive"
        shutil.make_archive(str(repository / "train"), "zip", tmp_path / "pictures")
    assert_streams_the_drawn(open_stream(DataConfig(dataset_name=str(repository), streaming=True), 28, 3))


def test_a_broken_picture_is_named_once_and_others_keep_their_places(tmp_path, capsys):
    write_folder(tmp_path, [flat(number) for number in range(NUM_PICTURES)])
    whole = seen(stream(tmp_path).train.training_batches(5, 0), 27)
    (tmp_path / "0007.png").write_bytes(b"no picture")
    train = stream(tmp_path).train
    row = seen(train.training_batches(5, 0), 27)
    assert 7 not in row and all(there == here for there, here in zip(whole, row, strict=True) if there < 7)
    assert capsys.readouterr().out.count("0007.png") == 1
    resumed = seen(stream(tmp_path).train.training_batches(5, 0, first_image=20), 23)
    assert resumed == row[20:]
    one_by_one = seen(train.training_batches(1, 0), 60)
    assert len(one_by_one) == 60 and 7 not in one_by_one
    assert len(torch.cat(list(train.batches(1000, 7)))) == 44


def test_too_many_broken_pictures_stop_the_run_with_their_names(tmp_path):
    contents = [flat(number % 200) if number % 20 else b"no picture" for number in range(1, 801)]
    write_parquet(tmp_path / "pictures.parquet", contents)
    batches = stream(tmp_path).train.training_batches(16, 0)
    with pytest.raises(ValueError, match=r"(?s)11 of \d+ images cannot be used, more than 1%.*row \d+: not a JPEG"):
        seen(batches, 100)


def test_a_failure_to_read_is_not_taken_for_a_broken_picture(tmp_path):
    write_folder(tmp_path, [flat(number) for number in range(NUM_PICTURES)])
    train = stream(tmp_path).train
    (tmp_path / "0007.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"0007\.png"):
        seen(train.training_batches(5, 0), 10)


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param([], id="none"),
        pytest.param([flat(1)], id="one"),
        pytest.param([flat(1)] * 3, id="copies of one"),
        pytest.param([flat(1), b"broken"], id="the other one broken"),
        pytest.param([b"broken"] * 5, id="all broken"),
        pytest.param([None] * 5, id="all empty"),
    ],
)
def test_too_few_pictures_are_refused(contents, tmp_path):
    write_parquet(tmp_path / "pictures.parquet", contents)
    with pytest.raises(ValueError, match="Too few distinct images"):
        stream(tmp_path)


def test_fewer_pictures_than_a_batch_go_on_with_the_next_epoch(tmp_path):
    write_folder(tmp_path, [flat(number) for number in range(6)])
    row = seen(stream(tmp_path, validation_fraction=0.5).train.training_batches(10, 0), 3)
    assert all(sorted(row[start : start + 3]) == [1, 3, 5] for start in range(0, 30, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 0.0}, "validation_fraction=0.0"),
        ({"validation_fraction": 0.9}, "validation_fraction=0.9"),
        ({"shuffle_buffer": 0}, "shuffle_buffer=0"),
        ({"image_channels": 2}, "image_channels=2"),
        ({"dataset_name": "cats"}, "either --dataset_name .* or --train_data_dir"),
        ({"image_column": "label"}, r"'label'.*Image columns here: img; all columns: img, label"),
        ({"image_column": "face"}, r"'face'.*Image columns here: img; all columns: img, label"),
    ],
)
def test_what_is_not_possible_is_refused_by_name(options, message, tmp_path):
    write_parquet(tmp_path / "pictures.parquet", [flat(number) for number in range(4)])
    with pytest.raises(ValueError, match=message):
        stream(tmp_path, **options)


def test_sources_that_do_not_exist_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist"):
        stream(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no .*\.jpg"):
        stream(tmp_path)
    with pytest.raises(ValueError, match="dataset_name=nobody/nothing cannot be loaded"):
        open_stream(DataConfig(dataset_name="nobody/nothing", streaming=True), 28, 3)


def test_no_thread_outlives_its_batches(numbered):
    before = set(threading.enumerate())
    batches = stream(numbered).train.training_batches(6, 0)
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    assert set(threading.enumerate()) <= before


def test_a_preview_in_the_midst_of_an_epoch_does_not_disturb_it(numbered):
    train = stream(numbered).train
    undisturbed = seen(train.training_batches(3, 0), 15)
    row, batches = [], train.training_batches(3, 0)
    for _ in range(15):
        row += seen(batches, 1)
        list(train.batches(12, 5))
    assert row == undisturbed


def test_loading_leaves_the_global_generator_alone(numbered):
    before = torch.get_rng_state()
    next(stream(numbered).train.training_batches(6, 0))
    assert torch.equal(torch.get_rng_state(), before)


INTERRUPTED = """
import sys
import psutil
from hf_vae.config import DataConfig
from hf_vae.data.streaming import open_stream

def training_batches(folder):
    data = DataConfig(train_data_dir=folder, streaming=True, shuffle_buffer=50)
    return open_stream(data, 28, 3).train.training_batches(32, 0)

def main():
    next(training_batches(sys.argv[1]))  # of a small set, so that everything is imported and warm
    process = psutil.Process()
    before = peak = process.memory_info().rss
    batches = training_batches(sys.argv[2])
    for _ in range(68):
        assert next(batches).shape == (32, 3, 28, 28)
        peak = max(peak, process.memory_info().rss)
    print((peak - before) / 2**20)
    raise ValueError("something else failed")

main()
"""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> subprocess.CompletedProcess:
    """A process that streams most of 344 MB, 2,400 files that do not compress in one parquet file, and then fails."""
    generator = torch.Generator().manual_seed(0)

    image = encoded(draw_picture(0), "jpg")
    # what follows the end of a JPEG is not decoded, but makes it large, and another file
    noise = torch.randint(0, 256, (20, 143_000), generator=generator, dtype=torch.uint8).numpy()
    folders = [tmp_path_factory.mktemp(name) for name in ("small", "large")]
    for folder, count in zip(folders, (80, 2400), strict=True):
        contents = [image + noise[number % 20].tobytes() + number.to_bytes(8) for number in range(count)]
        pq.write_table(pa.table({"picture": contents}), folder / "all.parquet", row_group_size=25, compression="none")
    assert (folders[1] / "all.parquet").stat().st_size > 320 * 2**20
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", INTERRUPTED, *map(str, folders)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_memory_stays_far_below_the_size_of_the_set(interrupted):
    """It levels off at 55 to 90 MB, mostly Arrow's own buffers, after 80 pictures as after 2,000."""
    assert float(interrupted.stdout.split()[-1]) < 320 / 3


def test_a_process_that_fails_in_the_midst_of_an_epoch_ends(interrupted):
    """`datasets` and pyarrow left it hanging, or aborted it."""
    assert interrupted.returncode == 1
    assert interrupted.stderr.endswith("ValueError: something else failed\n")


def streamed_run(folder: Path, output_dir: Path, **train_config) -> RunConfig:
    settings = {"train_batch_size": 6, "max_train_steps": 6, "lr_warmup_steps": 2, "logging_steps": 2}
    settings |= {
        "preview_steps": 2,
        "checkpointing_steps": 3,
        "prior_steps": 2,
        "output_dir": str(output_dir),
    } | train_config
    data = DataConfig(train_data_dir=str(folder), streaming=True, shuffle_buffer=8)
    return RunConfig(
        "vae", tiny_config("vae", prior="mixture"), FAMILIES["vae"].objective(), data, TrainConfig(**settings)
    )


def test_a_killed_and_resumed_streaming_run_equals_an_uninterrupted_one_bit_for_bit(picture_folder, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(streamed_run(picture_folder, whole))
    shutil.copytree(whole, resumed, ignore=shutil.ignore_patterns("checkpoint-6", "*.safetensors", "*06.png"))
    shutil.copytree(whole / "checkpoint-3", resumed / "checkpoint-3", dirs_exist_ok=True)
    reset_accelerate()
    train(streamed_run(picture_folder, resumed, resume_from_checkpoint="latest"))
    expected, found = (load_file(run / "diffusion_pytorch_model.safetensors") for run in (whole, resumed))
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    losses = [[json.loads(line)["loss"] for line in (run / "log.jsonl").open()] for run in (whole, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    assert json.loads((whole / "training.json").read_text())["pictures"] == {"heldout": 4}


def test_a_streamed_run_is_measured_on_what_it_held_out_and_gets_a_card(picture_folder, tmp_path):
    run = streamed_run(picture_folder, tmp_path / "faces", max_train_steps=2)
    train(run)
    assert evaluate_folder(tmp_path / "faces", run.data)["num_heldout"] == 4
    write_card(tmp_path / "faces")
    text = (tmp_path / "faces" / "README.md").read_text()
    assert "4 images were held out" in text and "buffer of 8" in text and "--streaming" in text
    assert not any(word in text for word in ("{{", "{%", "None", "undefined"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_train_steps": None}, "--max_train_steps"), ({"train_batch_size": "auto"}, "--train_batch_size")],
)
def test_what_needs_the_number_of_pictures_is_refused_with_the_fix(settings, message, picture_folder, tmp_path):
    with pytest.raises(ValueError, match=f"With --streaming the .* is unknown; pass .*{message}"):
        train(streamed_run(picture_folder, tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()
