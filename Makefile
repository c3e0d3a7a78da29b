# Needs python3 (3.11 or newer), make and pip. Nothing is installed again unless pyproject.toml or the constraints changed.
#   make demo         install what is needed to run, then `vambrace demo`
#   make test         set-up and the test suite        make test-slow    the slow suites
#   make check        format, lint, types, floors, spelling, tests: the same as CI
#   make format       rewrite the code in house format make coverage     branch coverage, with the bar of tests/branches.py
#   make peers        .venv-peers, for benchmarks against other tools
#   make bench        every benchmarks/bench_*.py      make clean        remove what make made
# PIP_ARGS="..." is handed to every pip install (an index of CPU-only wheels, say); WORKERS=4 sets the test processes.

PYTHON   ?= python3
PIP_ARGS ?=
WORKERS  ?= 2

VENV  := .venv
BIN   := $(VENV)/bin
RUN   := $(VENV)/.installed-run
DEV   := $(VENV)/.installed-dev
PEERS := .venv-peers
PIP    = -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo install test test-slow coverage check lint style types floors spelling format peers bench clean

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(RUN)
	$(BIN)/vambrace demo

install: $(DEV)

test: $(DEV)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: $(DEV)
	$(BIN)/python -m pytest -m slow

coverage: $(DEV)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term --cov-report=json:build/coverage.json
	$(BIN)/python tests/branches.py build/coverage.json

check: lint test

lint: style types floors spelling

# Without a cache: the order of imports depends on which modules lie beside a file, and a cached verdict does not see a new one.
style: $(DEV)
	$(BIN)/ruff format --no-cache --check --quiet .
	$(BIN)/ruff check --no-cache --quiet .

types: $(DEV)
	$(BIN)/pyright

floors: $(DEV)
	$(BIN)/lint-imports

spelling: $(DEV)
	git ls-files -z | xargs -0 $(BIN)/codespell

format: $(DEV)
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format .

peers: $(PEERS)/.installed

bench: $(RUN)
	@python=$(BIN)/python; \
	if [ -e $(PEERS)/.installed ]; then python=$(PEERS)/bin/python; \
	else echo "no $(PEERS): comparisons with other tools are skipped (make peers)" >&2; fi; \
	for file in benchmarks/bench_*.py; do echo "== $$file" >&2; $$python "$$file" || exit 1; done

clean:
	rm -rf $(VENV) $(PEERS) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*
	find src -name '*.egg-info' -prune -exec rm -rf {} +
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# ---- environments --------------------------------------------------------------------------------------------

define make-venv
	@command -v $(PYTHON) >/dev/null || { echo "no '$(PYTHON)' on the PATH: Vambrace needs Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Vambrace needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $@
endef

$(VENV) $(PEERS):
	$(make-venv)

$(RUN): pyproject.toml constraints.txt | $(VENV)
	$(BIN)/python $(PIP) -c constraints.txt -e '.[onnx]'
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(VENV)
	$(BIN)/python $(PIP) -c constraints.txt -e '.[dev]'
	@touch $@ $(RUN)

# torchattacks asks for torchvision, which it never imports and which does not import beside a CPU-only torch: so it
# comes without its dependencies, and the ones that it does need are named here. ART needs packaging and does not say so.
$(PEERS)/.installed: pyproject.toml constraints-peers.txt | $(PEERS)
	$(PEERS)/bin/python $(PIP) -c constraints-peers.txt -e . requests tqdm packaging foolbox adversarial-robustness-toolbox \
	  opacus tensorizer pyrage
	$(PEERS)/bin/python $(PIP) -c constraints-peers.txt --no-deps torchattacks
	$(PEERS)/bin/python -c 'import art, foolbox, opacus, pyrage, tensorizer, torchattacks, vambrace'
	@touch $@
