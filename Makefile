PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint

setup: .venv/ready

.venv/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Trains R1's model 2 on the drawn faces that ship with the code, and evaluates it.
demo: setup
	$(BIN)/python -m fer_jax.main --config configs/demo.py --workdir runs/demo
	$(BIN)/python -m fer_jax.evaluate --workdir runs/demo --split test

# FER2013_DIR=<folder> adds the tests on the real data: csv/fer2013.csv, icml/, folders/ and ferplus/ in it.
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --durations=10 --cov=fer_jax --cov-report=term

lint: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
