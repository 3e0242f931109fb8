"""Licences that the Hub takes."""

import json

import pytest
from conftest import REPOSITORY

from hf_vae.data.licenses import LICENSES, check_license
from hf_vae.data.presets import PRESETS


SHIPPED = sorted((REPOSITORY / "model_cards").rglob("*.json"))


@pytest.mark.parametrize("identifier", LICENSES)
def test_an_identifier_of_the_hub_is_taken_as_it_is(identifier):
    assert check_license(identifier) == identifier == identifier.lower()


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("CC BY 4.0", "cc-by-4.0"),
        ("CC-BY-4.0", "cc-by-4.0"),
        ("cc_by_nc_4.0", "cc-by-nc-4.0"),
        ("MIT", "mit"),
        ("MIT License", "mit"),
        ("Apache 2.0", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("Creative Commons Attribution 4.0", "cc-by-4.0"),
        ("GPLv3", "gpl-3.0"),
    ],
)
def test_another_spelling_is_refused_with_the_identifier(text, nearest):
    with pytest.raises(ValueError, match=rf"data_license={text} is not a licence identifier.*did you mean {nearest}"):
        check_license(text)


@pytest.mark.parametrize("text", ["", "proprietary", "my own terms", "https://example.com/terms"])
def test_what_is_like_no_identifier_is_told_of_other_and_unknown(text):
    with pytest.raises(ValueError, match="use other for .*, and unknown if no licence is stated"):
        check_license(text)


def test_what_is_shipped_has_licences_of_the_hub():
    stated = [preset.data_license for preset in PRESETS.values()]
    stated += [json.loads(file.read_text()).get("data", {}).get("data_license") for file in SHIPPED]
    assert "mit" in stated
    for identifier in filter(None, stated):
        check_license(identifier)
