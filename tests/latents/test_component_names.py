"""Names of components beside the weights: kept, published, read again, and refused if they are no names."""

import json

import pytest
from conftest import tiny_model

from hf_vae import ImagePipeline
from hf_vae.latents.component_names import read_component_names, write_component_names
from hf_vae.run_folder import COMPONENTS_FILE, published_files


NAMES = {0: "Head turn, left to right", 3: "Brightness, dark to bright"}


def test_a_pipeline_has_the_names_that_were_kept_with_its_model(family, tmp_path):
    tiny_model(family).save_pretrained(tmp_path)
    assert ImagePipeline.from_pretrained(tmp_path).component_names == {}
    path = write_component_names(tmp_path, NAMES, {"Head turn": [[1.23456, 0.1], [1.5, 0.2]]})
    assert ImagePipeline.from_pretrained(tmp_path).component_names == NAMES
    assert path in published_files(tmp_path)
    assert json.loads(path.read_text())["effects"] == {"Head turn": [[1.235, 0.1], [1.5, 0.2]]}
    write_component_names(tmp_path, {})
    assert read_component_names(tmp_path) == {}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b'{"names": []}', b'{"names": null}', b'{"names": {"one": "x"}}', b"\xff\xfe"),
        *(b'{"names": {"-1": "x"}}', b'{"names": {"0": 3}}', b'{"names": {"0": ""}}', b'{"names": {"0": "a\\nb"}}'),
        b'{"names": {"0": "%s"}}' % (b"x" * 81),
        b"[" * 90_000,
        b" " * 100_001,
    ],
    ids=lambda content: repr(content[:24]),
)
def test_a_damaged_file_is_one_clear_error(content, tmp_path):
    (tmp_path / COMPONENTS_FILE).write_bytes(content)
    with pytest.raises(ValueError, match=COMPONENTS_FILE):
        read_component_names(tmp_path)
