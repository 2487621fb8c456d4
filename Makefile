# One verb per wish. `make run` needs Python 3.11 or newer and nothing else; `make test` is what CI runs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
PYTEST_ARGS ?=
# Processes of the test suite, one more than cores since tests mostly wait; a file's tests stay together: they share a server.
PROCESSES ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

.DEFAULT_GOAL := help
.PHONY: help run lint format types unit test services parity autobahn bench guard guard-baseline

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

# --- environment ---------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name it with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements-grpc.txt requirements-http3.txt requirements-dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.runtime

# --- the server ----------------------------------------------------------------------------------

run: $(VENV)/.runtime ## Start a server with a demo on HOST:PORT (127.0.0.1:8000)
	@HOST='$(HOST)' PORT='$(PORT)' $(BIN)/python -m project.run

# --- checks --------------------------------------------------------------------------------------

lint: $(VENV)/.dev ## Lint, formatting and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format and mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: $(VENV)/.dev ## Static types
	ENV_FILE= SECRET_KEY=types $(BIN)/mypy

unit: $(VENV)/.dev ## Tests that need nothing running
	$(BIN)/pytest -q tests/unit $(PYTEST_ARGS)

test: services lint types ## Everything but parity, autobahn and bench
	TEST_REQUIRE=all $(BIN)/pytest -n $(PROCESSES) --dist loadfile \
	  -m 'not parity and not autobahn and not bench' $(PYTEST_ARGS)

services: $(VENV)/.dev ## Install what tests need beside Python
	@tests/services.sh

parity: $(VENV)/.dev ## Record transcripts anew from the Centrifugo that CENTRIFUGO_BINARY names
	$(BIN)/pytest -m parity tests/parity $(PYTEST_ARGS)

autobahn: $(VENV)/.dev ## The WebSocket conformance suite
	$(BIN)/pytest -m autobahn $(PYTEST_ARGS)

bench: $(VENV)/.dev ## Measurements
	$(BIN)/pytest -m bench $(PYTEST_ARGS)

guard: $(VENV)/.dev ## Compare the hot paths' CPU time with the baseline
	$(BIN)/python -m tests.guard

guard-baseline: $(VENV)/.dev ## Make the guard's baseline anew
	$(BIN)/python -m tests.guard --write
