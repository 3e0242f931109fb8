"""Makes the rounds of the quiz: which of two images is a reconstruction, and which of two kinds of models generated an
image."""

import random
from itertools import zip_longest
from typing import Any

from PIL import Image, ImageOps

from hf_vae.evaluation.metrics import laplacian_variance
from hf_vae.families import FAMILIES
from hf_vae.pipeline import PicturesOutput
from published import PublishedModel
from tabs.reconstruct import Reconstruction, reconstructions
from widgets import data_url


NUM_ROUNDS = 10
NUM_UPLOAD_ROUNDS = 2  # the upload as it is, and mirrored: in a third round it would be known
FIRST_IMAGE = 4  # earlier samples are shown on the page, beside the name of their model

Round = dict[str, Any]


def quiz_rounds(
    samples: dict[PublishedModel, PicturesOutput], titles: dict[str, str], upload: Image.Image | None, seed: int
) -> list[Round]:
    """Ten rounds: by turns a pair of an original and its reconstruction, and one sample of one of two kinds of models.
    If only one of the two is possible with these models, all rounds are of that kind; if none is, there are no rounds.

    Args:
        samples: At least `FIRST_IMAGE + NUM_ROUNDS` samples of each model.
        titles: What visitors read for each model's name.
        upload: An image of the visitor's, the original of the first rounds. Others are samples.
        seed: Decides all that is random.
    """
    chance = random.Random(seed)
    encoders = [model for model in samples if model.has_encoder]
    kinds = two_kinds(list(samples))
    num_pairs = NUM_ROUNDS // 2 if kinds else NUM_ROUNDS if encoders else 0
    pairs = []
    for number in range(num_pairs):
        encoder = encoders[number % len(encoders)]
        if upload is not None and number < NUM_UPLOAD_ROUNDS:
            original = ImageOps.mirror(upload) if number % 2 else upload
        else:
            original = samples[_source(samples, encoder, chance)].images[FIRST_IMAGE + number]
        pairs.append(_pair_round(chance.choice(reconstructions([encoder], original)), original, titles, chance))
    singles = [
        _single_round(kinds, samples, FIRST_IMAGE + number, titles, chance)
        for number in range(num_pairs, NUM_ROUNDS if kinds else 0)  # no image is in two rounds
    ]
    return [each for both in zip_longest(pairs, singles) for each in both if each is not None]


def two_kinds(models: list[PublishedModel]) -> tuple[PublishedModel, PublishedModel] | None:
    """A model that was trained without a discriminator and one that was trained against one, or None if there are no
    two such models. Families come in the order of `FAMILIES`, and of the second kind, one without an encoder first."""
    families = list(FAMILIES.values())
    known = sorted((model for model in models if model.family), key=lambda model: families.index(model.family))
    plain = [model for model in known if model.has_encoder and not model.has_discriminator]
    adversarial = sorted((model for model in known if model.has_discriminator), key=lambda model: model.has_encoder)
    return (plain[0], adversarial[0]) if plain and adversarial else None


def _source(samples: dict[PublishedModel, PicturesOutput], encoder: PublishedModel, chance: random.Random) -> Any:
    """The model whose sample another one reconstructs: a sharp one if there is one."""
    others = [model for model in samples if model != encoder]
    return chance.choice([model for model in others if model.has_discriminator] or others or [encoder])


def _pair_round(made: Reconstruction, original: Image.Image, titles: dict[str, str], chance: random.Random) -> Round:
    answer = chance.randrange(2)
    images = [made.model.pipeline.prepare(original)]
    images.insert(answer, made.output.images[0])
    title = made.name.replace(made.model.name, titles[made.model.name], 1)
    sentence = (
        f"{'AB'[answer]} is the reconstruction by {title}. Its sharpness is {made.sharpness:.2f} of the original's."
    )
    return {
        "question": "One image is an original, the other its reconstruction. Which is the reconstruction?",
        "images": [data_url(image) for image in images],
        "choices": ["A", "B"],
        "answer": answer,
        "why": sentence,
    }


def _single_round(
    kinds: tuple[PublishedModel, PublishedModel],
    samples: dict[PublishedModel, PicturesOutput],
    number: int,
    titles: dict[str, str],
    chance: random.Random,
) -> Round:
    answer = chance.randrange(2)
    model, names = kinds[answer], kind_titles(kinds)
    own, other = (
        laplacian_variance(samples[each].tensors) / float(each.metrics["laplacian_variance_real"])
        for each in (model, kinds[1 - answer])
    )
    return {
        "question": f"Which model generated this image: {names[0]} or {names[1]}?",
        "images": [data_url(samples[model].images[number])],
        "choices": names,
        "answer": answer,
        "why": f"It is a sample of {titles[model.name]}. Its sharpness is {own[number].item():.2f} of that of real "
        f"images; {names[1 - answer]} has {other.mean().item():.2f} on average.",
    }


def kind_titles(kinds: tuple[PublishedModel, PublishedModel]) -> list[str]:
    """What the two kinds of models are called: by the titles of their families."""
    return [model.family.title if model.family else model.title for model in kinds]
