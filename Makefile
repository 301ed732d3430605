PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
CORE := .venv/.core
DEV := .venv/.dev

.PHONY: demo test lint bench clean

# constraints.txt pins every version; torch comes first, so that nothing else chooses its build.
$(CORE): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(DEV): $(CORE)
	$(PIP) --editable '.[dev]'
	touch $@

demo: $(CORE)
	$(BIN)/ossicle demo

# One process a core, one thread each: threads of several processes would wait for each other.
test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(DEV)
	$(BIN)/python benchmarks/passt.py

clean:
	rm -rf .venv build dist
