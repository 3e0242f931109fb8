"""The code given labels: it follows those that are asked for, any of them, and only those that there are."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_vae.latents.directions import (
    DIRECTIONS_FILE,
    Direction,
    read_directions,
    read_labelled_codes,
    write_directions,
)
from hf_vae.latents.labelled_codes import LABEL_GUIDANCE, LabelledCodes, NumberLabel, WordLabel


CODE_DIM = 5
CONFIG = {"prior": "code", "code_dim": CODE_DIM, "latent_dim": 9}
NUM = 4000


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, dict]:
    """Codes, the first number of which tells the tone, the second the age, and the third its distance from 50."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(NUM, CODE_DIM, generator=generator)
    ages = torch.rand(NUM, generator=generator) * 100
    tones = torch.randint(3, (NUM,), generator=generator)
    codes[:, 0] = 0.5 * codes[:, 0] + tones - 1
    codes[:, 1] = 0.5 * codes[:, 1] + (ages - 50) / 30
    codes[:, 2] = 0.5 * codes[:, 2] + ((ages - 50) / 30).square() - 1
    return codes, {"tone": [("blue", "green", "red")[tone] for tone in tones], "age": ages.tolist()}


@pytest.fixture(scope="module")
def codes(data) -> LabelledCodes:
    return LabelledCodes.fit(*data)


def test_the_code_is_drawn_around_that_of_images_with_the_label(codes):
    for word, place in (("blue", -1), ("green", 0), ("red", 1)):
        mean, root = codes.given({"tone": word}, 1)
        torch.testing.assert_close(mean, torch.tensor([place, 0.0, 0.0, 0.0, 0.0]), atol=0.1, rtol=0)
        stds = (root @ root.T).diagonal().sqrt()
        assert stds[0] == pytest.approx(0.5, abs=0.03), "what tells the tone varies as within one tone"
        assert stds[1] == pytest.approx((1 / 3 * (5 / 3) ** 2 + 0.25) ** 0.5, abs=0.05), "the rest as in all images"


def test_guidance_moves_the_mean_further_and_never_beyond_three_standard_deviations(codes):
    start, (plain, root) = codes.mean[:CODE_DIM], codes.given({"tone": "red"}, 1)
    doubled, same_root = codes.given({"tone": "red"}, 2)
    torch.testing.assert_close(doubled - start, 2 * (plain - start))
    torch.testing.assert_close(same_root, root)
    assert torch.equal(codes.given({"tone": "red"}, 0)[0], start)
    assert torch.equal(codes.given({"tone": "red"})[0], codes.given({"tone": "red"}, LABEL_GUIDANCE)[0])
    assert (codes.given({"tone": "red"}, 100)[0] - start).norm().item() == pytest.approx(3, rel=1e-4)
    for guidance in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"label_guidance={guidance} is not possible"):
            codes.given({"tone": "red"}, guidance)


def test_guidance_moves_no_label_less_far_than_training_images_have_it():
    codes = 10 * torch.eye(2).repeat_interleave(20, 0) + torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    fitted = LabelledCodes.fit(codes, {"side": ["a"] * 20 + ["b"] * 20})
    mean, _ = fitted.given({"side": "a"})
    torch.testing.assert_close(mean, fitted.given({"side": "a"}, 1)[0])
    torch.testing.assert_close(mean, codes[:20].mean(0), atol=0.1, rtol=0)


@pytest.mark.parametrize("age", [10, 50, "80.0"])
def test_numbers_move_what_follows_them_and_what_follows_their_distance_from_the_mean(codes, age):
    mean, root = codes.given({"age": age}, 1)
    along = (float(age) - 50) / 30
    assert mean[1] == pytest.approx(along, abs=0.1) and mean[2] == pytest.approx(along**2 - 1, abs=0.1)
    assert mean[0] == pytest.approx(0, abs=0.1)
    torch.testing.assert_close((root @ root.T).diagonal()[1:3], torch.full((2,), 0.25), atol=0.03, rtol=0)


def test_any_of_the_labels_can_be_given(codes):
    both, root = codes.given({"age": 90, "tone": "red"}, 1)
    alone = codes.given({"tone": "red"}, 1)[0]
    assert both[0] == pytest.approx(alone[0].item(), abs=0.02) and both[1] > 1 > alone[1] + 0.9
    assert (root @ root.T).trace() < (codes.given({"age": 90})[1] @ codes.given({"age": 90})[1].T).trace()
    mean, root = codes.given({})
    torch.testing.assert_close(mean, codes.mean[:CODE_DIM])
    torch.testing.assert_close(root @ root.T, (codes.root @ codes.root.T)[:CODE_DIM, :CODE_DIM], atol=1e-4, rtol=1e-4)


def test_the_same_noise_gives_codes_that_are_alike(codes):
    root = codes.given({"tone": "red"})[1]
    torch.testing.assert_close(root, root.T)
    assert root.diagonal().min() > 0.4


def test_images_without_all_labels_are_left_out(data):
    values, columns = data
    some = {
        name: [None if number % 4 == place else value for number, value in enumerate(column)]
        for place, (name, column) in enumerate(columns.items())
    }
    kept = torch.arange(NUM) % 4 > 1
    whole = {
        name: [value for value, wanted in zip(column, kept, strict=True) if wanted] for name, column in columns.items()
    }
    found, wanted = LabelledCodes.fit(values, some), LabelledCodes.fit(values[kept], whole)
    assert found.labels == wanted.labels
    torch.testing.assert_close(found.mean, wanted.mean)


def test_labels_that_nothing_can_be_fitted_to_are_refused(data):
    values, columns = data
    few = [value if number < 19 else None for number, value in enumerate(columns["age"])]
    with pytest.raises(ValueError, match="19 training images have all of the labels tone, age; .* need 20"):
        LabelledCodes.fit(values, {"tone": columns["tone"], "age": few})
    with pytest.raises(ValueError, match="'tone' has 1 different values"):
        LabelledCodes.fit(values, {"tone": ["red"] * NUM})


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"size": 3}, "There is no label 'size'; this model has tone, age"),
        ({"tone": "grey"}, "The label 'tone' is 'grey'; it must be one of: blue, green, red"),
        ({"age": 101}, "The label 'age' is 101; it must be a number from 0.* to "),
        ({"age": "old"}, "The label 'age' is 'old'; it must be a number from"),
        ({"age": float("nan")}, "The label 'age' is nan; it must be a number from"),
        ({"age": 10**400}, "The label 'age' is 1000.*; it must be a number from"),
        ({"age": None}, "The label 'age' is None; it must be a number from"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(codes, wanted, message):
    with pytest.raises(ValueError, match=message) as refused:
        codes.given(wanted)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 200


def test_two_values_of_a_number_are_no_less_than_words(data):
    """0 and 1: the square of the standardised number is the same number again."""
    values, columns = data
    is_red = [int(tone == "red") for tone in columns["tone"]]
    mean, _ = LabelledCodes.fit(values, {"red": is_red}).given({"red": 1}, 1)
    assert mean[0] == pytest.approx(1, abs=0.1)


def written(codes, folder):
    return write_directions(folder, [Direction("tone", "a", "b", 0.9, 40, torch.ones(CODE_DIM))], codes)


def test_it_is_read_as_it_was_written_beside_the_directions(codes, tmp_path):
    assert read_labelled_codes(tmp_path, CONFIG) is None
    written(None, tmp_path)
    assert read_labelled_codes(tmp_path, CONFIG) is None, "as in a file of an earlier version"
    written(codes, tmp_path)
    again = read_labelled_codes(tmp_path, CONFIG)
    assert again.labels == codes.labels and again.code_dim == CODE_DIM
    assert torch.equal(again.mean, codes.mean) and torch.equal(again.root, codes.root)
    assert [each.name for each in read_directions(tmp_path, CODE_DIM)] == ["tone"]
    assert read_labelled_codes(tmp_path, CONFIG | {"prior": "flow"}) is None
    with pytest.raises(ValueError, match="another code than one of 4 numbers"):
        read_labelled_codes(tmp_path, CONFIG | {"code_dim": 4})


NUMBER = {"name": "age", "mean": 1.0, "std": 1.0, "lowest": 0.0, "highest": 2.0}
HARMS = {
    "no mean": ({}, {"codes.mean"}, None),
    "other shapes": ({"codes.root": torch.zeros(9, 9)}, set(), None),
    "a vector": ({"codes.root": torch.zeros(100)}, set(), None),
    "nan": ({"codes.mean": torch.full((10,), torch.nan)}, set(), None),
    "infinite": ({"codes.root": torch.full((10, 10), torch.inf)}, set(), None),
    "halves": ({"codes.mean": torch.zeros(10).half()}, set(), None),
    "not JSON": ({}, set(), "{"),
    "no list": ({}, set(), "5"),
    "no labels": ({}, set(), "[]"),
    "text": ({}, set(), '["age"]'),
    "no name": ({}, set(), json.dumps([{"words": list("abc")}, {k: v for k, v in NUMBER.items() if k != "name"}])),
    "a label twice": ({}, set(), json.dumps([{"name": "age", "words": list("abc")}, NUMBER])),
    "a word twice": ({}, set(), json.dumps([{"name": "tone", "words": ["a", "a", "b"]}, NUMBER])),
    "no std": ({}, set(), json.dumps([{"name": "tone", "words": list("abc")}, NUMBER | {"std": 0.0}])),
    "NaN": ({}, set(), json.dumps([{"name": "tone", "words": list("abc")}, NUMBER | {"mean": float("nan")}])),
    "a huge number": ({}, set(), json.dumps([{"name": "tone", "words": list("abc")}, NUMBER | {"highest": 10**400}])),
    "words for numbers": ({}, set(), json.dumps([{"name": "tone", "words": list("abc")}, NUMBER | {"std": "1"}])),
    "too many words": ({}, set(), json.dumps([{"name": "tone", "words": list(map(str, range(2000)))}])),
    "deep": ({}, set(), "[" * 10**5),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_that_others_made_is_refused_in_one_sentence(harm, codes, tmp_path):
    path = written(codes, tmp_path)
    added, removed, labels = HARMS[harm]
    tensors = {name: tensor for name, tensor in (load_file(path) | added).items() if name not in removed}
    facts = [{"name": "tone", "low": "a", "high": "b", "accuracy": 1, "heldout": 1}]
    kept = json.dumps([{"name": "tone", "words": ["blue", "green", "red"]}, NUMBER])
    save_file(tensors, path, {"directions": json.dumps(facts), "labels": kept if labels is None else labels})
    with pytest.raises(ValueError, match=rf"^[^\n]*{DIRECTIONS_FILE} (cannot be read|has values|is for another code)"):
        read_labelled_codes(tmp_path, CONFIG)


def test_a_matrix_that_nobody_fitted_still_gives_a_gaussian(tmp_path):
    labels = (WordLabel("tone", ("a", "b")), NumberLabel("age", 0.0, 1.0, -1.0, 1.0))
    root = torch.randn(9, 9, generator=torch.Generator().manual_seed(0)) * 100
    for matrix in (root, torch.zeros(9, 9)):
        written(LabelledCodes(labels, torch.zeros(9), matrix), tmp_path)
        mean, root = read_labelled_codes(tmp_path, CONFIG).given({"tone": "a", "age": 0.5})
        assert mean.isfinite().all() and root.isfinite().all()
