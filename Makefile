PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs

demo: .venv/installed
	$(BIN)/python train.py hydra.run.dir=outputs/demo

test: .venv/installed lint
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/python docs/reference.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@
