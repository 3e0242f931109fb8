"""What is measured in images, and which sliders change one thing of it."""

import pytest
import torch
from dotted_faces import FACE, dot_network, draw_dots, turned  # noqa: F401  # a fixture

from hf_vae.data.landmarks import Landmarks, find_landmarks
from hf_vae.evaluation.named_sliders import OF_FACES, OF_IMAGES, SliderEffects, fit_sliders
from hf_vae.pictures import picture_to_uint8, to_float
from hf_vae.pipeline import PicturesOutput


EDGE = 48
NAMES = [measure.name for measure in OF_FACES]


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
    values = {measure.name: measure.values(images, faces) for measure in OF_FACES}
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
    values = {measure.name: measure.values(images, faces) for measure in OF_FACES}
    assert values["Light side"][0] > 50 and values["Light side"][1:].abs().max() < 0.1
    assert values["Brightness"][0] > values["Brightness"][2]
    assert values["Warmth"][1] > 0.9 and values["Warmth"][0] == 0
    assert values["Background"][2] > 30 and values["Background"][1].abs() < 0.1


def test_light_is_measured_without_a_face_too():
    images = torch.zeros(2, 3, 40, 40)
    images[0, :, :, 20:] = 0.8
    nowhere = Landmarks(torch.zeros(2, 5, 2), torch.zeros(2))
    values = {measure.name: measure.values(images, nowhere) for measure in OF_IMAGES}
    assert set(values) == {"Brightness", "Warmth", "Contrast", "Background", "Light side"}
    assert values["Light side"][0] > 50 and values["Light side"][1] == 0


def effects(*sets: dict[str, float], correlation: float = 0) -> SliderEffects:
    """The effects of the slider for the turn of the head in some sets; those that are not given are 0.1. All measures
    have one `correlation`."""
    found = torch.full((len(sets), len(NAMES), len(NAMES)), 0.1)
    for number, each in enumerate(sets):
        for name, effect in each.items():
            found[number, 0, NAMES.index(name)] = effect
    return SliderEffects(found, torch.full_like(found, correlation))


@pytest.mark.parametrize(
    ("first", "second", "is_clear"),
    [
        ({"Head turn": 2.0}, {"Head turn": 1.8}, True),
        ({"Head turn": 1.4, "Contrast": 0.7}, {"Head turn": 1.3}, True),
        ({"Head turn": 0.8}, {"Head turn": 0.8}, False),  # too little
        ({"Head turn": 2.0}, {"Head turn": 0.8}, False),  # in one set only
        ({"Head turn": 2.0}, {"Head turn": -2.0}, False),
        ({"Head turn": -2.0}, {"Head turn": -2.0}, False),  # the wrong way
        ({"Head turn": 2.0}, {"Smile": 2.0}, False),
        ({"Head turn": 2.0, "Smile": -1.5}, {"Head turn": 2.0}, False),  # two things
        ({"Head turn": 2.0}, {"Head turn": 2.0, "Smile": -1.5}, False),
    ],
)
def test_a_slider_is_clear_if_it_changes_its_own_measure_alone_in_every_set(first, second, is_clear):
    assert effects(first, second).is_clear(0) == is_clear


def test_what_follows_from_a_measure_is_no_second_thing():
    both = dict.fromkeys(NAMES, 1.4) | {"Head turn": 2.0}
    assert not effects(both, both).is_clear(0)
    assert effects(both, both, correlation=0.7).is_clear(0)
    assert not effects(both, both, correlation=-0.7).is_clear(0)


def test_effects_are_reported_as_means_of_the_sets():
    found = effects({"Head turn": 2.0, "Smile": -0.6}, {"Head turn": 3.0, "Smile": -0.2})
    assert (found.own(0), found.largest_other(0)) == (2.5, pytest.approx(0.4))


class DrawnPrior:
    """Stands for the prior of the model that draws: its latents lie along its components as they are."""

    kinds: tuple[str, ...] = ()

    def __init__(self):
        self.sliders = self
        self.stds = torch.ones(11)

    def coordinates(self, latents: torch.Tensor) -> torch.Tensor:
        return latents


class DrawingModel:
    def __init__(self):
        self.latent_prior = DrawnPrior()


class DrawingPipeline:
    """Stands for a model of faces that differ in many things. Two of its components change two things each."""

    def __init__(self):
        self.model = DrawingModel()

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


def test_sliders_change_one_thing_where_components_change_two(dot_network):  # noqa: F811
    sliders, measures, found = fit_sliders(DrawingPipeline(), num_samples=256, num_checked=32)
    assert measures == list(OF_FACES) and found.effects.shape == (3, len(NAMES), len(NAMES))
    kept = {slider.name: slider for slider in sliders}
    assert {"Head turn", "Head tilt", "Smile", "Brightness", "Warmth", "Light side"} <= set(kept)
    turn, light = kept["Head turn"].vector, kept["Brightness"].vector
    assert turn.shape == (11,) and turn.norm() == pytest.approx(1)
    assert turn[0] > 0.6 and turn[1] < -0.2, "against the component that changes the light as well"
    assert light[1] > 0.6 and light[0] < -0.2
    assert kept["Warmth"].vector[9] > 0.9
    assert all(slider.effect >= 1 for slider in kept.values())


def test_without_faces_there_are_sliders_of_the_light_alone(dot_network, monkeypatch):  # noqa: F811
    ground, tint, side = torch.zeros(3, 3, EDGE, EDGE).unbind()
    ground[:, 6:-6, 6:-6] = 0.1
    tint[0], tint[2] = 0.2, -0.2
    side += 0.1 * torch.linspace(-1, 1, EDGE)

    def blank(latents: torch.Tensor) -> PicturesOutput:
        parts = torch.stack([torch.full_like(side, 0.1), ground, tint, side])
        return PicturesOutput([], latents, torch.einsum("bk,kchw->bchw", latents[:, :4], parts).clamp(-1, 1))

    pipeline = DrawingPipeline()
    monkeypatch.setattr(pipeline, "decode", blank)
    sliders, measures, _ = fit_sliders(pipeline, num_samples=128, num_checked=32)
    assert measures == list(OF_IMAGES)
    assert {"Brightness", "Warmth", "Light side"} <= {slider.name for slider in sliders}
