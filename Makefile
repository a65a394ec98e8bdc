# `make demo` and `make test` need only Python 3.11 or newer and make: they set up .venv by themselves.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.DELETE_ON_ERROR:

# The torch side needs 3.11; a device runs on 3.10 too.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
READY := .venv/ready
PICTURES := $(patsubst %,mmedge/builtin/scenes/pictures/%.png,one two three)

.PHONY: help demo test test-slow lint types format clean

help:
	@echo "make demo       export the built-in demonstration model, caption, ask, verify and profile"
	@echo "make test       the tests that are fast"
	@echo "make test-slow  the others"
	@echo "make lint       ruff and the layers"
	@echo "make types      mypy"
	@echo "make format     let ruff rewrite the code"
	@echo "make clean      remove what make made"

# Runs again whenever what it installs from has changed.
$(READY): pyproject.toml .ci/constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv found: set one with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c .ci/constraints.txt -e ".[dev]"
	touch $@

demo: $(READY)
	@mkdir -p demo
	$(BIN)/mmedge export builtin:scenes --target cpu --precision float32 -o demo/float32.bundle --force
	$(BIN)/mmedge export builtin:scenes --target cpu --precision int8 -o demo/int8.bundle --force
	$(BIN)/mmedge verify demo/int8.bundle
	$(BIN)/mmedge caption demo/int8.bundle $(PICTURES)
	$(BIN)/mmedge ask demo/int8.bundle $(lastword $(PICTURES)) "what colour is the circle?"
	@# Exit code 9 says that the machine is too busy to tell who is faster; the numbers are there all the same.
	$(BIN)/mmedge profile demo/float32.bundle demo/int8.bundle --backend onnxruntime,openvino --budget 60s \
	  -o demo/run.json --html demo/report.html --force || test $$? -eq 9

test: $(READY)
	$(BIN)/pytest

test-slow: $(READY)
	$(BIN)/pytest -m slow --ignore tests/families
	@# Hours of exports in one thread each: two at a time, those of one export in one process.
	$(BIN)/pytest -m slow -n 2 --dist loadgroup tests/families

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv demo dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
