# make quickstart   set up, then the whole chain on real code, on a CPU, in minutes
# make test         set up, then every test that needs no GPU and no network
# make check        lint, format, types, import contracts, unit and architecture tests
# make test-gpu     the tests that need a CUDA device
# make test-large   the tests that need 24 GiB of memory: a model of 2.7B in GPT-NeoX's old layout
# make test-compat  exported models under transformers 4.57, in an environment of its own
# make chaos        SIGKILL at a hundred instants while checkpoints are written, and at fifty of every stage of a corpus
# make clean        remove what quickstart made

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# The newest interpreter that the pins have wheels for; `make PYTHON=/path/to/python3.12 test` overrides it.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
BIN := .venv/bin
QUICKSTART ?=
# Two test files at a time: each test uses one thread a rank.
PARALLEL ?= -n 2 --dist loadfile
TESTS ?= tests
SELECT ?= not gpu and not chaos and not large

.PHONY: quickstart test check test-gpu test-large test-compat chaos clean docs

quickstart: .venv/base
	$(BIN)/python tools/quickstart.py $(QUICKSTART)

test: .venv/dev
	$(BIN)/python -m pytest -q $(PARALLEL) -m '$(SELECT)' $(TESTS)

check: .venv/dev
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi
	$(BIN)/python -m pytest -q $(PARALLEL) -m '$(SELECT) and not long' tests/unit tests/architecture

test-gpu: .venv/dev
	$(BIN)/python -m pytest -q -m gpu tests/gpu

test-large: .venv/dev
	$(BIN)/python -m pytest -q -m large tests/integration

test-compat: .venv/dev .venv-compat/base
	rm -rf build/compat
	$(BIN)/python -m tests.compat.export build/compat
	.venv-compat/bin/python tests/compat/load.py build/compat

.venv-compat/base: requirements/requirements-compat.txt
	$(PYTHON) -m venv .venv-compat
	.venv-compat/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

chaos: .venv/dev
	$(BIN)/python -m pytest -q -m chaos tests/integration tests/unit/evaluation/sandbox tests/unit/corpus

docs: .venv/base
	$(BIN)/python -m megatron.neox.config.reference --write

clean:
	rm -rf runs/quickstart

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed; this is " + sys.version.split()[0] + ". Name one: make PYTHON=/path/to/python3.12") if not (3, 11) <= sys.version_info < (3, 14) else None'
	$(PYTHON) -m venv .venv

.venv/base: .venv/bin/python requirements/requirements.txt
	@echo 'installing PyTorch and the rest into .venv: gigabytes, and minutes without a word'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/requirements.txt
	touch $@

.venv/dev: .venv/base $(wildcard requirements/*.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/requirements-dev.txt
	touch $@
