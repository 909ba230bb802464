# make run: set-up and the main example · make test: all tests · make check: lint, types, tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Set-up happens again when one of these changes; Python sources need none, the install is editable.
SOURCES := pyproject.toml constraints.txt $(shell find firmware/CMakeLists.txt firmware/include firmware/src firmware/infer firmware/port -name 'CMakeLists.txt' -o -name '*.[ch]')
STAMP := $(VENV)/.fedtiny-ready

.PHONY: run test lint check setup tools clean
.DEFAULT_GOAL := run

run: $(STAMP)
	$(BIN)/fedtiny run fashion-mini

test: tools $(STAMP)
	$(BIN)/pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

setup: $(STAMP)

# Cross compilers and emulators, for tests alone.
tools:
	sh scripts/tools.sh

$(STAMP): $(SOURCES)
	PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/setup.sh
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
	find host export tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
