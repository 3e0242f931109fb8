# Every target does what it needs from a fresh clone, and nothing twice.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BENCH_DATA ?=
TEST_PROCESSES ?= 2
SPACE ?= build/space
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test test-slow test-faults mutants smoke bench space model-code style clean

install: .venv/installed         ## the environment for training and the Space; then: source .venv/bin/activate
	@echo "Installed. Now: source .venv/bin/activate"

demo: .venv/installed            ## the Space in the browser, on the models in model_cards/
	$(BIN)/python space/app.py

test: .venv/dev.installed        ## all tests except the slow ones, their line and branch coverage, and the 40 slowest
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(TEST_PROCESSES) --dist worksteal --cov --cov-report=term --durations=40

test-slow: .venv/dev.installed   ## the slow tests; those of the Space one at a time, because they measure time and memory
	$(BIN)/python -m pytest -m slow --ignore tests/space --numprocesses $(TEST_PROCESSES) --dist worksteal --durations=40
	$(BIN)/python -m pytest -m slow tests/space

test-faults: .venv/dev.installed ## hostile files, weights and data, failing disks and kills: the table of SECURITY.md
	$(BIN)/python tests/faults.py

mutants: .venv/dev.installed     ## change the losses, metrics and checkpoints one operator at a time: the tests must notice
	$(BIN)/mutmut run

smoke: .venv/dev.installed       ## train, kill, resume, evaluate, card, from_pretrained, Space: in about a minute
	$(BIN)/python -m pytest -m "not slow" tests/test_end_to_end.py

bench: .venv/dev.installed       ## the tables of docs/benchmarks.md; BENCH_DATA=folder for real pictures instead of drawn ones
	$(BIN)/python benchmarks/throughput.py $(if $(BENCH_DATA),--train_data_dir $(BENCH_DATA))
	$(BIN)/python benchmarks/time_to_quality.py $(if $(BENCH_DATA),--train_data_dir $(BENCH_DATA))
	$(BIN)/python benchmarks/space.py

space:                           ## a folder that can be uploaded as a Space as it is: SPACE=build/space
	rm -rf $(SPACE)
	mkdir -p $(SPACE)/model_cards
	cp -r space/. hf_vae train_accelerate.py $(SPACE)
	cp -r $(patsubst %/config.json,%,$(wildcard model_cards/*/config.json)) $(SPACE)/model_cards
	find $(SPACE) -name __pycache__ -prune -exec rm -r {} +

model-code:                      ## the code beside the weights in model_cards/, anew from hf_vae/models
	$(BIN)/python -c "from pathlib import Path; from hf_vae import AutoGenerator; [AutoGenerator.class_of(config.parent).save_source(config.parent) for config in Path('model_cards').glob('*/config.json')]"

style: .venv/dev.installed       ## format, and check what formatting cannot mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable ".[train,space]"
	touch $@

.venv/dev.installed: .venv/installed
	$(PIP) --editable ".[dev]"
	touch $@

clean:                           ## remove the environment; runs/ and model_cards/ stay
	rm -rf .venv .pytest_cache .ruff_cache mutants
