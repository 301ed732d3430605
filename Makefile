PYTHON ?= python3
BIN := .venv/bin
MARK := .venv/.installed

.PHONY: demo test lint bench clean

# The CPU build of torch where the index offers one; constraints.txt pins every version.
$(MARK): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(MARK)

demo: $(MARK)
	$(BIN)/ossicle demo

# One process a core, one thread each: threads of several processes would wait for each other.
test: $(MARK)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

lint: $(MARK)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(MARK)
	$(BIN)/python benchmarks/passt.py

clean:
	rm -rf .venv build dist
