# Every target does its own set-up: the virtual environment in .venv is made and kept up to date by
# the rule for $(READY), with uv where it is there and with pip otherwise.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help run test lint type bench check docs clean

help:  ## Show what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(READY): pyproject.toml aiosvc/version.py
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV) && \
		uv pip install --quiet --python $(BIN)/python --editable . --group dev; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" && \
		$(BIN)/python -m pip install --quiet --editable . --group dev; \
	fi
	@touch $(READY)

run: $(READY)  ## Serve the demo at http://127.0.0.1:8000 (ARGS="--port 8001 --load 20")
	@exec $(BIN)/aiosvc demo $(ARGS)

test: $(READY)  ## Run the tests (ARGS="-k queue")
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY)  ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

type: $(READY)  ## Check types
	@$(BIN)/mypy

check: lint type test  ## Everything that must hold before a change lands

bench: $(READY)  ## Measure what it costs, beside its peers
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --quiet --python $(BIN)/python --group bench; \
	else \
		$(BIN)/python -m pip install --quiet --group bench; \
	fi
	@for each in benchmarks/*.py; do echo "== $$each"; $(BIN)/python $$each; done

docs: $(READY)  ## Check that the examples in README and docs/ run
	@$(BIN)/python -m pytest -q tests/test_readme.py

clean:  ## Remove what was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
