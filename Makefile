# Everything happens in .venv, set up from constraints.txt the first time a target needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
CONFIG ?= projects/configs/surroundocc/surroundocc.py
MODEL ?= out/surroundocc_UNTRAINED_dl_opset11_runtime.onnx

.PHONY: help setup export test test-full lint bench clean

help:
	@echo "make export     set up, then export $(CONFIG) to out/ and verify it (EXPORT='--flags …' adds flags)"
	@echo "make test       set up, then lint, types and the fast tests"
	@echo "make test-full  the full-size tests too (minutes, 8 GiB)"
	@echo "make bench      measure the export, the exported file, a frame by stage, operators, predicting and scoring; full size included"

setup: $(READY)

# torch first: its plain CPU package is taken where one is found, and the pinned version either way
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "occport needs Python 3.11 or newer, got " + sys.version.split()[0] + "; give PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	$(PIP) torch==2.13.0+cpu || $(PIP) torch==2.13.0
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $(READY)

export: $(READY)
	$(BIN)/python tools/export.py --config $(CONFIG) $(EXPORT)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

test-full: $(READY)
	$(BIN)/python -m pytest -m full

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python bench/export.py
	$(BIN)/python bench/standard_forms.py
	$(BIN)/python bench/dataset.py
	$(BIN)/python bench/speed.py
	$(BIN)/python bench/kernels.py
	$(BIN)/python bench/growth.py
	$(BIN)/python bench/precision.py
	$(BIN)/python bench/bringup.py
	test -f $(MODEL) || $(MAKE) export
	$(BIN)/python bench/graph_tools.py $(MODEL)

clean:
	rm -rf $(VENV) out build .pytest_cache .mypy_cache .ruff_cache .hypothesis
