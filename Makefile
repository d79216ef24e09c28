# make install  .venv with nemo-run and what develops it
# make demo     the main job on real handwritten digits, on this machine
# make test     everything this machine can test
# make test-fast   the tests of the inner loop
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TWO_FOLDERS_AT_A_TIME := -n 2 --dist loadscope

.PHONY: demo test test-fast lint format install clean

install: $(STAMP)

$(STAMP): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev,demo]'
	touch $@

demo: $(STAMP)
	$(BIN)/python docs/examples/digits/run.py demo

test: lint
	$(BIN)/pytest $(TWO_FOLDERS_AT_A_TIME)

test-fast: $(STAMP)
	$(BIN)/pytest $(TWO_FOLDERS_AT_A_TIME) -m 'not slow and not multiprocess'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo runs .pytest_cache .mypy_cache .ruff_cache
