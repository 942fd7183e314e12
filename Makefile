# make demo | test | test-slow | lint | format | docs | clean. Each sets up .venv by itself; a second call starts at once.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
DEMO := runs/ru-emoji
DEMO_CONFIG := configs/ru.py:emoji
# The baseline of the demo: the text embeddings alone are regressed, no UNet is asked.
REGRESSION := --config.loss.noise=0 --config.loss.output=0 --config.loss.features=0 --config.loss.contrast=0 \
  --config.loss.conditioning=1 --config.data.cache_dir=$(DEMO)/cache

# One core a test process; a waiting torch thread sleeps instead of spinning; nothing is fetched from a model hub.
TEST_ENV := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE JAX_PLATFORMS=cpu HF_HUB_OFFLINE=1
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -p tests.no_skips -n 2 --dist worksteal

.PHONY: help demo test test-slow lint format docs clean

help:
	@echo "make demo       train a Russian adapter for the embedded model, judge it, draw samples (runs/ru-emoji)"
	@echo "make test       linters and every test but the full-size ones"
	@echo "make test-slow  the full-size tests"
	@echo "make lint       ruff, mypy, import layers"
	@echo "make format     ruff format and the fixes that ruff makes by itself"
	@echo "make docs       the documentation's site, in build/site"
	@echo "make clean      remove caches and the environment; runs/ stays"

demo: .venv/base.stamp
	$(BIN)/python -m pea_jax.train --config $(DEMO_CONFIG) --workdir $(DEMO)
	$(BIN)/python -m pea_jax.train --config $(DEMO_CONFIG) --workdir $(DEMO)-regression $(REGRESSION)
	$(BIN)/python -m pea_jax.evaluate --adapter $(DEMO)/adapter --compare regression=$(DEMO)-regression/adapter \
	  --config $(DEMO_CONFIG) --out $(DEMO)/report.json

test: lint
	$(PYTEST) -m "not slow"

test-slow: .venv/dev.stamp
	$(PYTEST) -m slow --timeout 3600

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check pea_jax tests tools configs benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format pea_jax tests tools configs benchmarks

docs: .venv/dev.stamp
	$(BIN)/mkdocs build

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

.venv/bin/python:
	@for python in python3 python3.13 python3.12 python3.11; do \
	  if command -v $$python >/dev/null && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "creating .venv with $$($$python --version)"; \
	    exec $$python -m venv .venv; \
	  fi; \
	done; \
	echo "error: pea_jax needs Python 3.11 or newer; none of python3, python3.13, python3.12, python3.11 is" >&2; exit 1

.venv/base.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing pea_jax (some minutes the first time)"
	@$(PIP) --editable .
	@touch $@

# torch comes first and alone: pip then takes the build that its configuration prefers (on a machine without a GPU, a CPU build).
.venv/dev.stamp: .venv/base.stamp
	@echo "installing what the tests need, PyTorch among it (some minutes the first time)"
	@$(PIP) torch==2.13.0
	@$(PIP) --editable ".[dev,torch]"
	@touch $@
