"""The tab that compares models: what is shown for samples, an upload and noise, and the rounds of the quiz."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from conftest import draw_picture
from PIL import Image

import app
from hf_vae.families import FAMILIES
from hf_vae.pictures import picture_grid
from published import PublishedModel, open_models
from tabs import compare, reconstruct


PLAIN = next(name for name, each in FAMILIES.items() if each.model.has_encoder and not each.has_discriminator)
GAN = next(name for name, each in FAMILIES.items() if each.has_discriminator and not each.model.has_encoder)


@pytest.fixture(scope="module", autouse=True)
def upload_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Makes the tests' temporary folders those that Gradio stores uploads in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.getbasetemp()))
        yield


@pytest.fixture(scope="module")
def models(published_models: Path) -> dict[str, PublishedModel]:
    return open_models({folder.name: folder for folder in sorted(published_models.iterdir())}).models


@pytest.fixture(scope="module")
def groups(models) -> compare.Groups:
    return compare.page_groups(models)


def only(models: dict[str, PublishedModel], *families: str) -> dict[str, PublishedModel]:
    """The models of these families."""
    return {f"faces-{name}": models[f"faces-{name}"] for name in families}


def opened(url: str) -> Image.Image:
    """The image in a data URL."""
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))


def upload_of(picture: Image.Image, folder: Path) -> dict:
    picture.save(folder / "upload.png")
    return {"path": str(folder / "upload.png")}


# ---- samples


def test_four_samples_of_each_model_are_under_the_lens_and_sixteen_are_measured(models, groups) -> None:
    lens, bars, spectrum, published = compare.show_samples(groups, "faces", 3)
    titles = [model.title for model in models.values()]
    assert [item["title"] for item in lens["items"]] == titles == list(published["model"])
    for item, model in zip(lens["items"], models.values(), strict=True):
        wanted = picture_grid(model.pipeline.sample(16, 3).images[:4], 2)
        assert opened(item["image"]).tobytes() == wanted.tobytes()
        assert model.title in item["alt"]
    assert [bar["title"] for bar in bars["items"]] == titles
    *_, sentence, _ = compare.compare_sharpness(groups, "faces", 3)
    assert all(f"{bar['number']:.2f}" in sentence for bar in bars["items"])  # as a program gets it
    assert "real images" in bars["note"]
    assert [curve["title"] for curve in spectrum["curves"]] == ["Real images", *titles]
    assert spectrum["curves"][0]["y"] == [1.0] * 8
    assert all(len(curve["y"]) == 8 and min(curve["y"]) > 0 for curve in spectrum["curves"])


def test_a_band_shows_how_much_real_images_differ(groups, monkeypatch) -> None:
    """Of a model that was measured before the spread was, the line is shown alone."""
    measured = groups["faces"][0].metrics
    band = [measured[f"laplacian_variance_real_percentile_{each}_ratio"] for each in (10, 90)]
    assert band[0] < 1 < band[1]
    for bars in (compare.show_samples(groups, "faces", 0)[1], compare.show_noise(groups, "faces", 9)[1]):
        assert [bar["band"] for bar in bars["items"]] == [band] * len(bars["items"])
        assert f"The band from {band[0]:.2f} to {band[1]:.2f} holds four of five" in bars["note"]
    first, *others = groups["faces"]
    monkeypatch.delitem(first.metrics, "laplacian_variance_real_percentile_90_ratio")
    bars = compare.show_samples(groups, "faces", 0)[1]
    assert [bar["band"] for bar in bars["items"]] == [None] + [band] * len(others) and "The band" in bars["note"]
    for model in others:
        monkeypatch.delitem(model.metrics, "laplacian_variance_real_percentile_10_ratio")
    bars = compare.show_samples(groups, "faces", 0)[1]
    assert {bar["band"] for bar in bars["items"]} == {None}
    assert "real images" in bars["note"] and "band" not in bars["note"]


def test_another_seed_gives_other_samples(groups) -> None:
    first, other = (compare.show_samples(groups, "faces", seed)[0]["items"] for seed in (0, 1))
    assert all(one["image"] != two["image"] for one, two in zip(first, other, strict=True))
    with pytest.raises(gr.Error, match="seed is -1"):
        compare.show_samples(groups, "faces", -1)
    with pytest.raises(gr.Error, match="dataset is 'cats'"):
        compare.show_samples(groups, "cats", 0)


# ---- an upload


def test_an_upload_is_beside_what_every_encoder_makes_of_it(models, groups, tmp_path: Path) -> None:
    upload = upload_of(draw_picture(1), tmp_path)
    lens, sentence, table = compare.show_reconstructions(groups, upload, "faces", "centre")
    encoders = [model for model in models.values() if model.has_encoder]
    assert [item["title"] for item in lens["items"]] == ["Your image (input)", *(each.title for each in encoders)]
    seen, first, *_ = (opened(item["image"]) for item in lens["items"])
    assert seen.tobytes() == encoders[0].pipeline.prepare(draw_picture(1)).tobytes()
    assert first.tobytes() == encoders[0].pipeline.reconstruct(draw_picture(1)).images[0].tobytes()
    assert sentence == "The largest centered square."
    assert list(table.columns) == reconstruct.COLUMNS
    assert list(table["model"]) == [each.title for each in encoders]
    *_, called = reconstruct.reconstruct({"faces": encoders}, upload, "faces", "centre")
    assert table.drop(columns="model").equals(called.drop(columns="model"))  # as a program gets it


def test_before_an_upload_a_sample_is_reconstructed_and_that_is_said(models, groups) -> None:
    lens, sentence, table = compare.show_reconstructions(groups, None, "faces", "centre")
    source = next(model for model in models.values() if model.has_discriminator and model.has_encoder)
    assert sentence == f"No image is uploaded yet. This input is a sample of {source.title}."
    samples = [picture.tobytes() for picture in source.pipeline.sample(16, 0).images]
    assert opened(lens["items"][0]["image"]).tobytes() in samples
    assert len(lens["items"]) == 1 + len(table) == 1 + sum(model.has_encoder for model in models.values())


def test_models_without_an_encoder_reconstruct_nothing_and_that_is_said(models) -> None:
    groups = compare.page_groups(only(models, GAN))
    lens, sentence, table = compare.show_reconstructions(groups, None, "faces", "centre")
    assert lens["items"] == [] and len(table) == 0
    assert sentence == "No model of Faces has an encoder, so none can reconstruct an image."


def test_the_face_is_offered_as_a_crop_only_where_faces_can_be_found() -> None:
    assert [cut for _, cut in reconstruct.cuts_for("cats")] == ["face", "centre", "none"]
    assert [cut for _, cut in reconstruct.cuts_for("simpsons")] == ["centre", "none"]


# ---- noise


def test_noise_raises_the_sharpness_of_one_image_and_of_no_other(groups) -> None:
    def shown(noise: float) -> tuple[list[str], list[float]]:
        lens, bars = compare.show_noise(groups, "faces", noise)
        assert [item["title"] for item in lens["items"]] == [bar["title"] for bar in bars["items"]]
        return [item["image"] for item in lens["items"]], [bar["number"] for bar in bars["items"]]

    (clean, same, other), (sharpness, unchanged, of_other) = shown(0)
    assert clean == same and sharpness == unchanged
    images, numbers = shown(30)
    assert images == [clean, images[1], other] and images[1] != clean
    assert numbers == [sharpness, numbers[1], of_other]
    assert shown(15)[1][1] < numbers[1] and numbers[1] > sharpness
    with pytest.raises(gr.Error, match="noise is 61"):
        compare.show_noise(groups, "faces", 61)


def test_at_first_the_noise_makes_a_blurred_image_sharper_than_real_ones(models) -> None:
    real = float(models[f"faces-{PLAIN}"].metrics["laplacian_variance_real"])
    chosen = compare._noise_range(list(models.values()))
    assert 0 < chosen["value"] < chosen["maximum"] <= compare.MAX_NOISE
    for sharpness in (real / 100, real / 30):
        models[f"faces-{PLAIN}"].metrics["laplacian_variance_real"] = sharpness
        noise = compare._noise_range([models[f"faces-{PLAIN}"]])["value"]
        assert noise**2 * 20 > sharpness
    models[f"faces-{PLAIN}"].metrics["laplacian_variance_real"] = real


# ---- the quiz


def rounds_of(models: dict[str, PublishedModel], picture: dict | None = None) -> list[dict]:
    return compare.first_quiz(compare.page_groups(models), picture, "faces", "centre")["rounds"]


def test_the_quiz_has_ten_rounds_of_two_kinds(models) -> None:
    rounds = rounds_of(models)
    assert [len(each["images"]) for each in rounds] == [2, 1] * 5
    assert all(len(each["choices"]) == 2 and each["answer"] in (0, 1) for each in rounds)
    assert {each["answer"] for each in rounds} == {0, 1}
    assert {tuple(each["choices"]) for each in rounds} == {("A", "B"), (FAMILIES[PLAIN].title, FAMILIES[GAN].title)}
    images = [image for each in rounds for image in each["images"]]
    assert len(set(images)) == len(images)


def test_the_answers_of_the_quiz_are_right(models) -> None:
    kinds = models[f"faces-{PLAIN}"], models[f"faces-{GAN}"]
    samples = {model: [each.tobytes() for each in model.pipeline.sample(16, 0).images] for model in models.values()}
    for number, each in enumerate(rounds_of(models)):
        images = [opened(image).tobytes() for image in each["images"]]
        if number % 2:
            assert images[0] in samples[kinds[each["answer"]]]
            assert kinds[each["answer"]].title in each["why"]
        else:
            originals = [picture for pictures in samples.values() for picture in pictures]
            assert [image in originals for image in images] == [each["answer"] == 1, each["answer"] == 0]
            assert each["why"].startswith(f"{'AB'[each['answer']]} is the reconstruction by ")


def test_the_quiz_is_the_same_for_everybody_until_it_is_played_again(models, groups) -> None:
    assert rounds_of(models) == rounds_of(models)
    again = compare.next_quiz(groups, None, "faces", "centre")["rounds"]
    assert len(again) == 10 and again != rounds_of(models)


def test_an_upload_is_in_the_first_rounds_of_the_quiz(models, tmp_path: Path) -> None:
    upload = upload_of(draw_picture(1), tmp_path)
    seen = models[f"faces-{PLAIN}"].pipeline.prepare(draw_picture(1))
    rounds = rounds_of(models, upload)
    assert len(rounds) == 10
    assert seen.tobytes() in [opened(image).tobytes() for image in rounds[0]["images"]]
    assert all(seen.tobytes() != opened(image).tobytes() for each in rounds[1:] for image in each["images"])


@pytest.mark.parametrize(
    ("families", "kinds"), [((PLAIN,), [2] * 10), ((GAN,), []), ((PLAIN, GAN), [2, 1] * 5)], ids=str
)
def test_the_quiz_has_the_rounds_that_are_possible(models, families, kinds) -> None:
    assert [len(each["images"]) for each in rounds_of(only(models, *families))] == kinds


# ---- one's own models


@pytest.mark.parametrize(
    ("families", "title"),
    [
        ((PLAIN,), "Measure sharpness"),
        ((GAN,), "Measure sharpness"),
        ((PLAIN, GAN), f"GAN vs {FAMILIES[PLAIN].title}"),
        (tuple(FAMILIES), f"GAN vs {FAMILIES[PLAIN].title}"),
        (tuple(name for name, family in FAMILIES.items() if family.has_discriminator), "Compare models"),
        (tuple(name for name, family in FAMILIES.items() if not family.has_discriminator), "Compare models"),
    ],
    ids=str,
)
def test_the_tab_names_what_there_is_to_compare(models, families, title) -> None:
    chosen = only(models, *families)
    demo = app.build_demo({name: model.folder for name, model in chosen.items()})
    (tab,) = [block for block in demo.blocks.values() if getattr(block, "id", None) == "compare"]
    assert tab.label == title == compare.tab_title(chosen)
    said = " ".join(block.value for block in tab.children if isinstance(block, gr.Markdown) and block.value)
    assert ("trained against a discriminator" in said) == title.startswith("GAN")


def test_a_model_whose_name_says_no_family_is_compared_by_its_class(models, tmp_path: Path) -> None:
    for family in (PLAIN, GAN):
        shutil.copytree(models[f"faces-{family}"].folder, tmp_path / f"my-{'ab'[family == GAN]}")
    mine = open_models({folder.name: folder for folder in sorted(tmp_path.iterdir())}).models
    assert compare.tab_title(mine) == f"GAN vs {FAMILIES[PLAIN].title}"


def test_models_of_different_datasets_can_be_compared_and_chosen_alone(models, tmp_path: Path) -> None:
    for data_set, family in (("cats", PLAIN), ("dogs", GAN)):
        shutil.copytree(models[f"faces-{family}"].folder, tmp_path / f"{data_set}-{family}")
    mine = open_models({folder.name: folder for folder in sorted(tmp_path.iterdir())}).models
    groups = compare.page_groups(mine)
    assert {name: len(group) for name, group in groups.items()} == {"all models": 2, "cats": 1, "dogs": 1}
    for data_set, group in groups.items():
        assert len(compare.show_samples(groups, data_set, 0)[0]["items"]) == len(group)
        assert compare.show_noise(groups, data_set, 10)[0]["items"]
        compare.show_reconstructions(groups, None, data_set, "centre")
        compare.first_quiz(groups, None, data_set, "centre")


def test_the_opening_leaves_an_image_that_arrives_meanwhile_to_its_own_event():
    def answer(groups, picture, data_set):
        return picture, data_set

    opening = compare._unless_uploaded(answer)
    assert opening({}, None, "cats") == (None, "cats")
    assert opening({}, {"path": "photo.png"}, "cats") == gr.skip()
