# PYTHON=<interpreter> chooses another one; a name may be there and not start (a pyenv shim), so each is tried.
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3,$(shell $(name) -c '' 2>/dev/null && echo $(name))))
VENV ?= .venv
STACK := $(shell $(PYTHON) -c 'import sys; print("jax-0.10" if sys.version_info < (3, 12) else "jax-0.12")')
BIN := $(VENV)/bin
# What depends on the versions of Python and JAX; the rest is tested on one of the stacks.
STACK_TESTS := tests/test_faulty_releases.py tests/test_golden.py tests/test_losses.py tests/test_ops.py \
  tests/test_optim.py tests/test_steps.py tests/test_training_like_keras.py tests/models

.PHONY: setup demo test test-all coverage test-stack lint docs

setup: $(VENV)/ready-$(STACK)

$(VENV)/ready-$(STACK): setup.cfg constraints/$(STACK).txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints/$(STACK).txt --editable '.[dev]'
	$(BIN)/python -m fer_jax.pretrained --fetch blazeface || true
	touch $@

# Trains R1's model 2 on the drawn faces that ship with the code, and evaluates it.
demo: setup
	$(BIN)/python -m fer_jax.main --config configs/demo.py --workdir runs/demo
	$(BIN)/python -m fer_jax.evaluate --workdir runs/demo --split test

# Without TensorFlow, Keras and what takes long.
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --durations=10 -m "not full"

# FER2013_DIR=<folder> adds the tests on the real data: csv/fer2013.csv, icml/, folders/ and ferplus/ in it.
test-all: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --durations=20

# As test-all, and prints which lines no test runs; it takes a third longer.
coverage: setup
	$(BIN)/python -m pytest -n 2 --cov=fer_jax --cov-report=term-missing:skip-covered

# For a second stack: make test-stack PYTHON=<another interpreter> VENV=.venv-other
test-stack: setup
	$(BIN)/python -m pytest -n 2 --durations=10 $(STACK_TESTS)

lint: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site of docs/, in site/; a broken link or reference is an error.
docs: setup
	$(BIN)/python -m pip install --quiet --constraint constraints/$(STACK).txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
