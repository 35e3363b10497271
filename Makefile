# Everything a checkout needs. `make help` lists the targets.
#
# Only Python 3.11+, make and a package index are expected. uv is put into `.tools/` with pip, the project and its
# development tools into `.venv/` from `uv.lock`. Nothing is written outside this folder.

PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
# A lock file that changed, or a new checkout, makes the set-up run again; otherwise it is skipped.
SETUP_DONE := .venv/.setup-done
BENCHMARKS := .venv-benchmarks
BENCHMARKS_DONE := $(BENCHMARKS)/.setup-done

export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
# Warnings about a virtual environment that the person's shell has active are noise here.
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help

.PHONY: help
help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(SETUP_DONE) ## Install everything into .tools/ and .venv/

$(UV):
	@echo "Installing uv $(UV_VERSION) into .tools/"
	@if $(PYTHON) -m venv .tools >/dev/null 2>&1 && .tools/bin/python -m pip --version >/dev/null 2>&1; then \
		.tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"; \
	else \
		rm -rf .tools && $(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools "uv==$(UV_VERSION)"; \
	fi

$(SETUP_DONE): pyproject.toml uv.lock $(UV)
	@echo "Installing the project into .venv/"
	@$(UV) sync --locked --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" --compile-bytecode
	@touch $@

.PHONY: demo
demo: setup ## Repair a sample agency end to end and print what was repaired
	@$(BIN)/ghl-pipeline demo

.PHONY: dev
dev: setup ## Run the UI, the daemon and (without real clients) the sandbox until Ctrl-C
	@$(BIN)/ghl-pipeline dev

.PHONY: test
test: setup ## Run every test, the slow proofs included
	@$(BIN)/pytest -n 3 --dist worksteal

.PHONY: test-fast
test-fast: setup ## Run the tests without the slow proofs
	@$(BIN)/pytest -n 3 --dist worksteal -m "not slow"

.PHONY: screenshots
screenshots: setup ## Walk through the UI in a browser (chromium) and renew docs/images/
	@SCREENSHOTS=docs/images $(BIN)/pytest -q ghl_pipeline_tests/ui/test_walk.py

.PHONY: lint
lint: setup ## Check style, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(UV) lock --check --quiet

.PHONY: audit
audit: setup ## Ask OSV for known vulnerabilities of the dependencies; audit.toml lists what is accepted
	@$(BIN)/python -m ghl_pipeline_tests.supply_chain.audit

# CycloneDX, of what runs: without development tools, with the extras that the image has.
SBOM ?= dist/sbom.cyclonedx.json
.PHONY: sbom
sbom: $(UV) ## Write a software bill of materials (CycloneDX) to dist/
	@mkdir -p $(dir $(SBOM))
	@$(UV) export --locked --quiet --preview-features sbom-export --format cyclonedx1.5 --no-default-groups \
		--all-extras --no-emit-project --output-file $(SBOM) >/dev/null
	@echo "Wrote $(SBOM)"

.PHONY: format
format: setup ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: docs
docs: setup ## Write docs/reference/ anew from the code
	@$(BIN)/python -m ghl_pipeline_tests.docs.reference

# What the pipeline is compared with (dlt, DuckDB, GHL's SDK) goes into an environment of its own.
$(BENCHMARKS_DONE): pyproject.toml uv.lock $(SETUP_DONE)
	@echo "Installing the benchmarks into $(BENCHMARKS)/"
	@UV_PROJECT_ENVIRONMENT=$(BENCHMARKS) $(UV) sync --locked --quiet --no-default-groups --group benchmarks \
		--python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" --compile-bytecode
	@touch $@

.PHONY: bench
bench: $(BENCHMARKS_DONE) ## Measure everything in some minutes and renew benchmarks/results/
	@$(BENCHMARKS)/bin/python -m benchmarks.all --write

.PHONY: bench-full
bench-full: $(BENCHMARKS_DONE) ## Measure everything in full: 500,000 leads, more kills, GHL's own windows
	@$(BENCHMARKS)/bin/python -m benchmarks.all --full --write

.PHONY: clean
clean: ## Stop the embedded database and remove what running the project wrote
	@if [ -x $(BIN)/ghl-pipeline ]; then \
		for home in .ghl_pipeline/tests .ghl_pipeline/benchmarks; do \
			if [ -d $$home ]; then GHL_PIPELINE_HOME=$$home $(BIN)/ghl-pipeline db remove --yes; fi; \
		done; \
		$(BIN)/ghl-pipeline db remove --yes; \
	fi
	@rm -rf .ghl_pipeline .logs_queue logs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: distclean
distclean: clean ## Remove the installed tools too
	@rm -rf .venv .venv-benchmarks .tools
