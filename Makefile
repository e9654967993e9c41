# Each target is one line over a tool that also works alone. `make` lists them.
# The first that needs it makes .venv from requirements/dev.txt; nothing else has to be set up.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.made
# Most tests wait for processes of their own, so more of them at once than there are cores end sooner; those
# on a cluster work more.
BESIDE := --dist loadfile --numprocesses
COUNT := -p tests.support.count
LOCK := uv pip compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
	--no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster test check check/lint check/format check/types check/layers check/words fix unit integration \
	storm e2e e2e/build cluster/up cluster/down bench bench-cluster docs gen verify lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9\/-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Real work on one machine: 38 declared tasks, workers from zero and back to zero
	@$(BIN)/galley dev examples/folder/queues.yaml examples/folder/tasks.yaml --until-done --fresh

demo-cluster: e2e/build ## The same on Kubernetes, on a cluster made for it; KEEP=1 leaves it running
	@$(BIN)/python -m e2e.demo

test: $(STAMP) ## Everything that needs no cluster: check, verify, all tests; ends with "N passed, N failed"
	@$(BIN)/python -m pytest -q $(COUNT) $(BESIDE) 4 tests

check: check/lint check/format check/types check/layers check/words ## Lint, format, types, layers, words

check/lint: $(STAMP)
	@$(BIN)/ruff check --quiet --output-format concise .

check/format: $(STAMP)
	@$(BIN)/ruff format --quiet --check .

check/types: $(STAMP)
	@$(BIN)/mypy --no-error-summary

check/layers: $(STAMP)
	@$(BIN)/lint-imports --no-logo

check/words: $(STAMP)
	@$(BIN)/python -m pytest -q --no-header tests/unit/test_words.py

fix: $(STAMP) ## Repair what ruff can repair, and format
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

unit: $(STAMP) ## Tests of pure parts, in seconds
	@$(BIN)/python -m pytest -q tests/unit tests/typing

integration: $(STAMP) ## Tests against a real nats-server and real worker processes
	@$(BIN)/python -m pytest -q $(BESIDE) 4 tests/facts tests/conformance tests/integration

storm: $(STAMP) ## 20,000 tasks while workers, handlers and the broker are killed and frozen 120 times
	@GALLEY_STORM_TASKS=20000 GALLEY_STORM_FAULTS=120 $(BIN)/python -m pytest -q -s tests/storm

e2e: e2e/build ## What needs an API server or pods, on a cluster made for it; ends with "N passed, N failed"
	@$(BIN)/python -m pytest -q $(COUNT) $(BESIDE) 3 e2e tools/cluster/testcluster/tests

e2e/build: $(STAMP) ## Build what test clusters are made of; minutes, once a version, kept in ~/.cache/galley
	@$(BIN)/testcluster build
	@$(BIN)/testcluster images

cluster/up: e2e/build ## A Kubernetes of one node to try things on, without Docker; stays until cluster/down
	@$(BIN)/testcluster up

cluster/down: $(STAMP) ## Take it away again
	@$(BIN)/testcluster down

bench: $(STAMP) ## Measure; writes benchmarks/results.json
	@$(BIN)/python -m benchmarks

bench-cluster: e2e/build ## Measure the operator against a real API server; writes benchmarks/cluster.json
	@$(BIN)/python -m benchmarks.cluster

docs: $(STAMP) ## Build the documentation site into docs/_build/html; a broken link is an error
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

gen: $(STAMP) ## Write the generated documents
	@$(BIN)/python -m docs.generate

verify: $(STAMP) ## Fail if a generated document differs from what the code says
	@$(BIN)/python -m docs.generate --verify

lock: $(STAMP) ## Choose all versions in requirements/ anew (needs uv)
	@$(LOCK) --extra local --extra operator --extra worker --group dev pyproject.toml -o requirements/dev.txt
	@$(LOCK) -c requirements/dev.txt --extra worker pyproject.toml -o requirements/worker.txt
	@$(LOCK) -c requirements/dev.txt --extra operator pyproject.toml -o requirements/operator.txt
	@$(LOCK) -c requirements/dev.txt requirements/build.in -o requirements/build.txt
	@echo pillow | $(LOCK) -c requirements/dev.txt - -o examples/thumbnails/requirements.txt

clean: ## Remove what was made here: .venv, caches, data of `galley dev`
	@test ! -x $(BIN)/testcluster || $(BIN)/testcluster down
	@rm -rf .venv .galley .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache examples/*/out
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements/dev.txt pyproject.toml tools/cluster/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Galley needs Python 3.11 or newer; make PYTHON=/path/to/it")'
	@echo "making .venv (once, and again when requirements change)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --no-input --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --no-input --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable tools/cluster
	@touch $@
