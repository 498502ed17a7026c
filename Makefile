PYTHON ?= python3
BIN := .venv/bin
RUN := $(CURDIR)/$(BIN)

.PHONY: demo test test-all lint docs clean

.venv/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "make: $(PYTHON) is not Python 3.10 to 3.13; name one: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,export,docs]'
	touch $@

demo: .venv/.installed
	PATH="$(RUN):$$PATH" sh demo.sh

# Without cached bytecode, each process that a test starts compiles the packages again.
test test-all: export PYTHONDONTWRITEBYTECODE =

test: .venv/.installed
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: .venv/.installed
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.installed
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html

clean:
	rm -rf .venv build *.egg-info demo-run docs/_build
