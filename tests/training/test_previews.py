"""Preview grids and the timelapse."""

import numpy as np
import torch
from conftest import draw_picture, reset_accelerate, tiny_model, tiny_run
from PIL import Image

from hf_vae import AutoGenerator
from hf_vae.config import TrainConfig
from hf_vae.training import loop
from hf_vae.training.previews import draw_preview, save_timelapse


def test_the_same_weights_give_the_same_preview_and_no_global_noise_is_used(family):
    images = torch.rand(12, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first = draw_preview(tiny_model(family), [images])
    model = tiny_model(family)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert draw_preview(model, [images]).tobytes() == first.tobytes()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_timelapse_has_one_frame_for_each_preview(tmp_path):
    for number in range(3):
        draw_picture(number).save(tmp_path / f"step_{number:07d}.png")
    save_timelapse(tmp_path, tmp_path / "timelapse.webp")
    assert Image.open(tmp_path / "timelapse.webp").n_frames == 3


def test_the_first_preview_of_a_run_comes_early(picture_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "FIRST_PREVIEW", 2)
    for every, expected in ((0, []), (1, [1, 2, 3, 4]), (3, [2, 3, 4]), (500, [2, 4])):
        output_dir = tmp_path / str(every)
        settings = {"max_train_steps": 4, "checkpointing_steps": 0, "preview_steps": every}
        loop.Training.start(tiny_run("dcgan", picture_folder, output_dir, **settings)).advance(4)
        assert sorted(path.name for path in output_dir.glob("previews/*")) == [
            f"step_{step:07d}.png" for step in expected
        ]
        reset_accelerate()


def test_the_last_preview_is_drawn_from_the_prior_that_people_get(family, picture_folder, tmp_path):
    settings = {"max_train_steps": 2, "preview_steps": 1, "prior_steps": 2}
    folder = loop.train(tiny_run(family, picture_folder, tmp_path, **settings))
    names = [path.name for path in sorted((folder / "previews").iterdir())]
    model = AutoGenerator.from_pretrained(folder)
    if model.has_encoder:
        assert names == ["step_0000001.png", "step_0000002.png", "step_0000002_prior.png"]
        assert Image.open(folder / "timelapse.webp").n_frames == 3
    else:
        assert names == ["step_0000001.png", "step_0000002.png"]
    expected = draw_preview(model, None, columns=TrainConfig.preview_columns)
    assert (
        np.abs(np.asarray(expected, float) - np.asarray(Image.open(folder / "previews" / names[-1]), float)).max() <= 1
    )


def test_a_run_without_previews_has_none_of_its_prior(picture_folder, tmp_path):
    folder = loop.train(tiny_run("vae", picture_folder, tmp_path, max_train_steps=1, preview_steps=0))
    assert not (folder / "previews").exists()


def test_without_previews_there_is_no_timelapse(tmp_path):
    save_timelapse(tmp_path, tmp_path / "timelapse.webp")
    assert not (tmp_path / "timelapse.webp").exists()
