# The front door. Every target makes the environment it needs; only python3, make and a package index are asked for.
#
#   make demo    the main job on real input: a census of Python's own standard library, a process per file
#   make test    lint, types, docs, the whole test suite, then its quick part on the other Pythons of this machine
#   make storm   500 kills of server, zygotes, tasks and clients, and a check of what everybody was told
#   make slowed  the tests of clients with one step after the other slowed: what depends on chance fails then
#   make docs    the user guide and reference, in build/docs/index.html
#   make check   lint and types only          make bench   Palpable beside its peers (takes long)

PYTHON ?= $(shell sh tools/find-python)
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
PYTEST_ARGS ?=
# A test process for each core: most tests wait for processes to start and end. What one of them starts, another one does
# not see as its own (`tests/support/processes.py`).
PYTEST = $(BIN)/python -m pytest -n auto --dist worksteal
BENCH_ARGS ?=
STORM_ARGS ?=
SLOWED_ARGS ?=

# Without its bytecode, every process of a checkout compiles what it imports: a server then takes twice as long to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-quick lint types format check docs bench storm slowed clean

demo: $(VENV)/.runtime
	$(BIN)/python examples/stdlib_census.py

test: lint types docs
	$(PYTEST) $(PYTEST_ARGS)
	$(BIN)/python tools/other_pythons.py

# What `tools/other_pythons.py` runs in an environment of each other Python: what is quick and where a version of Python
# can make a difference. The property tests are of code that decides, and takes nothing from the interpreter but arithmetic.
QUICK = tests/unit tests/contract tests/compat \
	$(patsubst %,tests/integration/test_%.py,isolation pickling subtasks what_comes_back worker_mode)
test-quick: $(VENV)/.test
	$(PYTEST) -m "not slow and not stress" $(QUICK) $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/basedpyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check: lint types

# Every warning is an error. All pages are read anew, since a docstring may have changed.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -d build/docs-doctrees docs build/docs

# Ends within an hour. The seed is printed; with it the same faults come again: make storm STORM_ARGS="--seed 7 --kills 50"
storm: $(VENV)/.test
	cd tests && ../$(BIN)/python -m stress.storm --report ../benchmarks/results/storm.md $(STORM_ARGS)

# Takes six minutes here. A part of the name of a step runs that one: make slowed SLOWED_ARGS="dials again"
slowed: $(VENV)/.test
	cd tests && ../$(BIN)/python -m stress.slowed $(if $(SLOWED_ARGS),"$(SLOWED_ARGS)")

# Makes environments of its own: .venv-bench for us and our peers, .venv-original for the first Palpable.
bench:
	$(PYTHON) -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# --- environments: each stamp is renewed when what it was made from has changed ---------------------------------

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt --upgrade pip
	$(PIP) install -c constraints.txt --group build
	$(PIP) install -c constraints.txt --no-build-isolation -e .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(PIP) install -c constraints.txt --group test
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) install -c constraints.txt --group dev
	@touch $@

$(VENV)/.docs: $(VENV)/.runtime
	$(PIP) install -c constraints.txt --group docs
	@touch $@
