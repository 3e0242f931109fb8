# Every target works from a fresh clone: it first builds what it needs, if that is missing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BENCH_DATA ?=
TEST_PROCESSES ?= 2
SPACE ?= build/space
MODELS ?=
API_MODULES = $(subst /,.,$(patsubst %/__init__,%,$(basename $(shell find hf_vae -name '*.py' | sort))))
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test test-slow test-faults mutants smoke bench bench-gpu space model-code api style clean

install: .venv/installed         ## install what training and the Space need; then: source .venv/bin/activate
	@echo "Installed. Now: source .venv/bin/activate"

demo: .venv/installed            ## start the Space with the models in model_cards/: http://127.0.0.1:7860
	$(BIN)/python space/app.py

test: .venv/dev.installed        ## all tests except the slow ones, their line and branch coverage, and the 40 slowest
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(TEST_PROCESSES) --dist worksteal --cov --cov-report=term --durations=40

test-slow: .venv/dev.installed   ## the slow tests; those of the Space one at a time, because they measure time and memory
	$(BIN)/python -m pytest -m slow --ignore tests/space --numprocesses $(TEST_PROCESSES) --dist worksteal --durations=40
	$(BIN)/python -m pytest -m slow tests/space

test-faults: .venv/dev.installed ## hostile files, weights and data, failing disks, kills; prints the table of SECURITY.md
	$(BIN)/python tests/faults.py

mutants: .venv/dev.installed     ## change the losses, metrics and checkpoints one operator at a time: the tests must notice
	$(BIN)/mutmut run

smoke: .venv/dev.installed       ## train, kill, resume, evaluate, card, from_pretrained, Space: in about a minute
	$(BIN)/python -m pytest -m "not slow" tests/test_end_to_end.py

bench: .venv/dev.installed       ## the tables of docs/benchmarks.md; BENCH_DATA=folder uses real images, not drawings
	$(BIN)/python benchmarks/throughput.py $(if $(BENCH_DATA),--train_data_dir $(BENCH_DATA))
	$(BIN)/python -m benchmarks.update
	$(BIN)/python benchmarks/time_to_quality.py $(if $(BENCH_DATA),--train_data_dir $(BENCH_DATA))
	$(BIN)/python benchmarks/space.py
	$(BIN)/python benchmarks/startup.py

bench-gpu: .venv/dev.installed   ## the table of a GPU, in less than ten minutes
	$(BIN)/python -m benchmarks.gpu $(if $(BENCH_DATA),--train_data_dir $(BENCH_DATA))

space: .venv/installed           ## write a Space to SPACE=build/space; MODELS="runs/my-vae runs/my-gan" are shown, or model_cards/
	rm -rf $(SPACE)
	$(BIN)/hf-vae space $(MODELS) --output_dir $(SPACE)

model-code:                      ## rewrite the code beside the weights in model_cards/ from hf_vae/models
	$(BIN)/python -c "from pathlib import Path; from hf_vae import AutoGenerator; [AutoGenerator.class_of(config.parent).save_source(config.parent) for config in Path('model_cards').glob('*/config.json')]"

api: .venv/dev.installed         ## the API reference, from the docstrings: build/api/index.html
	$(BIN)/python -W "ignore:The module specification" -m pdoc --docformat google --output-directory build/api $(API_MODULES)

style: .venv/dev.installed       ## format, lint, check imports, types and prose; vale checks it too, if installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_prose.py
	if command -v vale >/dev/null; then vale --glob='!model_cards/*/README.md' *.md docs examples space model_cards; fi

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable ".[train,space]"
	touch $@

.venv/dev.installed: .venv/installed
	$(PIP) --editable ".[dev]"
	touch $@

clean:                           ## remove the environment; runs/ and model_cards/ stay
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .import_linter_cache mutants
