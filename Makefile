# Every target sets up what it needs: a virtual environment in .venv, and for tests the system programs they use.
# As root the environment must be reachable for the unprivileged user that sensors are tested as, so it moves to
# /var/tmp when this folder is private.

SHELL := /bin/bash
PYTHON ?= $(shell tools/find-python)
VENV ?= $(shell tools/find-venv)
BIN := $(VENV)/bin

.PHONY: demo test lint bench format rules docs clean setup setup-demo setup-bench system-packages

demo: setup-demo
	@$(BIN)/nbsentinel demo

test: setup system-packages
	@tools/run-tests "$(BIN)" $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup-bench system-packages
	$(BIN)/python tests/benchmarks/run.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Files that are made from others and kept in the repository; tests compare them.
rules: setup
	$(BIN)/nbsentinel rules compile agent/nbsentinel/detect/rules/catalogue -o agent/nbsentinel/detect/rules/default_pack.json

docs: setup
	$(BIN)/nbsentinel config reference > docs/reference/configuration.md
	$(BIN)/nbsentinel rules pages -o docs/rules

setup: $(VENV)/.installed-lint
setup-demo: $(VENV)/.installed-demo
setup-bench: $(VENV)/.installed-bench

$(VENV)/.installed-%: pyproject.toml tools/install
	@tools/install "$(PYTHON)" "$(VENV)" $*

system-packages:
	@tools/system-packages

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* build dist
