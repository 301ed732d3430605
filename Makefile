PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
CORE := .venv/.core
DEV := .venv/.dev
DOCS := .venv/.docs

.PHONY: demo test imitate slow lint bench docs dist clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "$(PYTHON) is Python " + sys.version.split()[0] + "; 3.11 to 3.13 are allowed, such as make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

# constraints.txt pins every version; torch comes first, so that nothing else chooses its build.
$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(DEV): $(CORE)
	$(PIP) --editable '.[dev]'
	touch $@

# The tools alone: the API reference is read from the source, without importing it.
$(DOCS): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	touch $@

demo: $(CORE)
	$(BIN)/ossicle demo

# One process a core, one thread each: threads of several processes would wait for each other. A file's tests stay
# together, as they share what is dear to make, in the order of tests/conftest.py. Bytecode is kept, also where the
# environment says otherwise: the tests start many processes.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test: $(DEV)
	$(PYTEST)

# The folders that hold numbers to a bound, with the roundings of another processor, such as
# make imitate PROCESSOR="MKL_CBWR=AVX2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2". Without the last one torch
# refuses products in half precision on processors with AMX.
PROCESSOR ?= MKL_CBWR=COMPATIBLE ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2

imitate: $(DEV)
	$(PROCESSOR) $(PYTEST) tests/kernels tests/frontend tests/models tests/export tests/encoders tests/hear tests/tuning tests/test_bench.py

# Nightly work; writes benchmarks/results/slow.md.
slow: $(DEV)
	$(BIN)/python benchmarks/slow.py

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --config-file /dev/null tests/consumer.py
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/zizmor --quiet --offline .github

bench: $(DEV)
	$(BIN)/python benchmarks/passt.py

# The site, in site/.
docs: $(DOCS)
	$(BIN)/python scripts/make_benchmarks_page.py
	$(BIN)/mkdocs build --strict

# Sdist and wheel of both distributions, in dist/, each installed in an empty environment and run there.
dist:
	rm -rf dist
	$(PYTHON) scripts/make_packages.py dist

clean:
	rm -rf .venv build dist site
