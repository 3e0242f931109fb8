"""What components change in faces, and which of them get a name."""

import pytest
import torch
from dotted_faces import FACE, dot_network, draw_dots, turned  # noqa: F401  # a fixture

from hf_vae.data.landmarks import Landmarks, find_landmarks
from hf_vae.evaluation.component_effects import MEASURES, ComponentEffects, measure_components
from hf_vae.pictures import picture_to_uint8, to_float
from hf_vae.pipeline import PicturesOutput


EDGE = 48
NAMES = [measure.name for measure in MEASURES]


def changed(nose: float = 0, mouth: float = 0, angle: float = 0, scale: float = 1, y: float = 0) -> torch.Tensor:
    """The points of a face, in pixels: its nose to the right, its mouth wider, turned, larger, lower."""
    points = FACE.clone()
    points[2, 0] += nose
    points[3, 0] -= mouth
    points[4, 0] += mouth
    return EDGE * (turned((points - 0.5) * scale + 0.5, angle) + torch.tensor([0, y]))


def image_of(points: torch.Tensor, ground: int = 128) -> torch.Tensor:
    return to_float(picture_to_uint8(draw_dots(points, (EDGE, EDGE), ground)))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("Head turn", {"nose": -0.08}, {"nose": 0.08}),
        ("Head tilt", {"angle": -15}, {"angle": 15}),
        ("Smile", {"mouth": -0.05}, {"mouth": 0.05}),
        ("Face size", {"scale": 0.9}, {"scale": 1.1}),
        ("Face height", {"y": -0.06}, {"y": 0.06}),
    ],
)
def test_each_measure_rises_with_what_it_is_called_by_and_with_nothing_else(dot_network, name, low, high):  # noqa: F811
    images = torch.stack([image_of(changed(**low)), image_of(changed()), image_of(changed(**high))])
    faces = find_landmarks(images)
    assert faces.found.all()
    values = {measure.name: measure.values(images, faces) for measure in MEASURES}
    assert values[name][0] < values[name][1] < values[name][2]
    steady = {"Head turn", "Head tilt", "Smile"} - {name}
    for other in steady:
        assert (values[other][2] - values[other][0]).abs() < (1.5 if other == "Head tilt" else 0.04)


def test_measures_of_light():
    images = torch.zeros(3, 3, 40, 40)
    images[0, :, :, 20:] = 0.8  # lit from the right
    images[1, 0], images[1, 2] = 0.5, -0.5
    images[2, :, 5:-5, 5:-5] = -0.5
    faces = Landmarks(40 * FACE.expand(3, 5, 2), torch.zeros(3))
    values = {measure.name: measure.values(images, faces) for measure in MEASURES}
    assert values["Light side"][0] > 50 and values["Light side"][1:].abs().max() < 0.1
    assert values["Brightness"][0] > values["Brightness"][2]
    assert values["Warmth"][1] > 0.9 and values["Warmth"][0] == 0
    assert values["Background"][2] > 30 and values["Background"][1].abs() < 0.1


def effects(*sets: dict[str, float], correlation: float = 0) -> ComponentEffects:
    """The effects of one component in two sets; those that are not given are 0.1. All measures have one
    `correlation`."""
    correlations = torch.full((2, len(NAMES), len(NAMES)), correlation)
    return ComponentEffects(torch.tensor([[[each.get(name, 0.1) for name in NAMES]] for each in sets]), correlations)


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ({"Head turn": 2.0}, {"Head turn": 1.8}, "Head turn, left to right"),
        ({"Head turn": -2.0}, {"Head turn": -1.8}, "Head turn, right to left"),
        ({"Brightness": -1.4, "Contrast": 0.7}, {"Brightness": -1.3}, "Brightness, bright to dark"),
        ({"Head turn": 0.8}, {"Head turn": 0.8}, None),  # too little
        ({"Head turn": 2.0}, {"Head turn": 0.8}, None),  # in one set only
        ({"Head turn": 2.0}, {"Head turn": -2.0}, None),
        ({"Head turn": 2.0}, {"Smile": 2.0}, None),
        ({"Head turn": 2.0, "Smile": -1.5}, {"Head turn": 2.0}, None),  # two things
        ({"Head turn": 2.0}, {"Head turn": 2.0, "Smile": -1.5}, None),
    ],
)
def test_a_component_has_a_name_if_one_measure_dominates_in_both_sets(first, second, name):
    assert effects(first, second).names() == ({0: name} if name else {})


def test_what_follows_from_a_measure_is_no_second_thing():
    both = dict.fromkeys(NAMES, 1.4) | {"Head turn": 2.0}
    assert effects(both, both).names() == {}
    assert effects(both, both, correlation=0.7).names() == {0: "Head turn, left to right"}
    assert effects(both, both, correlation=-0.7).names() == {}


class DrawingPipeline:
    """Stands for a model of faces that differ in many things. Its three components are the turn of the head, the
    brightness of the ground, and both together."""

    num_components = 3

    def sample(self, num_images: int, seed: int) -> PicturesOutput:
        return self.decode(torch.randn(num_images, 11, generator=torch.Generator().manual_seed(seed)))

    def move(self, latents: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
        return latents + torch.nn.functional.pad(shifts, (0, latents.shape[1] - shifts.shape[1]))

    def decode(self, latents: torch.Tensor) -> PicturesOutput:
        images = []
        for turn, ground, both, mouth, angle, size, lower, right, down, warm, light in latents.tolist():
            points = FACE.clone()
            points[2] += torch.tensor([0.025 * (turn + both), 0.01 * lower])
            points[3:, 0] += torch.tensor([-0.015, 0.015]) * mouth
            points[3:, 1] += 0.015 * lower
            points = turned((points - 0.5) * (0.9 + 0.03 * size) + 0.5, 4 * angle)
            points += 0.015 * torch.tensor([right, down])
            image = image_of(EDGE * points, int(128 + 10 * (ground + both)))
            image += 0.08 * light * torch.linspace(-1, 1, EDGE)
            image += 0.04 * warm * torch.tensor([1.0, 0, -1])[:, None, None]
            images.append(image.clamp(-1, 1))
        return PicturesOutput([], latents, torch.stack(images))


def test_components_that_change_one_thing_get_its_name(dot_network):  # noqa: F811
    found = measure_components(DrawingPipeline(), num_samples=32)
    assert found.effects.shape == (3, 3, len(MEASURES))
    assert found.names() == {0: "Head turn, left to right", 1: "Brightness, dark to bright"}


def test_models_of_something_else_are_refused(dot_network, monkeypatch):  # noqa: F811
    pipeline = DrawingPipeline()
    monkeypatch.setattr(
        pipeline, "decode", lambda latents: PicturesOutput([], latents, torch.zeros(len(latents), 3, 48, 48))
    )
    with pytest.raises(ValueError, match="A face was found in 0 of 4 samples"):
        measure_components(pipeline, num_samples=4)
