# `make` lists the targets. They need Python 3.11 or 3.12 and make; the tests against an EVM node also need npm.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
ANVIL_VERSION := 1.7.1
NODE_RUNS := .cache/npm/node_modules/@foundry-rs/anvil-*/bin/anvil --version 2>/dev/null | grep -qwF '$(ANVIL_VERSION)'
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
  if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then echo $$p; break; fi; done)

.DEFAULT_GOAL := help
.PHONY: help install install-dev node demo up down test lint check format faults soak mutants schema bench silent-loss screenshots docs-tables lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed (the range of Cryo's wheel): install one, or make PYTHON=/path/to/python3.12" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: $(VENV)/pyvenv.cfg requirements.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m trace_dagster.verify.native # compiles the proof, half a minute
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

install: $(VENV)/.installed ## Install the product and its dependencies into .venv

install-dev: $(VENV)/.installed-dev ## Install also the dependencies of tests and checks

node: ## Fetch the EVM node for the acceptance tests (without npm they are left out)
	@if $(NODE_RUNS); then exit 0; fi; rm -rf .cache/npm; mkdir -p .cache/npm; \
	if ! command -v npm >/dev/null; then why="npm is not installed"; \
	elif ! npm install --loglevel=error --no-audit --no-fund --ignore-scripts \
	  --fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=5000 \
	  --prefix .cache/npm @foundry-rs/anvil@$(ANVIL_VERSION) >.cache/npm.log 2>&1; then \
	  why="npm could not fetch the EVM node ($$(sed -nE 's/^npm (error|ERR!) //p' .cache/npm.log | head -n 1); see .cache/npm.log)"; \
	elif ! $(NODE_RUNS); then why="npm has no EVM node $(ANVIL_VERSION) that runs on this machine"; \
	else exit 0; fi; \
	if [ -n "$$TRACE_REQUIRE_NODE" ]; then echo "error: $$why, and TRACE_REQUIRE_NODE is set" >&2; exit 1; fi; \
	echo "$$why: the tests against a real EVM node are left out" >&2

demo: install ## Run the whole main job once on the devchain (KEEP=1 leaves the UI running)
	@$(BIN)/trace-lite demo $(if $(KEEP),--keep)

up: install ## Start the stack in the foreground
	@$(BIN)/trace-lite up

down: ## Stop the stack
	@test -x $(BIN)/trace-lite || { echo "error: trace-lite is not installed here: run make install" >&2; exit 1; }
	@$(BIN)/trace-lite down

test: install-dev node ## Run all tests; they start the real services that they need
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: install-dev ## Check format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## Run lint and the unit tests
	$(BIN)/python -m pytest -q tests/unit

format: install-dev ## Format the code and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

faults: install-dev ## Test crashes, zombies and lost replies, more of them than `make test` does
	TRACE_FAULTS_FULL=1 TRACE_FAULTS_EXAMPLES=200 $(BIN)/python -m pytest tests/faults tests/integration/test_commit.py tests/integration/test_sql_corpora.py -s

soak: install-dev ## Run the real stack under a chaos loop, 2,000 ranges (SOAK="--ranges 400 --minutes 10" for less)
	$(BIN)/python -m tests.faults.soak $(SOAK)

mutants: install-dev ## Run mutation tests of trace_dagster/verify, a quarter of an hour (docs/mutation.md)
	test -x .cache/mutants/bin/mutmut || { $(BIN)/python -m venv .cache/mutants && .cache/mutants/bin/pip install -q mutmut==3.8.1; }
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > $$(.cache/mutants/bin/python -c "import site; print(site.getsitepackages()[0])")/parent.pth
	TRACE_VERIFY_EXAMPLES=2 .cache/mutants/bin/mutmut run --max-children 2

schema: install-dev ## Write docs/schema.sql from the migrations
	$(BIN)/python -m tests.support.schema

bench: install-dev ## Measure the product relative to bare Cryo, ethereum-etl and a raw fetch: hours (BENCH=--quick: minutes)
	$(BIN)/python -m bench.run $(BENCH)
	$(BIN)/python -m bench.verification
	$(BIN)/python -m bench.verification --rounds 3 --latency 0.05
	$(BIN)/python -m bench.lake
	$(BIN)/python -m bench.query

silent-loss: install-dev ## Measure how many wrong rows bare Cryo keeps from a lying node: a table and docs/images/silent_loss.svg
	$(BIN)/python -m bench.silent_loss

screenshots: install-dev ## Take the screenshots in docs/images with a real browser (needs chromium)
	$(BIN)/python docs/screenshot.py
	$(BIN)/python docs/page_screenshot.py

docs-tables: install-dev ## Write the tables of docs/ that are generated from the code
	$(BIN)/python docs/variables.py
	$(BIN)/python docs/chains.py
	$(BIN)/python docs/datasets.py

lock: install-dev ## Resolve, pin and hash every dependency again
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-strip-extras --no-emit-index-url --quiet pyproject.toml --group build -o requirements.txt
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-strip-extras --no-emit-index-url --quiet pyproject.toml --group dev -o requirements-dev.txt

clean: ## Remove the environment and caches (the stack's state in .trace stays)
	-@[ -x $(BIN)/trace-lite ] && $(BIN)/trace-lite down
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
