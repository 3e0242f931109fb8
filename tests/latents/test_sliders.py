"""Named sliders beside the weights: kept, published, read again, used by their names, and refused if damaged."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import tiny_model
from safetensors.torch import load_file, save_file

from hf_vae import ImagePipeline
from hf_vae.latents.sliders import NamedSlider, read_sliders, slider_coordinates, slider_size, write_sliders
from hf_vae.run_folder import SLIDERS_FILE, published_files


def two_sliders(size: int) -> list[NamedSlider]:
    return [
        NamedSlider("Head turn", "left", "right", 2.1, 0.4, torch.eye(size)[0]),
        NamedSlider("Smile", "less", "more", 1.9, 0.5, torch.tensor([0.6, 0.8, *[0.0] * (size - 2)])),
    ]


def test_a_pipeline_has_the_sliders_that_were_kept_with_its_model(family, tmp_path):
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    assert ImagePipeline.from_pretrained(tmp_path).sliders == ()
    sliders = two_sliders(slider_size(model.config))
    path = write_sliders(tmp_path, sliders)
    read = ImagePipeline.from_pretrained(tmp_path).sliders
    for before, after in zip(sliders, read, strict=True):
        assert vars(before) | {"vector": None} == vars(after) | {"vector": None}
        assert torch.equal(before.vector, after.vector)
    assert path in published_files(tmp_path)
    assert path.stat().st_mode == (tmp_path / "config.json").stat().st_mode
    write_sliders(tmp_path, [])
    assert not path.exists() and read_sliders(tmp_path, slider_size(model.config)) == ()


def test_a_slider_moves_an_image_along_its_direction_by_its_name(family):
    model = tiny_model(family)
    pipe = ImagePipeline(model, sliders=two_sliders(slider_size(model.config)))
    start = pipe.sample(1, seed=3).latents
    by_name = pipe.vary_latents(start, "smile", [-2.0, 0.0, 2.0])
    shifts = torch.tensor([-2.0, 0.0, 2.0])[:, None] * pipe.sliders[1].vector
    assert torch.equal(by_name.latents, pipe.move(start, shifts))
    assert torch.equal(
        pipe.vary_latents(start, "Head turn", [2.0]).latents, pipe.vary_latents(start, 0, [2.0]).latents
    )
    assert (by_name.tensors[0] - by_name.tensors[2]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="component='Age' does not exist: this model has Head turn, Smile, and comp"):
        pipe.vary_latents(start, "Age", [1.0])
    with pytest.raises(ValueError, match="no named sliders"):
        ImagePipeline(model).vary_latents(start, "Smile", [1.0])


@pytest.mark.parametrize("kind", ["gaussian", "code"])
def test_coordinates_are_what_a_shift_adds_to(kind):
    model = tiny_model("vae", prior=kind).eval()
    latents = model.latent_prior.sample(4, kind, torch.Generator().manual_seed(1))
    before = slider_coordinates(model, latents)
    assert before.shape == (4, slider_size(model.config))
    if kind == "gaussian":
        shift = 0.5 * torch.eye(slider_size(model.config))[:1]
        after = slider_coordinates(model, model.latent_prior.move(latents, shift))
        assert (after - before - shift).abs().max() < 1e-4


def damaged(change, path):
    tensors, metadata = (
        load_file(path),
        {"sliders": json.dumps([vars(each) | {"vector": 0} for each in two_sliders(8)])},
    )
    tensors, metadata = change(tensors, metadata)
    save_file(tensors, path, metadata)


def with_facts(**changed):
    def change(tensors, metadata):
        first, *others = json.loads(metadata["sliders"])
        return tensors, {"sliders": json.dumps([first | changed, *others])}

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_facts(name=""),
        with_facts(name="x" * 81),
        with_facts(name="a\nb"),
        with_facts(low=3),
        with_facts(effect="much"),
        with_facts(effect=float("nan")),
        with_facts(name="SMILE"),
        lambda tensors, metadata: (tensors, {}),
        lambda tensors, metadata: (tensors, {"sliders": "["}),
        lambda tensors, metadata: (tensors, {"sliders": "[" * 90_000}),
        lambda tensors, metadata: (tensors, {"sliders": "[]"}),
        lambda tensors, metadata: ({"vectors": tensors["vectors"][:1]}, metadata),
        lambda tensors, metadata: ({"vectors": tensors["vectors"][:, :5].contiguous()}, metadata),
        lambda tensors, metadata: ({"vectors": tensors["vectors"].double()}, metadata),
        lambda tensors, metadata: ({"vectors": tensors["vectors"] / 0}, metadata),
        lambda tensors, metadata: ({"others": tensors["vectors"]}, metadata),
    ],
)
def test_a_damaged_file_is_one_clear_error(change, tmp_path):
    path = write_sliders(tmp_path, two_sliders(8))
    damaged(change, path)
    with pytest.raises(ValueError, match=SLIDERS_FILE):
        read_sliders(tmp_path, 8)


def test_a_file_that_is_no_safetensors_file_is_one_clear_error(tmp_path):
    (tmp_path / SLIDERS_FILE).write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=SLIDERS_FILE):
        read_sliders(tmp_path, 8)


def test_the_effect_of_a_slider_is_kept_as_it_is(tmp_path):
    slider = replace(two_sliders(8)[0], effect=1.25, side_effect=0.5)
    write_sliders(tmp_path, [slider])
    (read,) = read_sliders(tmp_path, 8)
    assert (read.effect, read.side_effect) == (1.25, 0.5)
