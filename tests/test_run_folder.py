"""The names of a run folder's files are known in one place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

from hf_vae import run_folder
from hf_vae.models import loading


FILES = sorted(path for folder in ("hf_vae", "space") for path in (REPOSITORY / folder).rglob("*.py"))
MAY_NAME_THEM = {
    "hf_vae/run_folder.py",
    "hf_vae/models/loading.py",  # travels with the weights, so it cannot import the others' names
    "hf_vae/commands/draw.py",  # its own default output is called samples.png
}
NAMES = {
    *(run_folder.CONFIG_FILE, run_folder.PATHS_FILE, run_folder.SPLIT_FILE, run_folder.LOG_FILE),
    *(run_folder.FACTS_FILE, run_folder.METRICS_FILE, run_folder.CARD_FILE, run_folder.SAMPLES_FILE),
    *(run_folder.RECONSTRUCTIONS_FILE, *run_folder.TIMELAPSES, run_folder.DIRECTIONS_FILE, run_folder.PREVIEWS),
    *(run_folder.SLIDERS_FILE, run_folder.SWEEP_FILE),
    *(run_folder.MANIFEST, run_folder.AVERAGED, run_folder.PRIOR_CHECKPOINT, run_folder.CHECKPOINT_PREFIX),
}


def literals(file: Path) -> Iterator[str]:
    """The strings of a file that are no prose: those without a space."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            yield node.value


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_no_other_file_has_the_names_of_a_run_folder(file):
    if str(file.relative_to(REPOSITORY)) not in MAY_NAME_THEM:
        found = [text for text in literals(file) for part in text.split("/") if part in NAMES]
        assert not found, "take the constant from hf_vae.run_folder"


def test_what_travels_with_the_weights_has_the_same_names():
    assert set(loading.RUN_FILES) == {run_folder.LOG_FILE, run_folder.CONFIG_FILE}
    for unfinished in ("", run_folder.UNFINISHED):
        assert loading.CHECKPOINT_NAME.fullmatch(f"{unfinished}{run_folder.CHECKPOINT_PREFIX}12")
    assert run_folder.MANIFEST in literals(Path(loading.__file__))


def test_a_file_that_a_run_folder_lacks_is_named(tmp_path):
    with pytest.raises(ValueError, match="has no training.json: it is not a finished run of train_accelerate.py"):
        run_folder.read_json(tmp_path, run_folder.FACTS_FILE)
    run_folder.write_json(tmp_path, run_folder.FACTS_FILE, {"steps": 3})
    assert run_folder.read_json(tmp_path, run_folder.FACTS_FILE) == {"steps": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["training.json"]
