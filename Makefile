# `make` lists the targets. Each runs a tool that can be used on its own.
# The first one that needs it creates .venv from requirements/dev.txt; there is no other set-up.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.made
# A fresh clone takes two minutes of a processor without the cache of an earlier one; what is in it is checked by its hash.
export MYPY_CACHE_DIR := $(or $(GALLEY_CACHE),$(HOME)/.cache/galley)/mypy
# Most tests wait for processes they started, so running more of them than there are cores saves time.
BESIDE := --dist loadfile --numprocesses
CORES := $(shell nproc)
TESTS_BESIDE := $(shell echo $$((4 * $(CORES) < 16 ? 4 * $(CORES) : 16)))
# Each of these may have a cluster of its own, which takes 1 GB of memory. With one more than cores, half of them are idle.
E2E_BESIDE := $(shell echo $$((2 * $(CORES) < 6 ? 2 * $(CORES) : 6)))
# Files of tests that compute run beside those that wait; by default, xdist begins with the files that have the most tests.
IN_ORDER := --no-loadscope-reorder -p tests.support.side_by_side
# A test that takes that long hangs; on a busy machine those that do not take their time.
COUNT := -p tests.support.count --timeout 300
AGAIN := -rp --last-failed --last-failed-no-failures none
E2E := e2e tools/cluster/testcluster/tests
# Files of tests of which `make test` runs a part, and the test that fails until all were run.
DEEP := tests/unit/protocol tests/unit/examples/test_folder.py
RECORDED := tests/unit/protocol/test_protocol_model.py::test_the_models_are_those_whose_large_scenarios_were_explored
# Tests start hundreds of Python processes. Where PYTHONDONTWRITEBYTECODE is set, each would compile our modules again.
OURS := sdk operator worker-image gateway local tools/cluster tests/support tests/integration/galley_worker
LOCK := uv pip compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
	--no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster test test/deep test/again test-times excepts check check/lint check/format check/types check/layers check/words fix unit integration lint-chart sbom licences audit \
	large mutants faults simulate storm storm-graphs storm-topics scale-ins scale-ins/pods storm-hostile hostile alerts connections drill e2e e2e/again e2e/build cluster/up cluster/down bench bench-cluster bench-idle bench-prediction bench-rivals bench-sizing docs docs/check gen verify lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9\/-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Run 38 tasks on this machine; workers scale from zero and back to zero
	@$(BIN)/galley dev examples/folder/queues.yaml examples/folder/tasks.yaml --until-done --fresh

demo-cluster: e2e/build ## Run 19 tasks on a cluster created for it; KEEP=1 leaves it running
	@$(BIN)/python -m e2e.demo

compiled: $(STAMP)
	@$(BIN)/python -m compileall -q $(OURS)

test: compiled ## Run the checks and all tests that need no cluster; ends with "N passed, N failed"
	@$(BIN)/python -m pytest -q $(COUNT) $(BESIDE) $(TESTS_BESIDE) $(IN_ORDER) tests

test/deep: compiled ## Run what `make test` leaves out because it repeats the same in other ways; see tests/README.md
	@GALLEY_DEEP=1 $(BIN)/python -m pytest -q $(COUNT) $(BESIDE) $(TESTS_BESIDE) $(IN_ORDER) --deselect $(RECORDED) $(DEEP)
	@$(BIN)/python -m tests.unit.protocol.explored

test/again: $(STAMP)
	@$(BIN)/python -m pytest -q $(COUNT) $(AGAIN) tests

test-times: compiled ## List the files of tests that take the most processor time
	@$(BIN)/python -m pytest -q -p tests.support.processor_time $(BESIDE) 2 $(IN_ORDER) tests

excepts: $(STAMP) ## Run the tests, and list the `except` branches and `suppress` calls that none entered
	@rm -rf .excepts; mkdir .excepts
	@env -u PYTHONDONTWRITEBYTECODE PYTHONPATH=$(CURDIR)/tests/support/excepts PYTHONPYCACHEPREFIX=$(CURDIR)/.excepts/compiled \
		$(BIN)/python -m pytest -q $(COUNT) $(BESIDE) $(TESTS_BESIDE) $(IN_ORDER) tests
	@$(BIN)/python -m tests.support.excepts

check: check/lint check/format check/types check/layers check/words ## Check lint, format, types, layers, words

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

fix: $(STAMP) ## Fix what ruff can fix, and format
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

unit: compiled ## Run the unit tests
	@$(BIN)/python -m pytest -q tests/unit tests/typing

integration: compiled ## Run the tests against a real nats-server and real workers
	@$(BIN)/python -m pytest -q $(BESIDE) $(TESTS_BESIDE) tests/facts tests/conformance tests/integration

large: $(STAMP) ## Stream a file of 1 GiB through a queue's objects, in less than 200 MB of memory
	@$(BIN)/python -m tests.support.large_file 1024 200

mutants: $(STAMP) ## Make small mistakes in the code, and show which test finds each; NAMES=... for some
	@$(BIN)/python -m tests.mutants $(NAMES)

simulate: $(STAMP) ## Play schedules of the worker's logic in memory, faults at random; SEEDS=0-9999
	@$(BIN)/python -m tests.simulation $(SEEDS)

faults: $(STAMP) ## Kill, freeze and delay processes, and lose answers, at each named place
	@GALLEY_FAULTS=all $(BIN)/python -m pytest -q tests/failpoints

storm: $(STAMP) ## Run 20,000 tasks while workers, handlers and the broker are killed and frozen 120 times
	@GALLEY_STORM_TASKS=20000 GALLEY_STORM_FAULTS=120 $(BIN)/python -m pytest -q -s tests/storm/test_storm.py

storm-topics: $(STAMP) ## Publish 5,000 events to two topics while workers, who copy them, and the broker are killed 60 times
	@GALLEY_STORM_EVENTS=5000 GALLEY_STORM_TOPIC_FAULTS=60 $(BIN)/python -m pytest -q -s tests/storm/test_storm_of_topics.py

storm-graphs: $(STAMP) ## Run 2,000 workflows while workers, children, broker and operator die; then 2,000 on a server in memory
	@GALLEY_STORM_GRAPHS=2000 GALLEY_STORM_GRAPH_FAULTS=120 $(BIN)/python -m pytest -q -s tests/storm/test_storm_of_graphs.py
	@GALLEY_GRAPHS=2000 $(BIN)/python -m pytest -q -s --timeout 0 tests/unit/galley_worker/test_flows.py -k storm

lint-chart: e2e/build ## Run kube-score and checkov on the chart's defaults and on a worker
	@$(BIN)/python -m tools.supply lint-chart

sbom: e2e/build ## Write bills of materials and provenance of package and images into dist/sbom
	@$(BIN)/python -m tools.supply sbom

licences: $(STAMP) ## List the licences of what is in those bills; fails on one that is not allowed
	@$(BIN)/python -m tools.supply licences

audit: $(STAMP) ## Look for known vulnerabilities of what is in those bills
	@$(BIN)/python -m tools.supply audit

scale-ins: $(STAMP) ## Take 1,000 workers away under load while the autoscaler is killed at each step (half an hour)
	@GALLEY_SCALE_INS=1000 GALLEY_SCALE_IN_SECONDS=5400 $(BIN)/python -m pytest -q -s tests/storm/test_scale_in.py

scale-ins/pods: e2e/build ## Take 200 pods away under load, through rollouts, evictions and the operator's end (half an hour)
	@GALLEY_SCALE_INS=200 $(BIN)/python -m pytest -q -s e2e/test_scale_in.py

storm-hostile: $(STAMP) ## Have one tenant do all the harm it can for two minutes, beside others and behind them; shows what the other one's tasks wait
	@GALLEY_HOSTILE_SECONDS=60 $(BIN)/python -m pytest -q -s tests/storm/test_hostile.py
	@GALLEY_HOSTILE_APART=1 GALLEY_HOSTILE_SECONDS=60 $(BIN)/python -m pytest -q -s tests/storm/test_hostile.py

hostile: $(STAMP) ## Have the operator and all decoders meet 10,000 objects and messages that are nearly right
	@GALLEY_MUTANT_OBJECTS=10000 GALLEY_HOSTILE_MUTANTS=10000 GALLEY_UNKNOWN_FIELDS=200000 $(BIN)/python -m pytest -q -s --timeout 3600 tests/unit/galley_operator/test_hostile_objects.py \
	  tests/unit/galley_operator/test_faulty_callbacks.py tests/unit/galley/test_hostile_bytes.py \
	  tests/unit/galley/test_unknown_fields.py
	@GALLEY_HOSTILE_OBJECTS=3000 $(BIN)/python -m pytest -q -s --timeout 3600 e2e/api/test_hostile_objects.py

alerts: e2e/build ## Provoke the alerts one by one, with a real Prometheus, operator and broker; prints which fired
	@$(BIN)/python -m pytest -q -s e2e/api/alert_drill.py

drill: $(STAMP) ## Lose NATS's disk under load and restore it from a backup; prints what was lost and how long it took
	@GALLEY_DRILL_TASKS=20000 $(BIN)/python -m pytest -q -s tests/integration/backup/test_drill.py e2e/api/test_restore.py

e2e: e2e/build compiled ## Run the tests that need an API server or pods; ends with "N passed, N failed"
	@$(BIN)/python -m pytest -q $(COUNT) -p tests.support.by_stage $(BESIDE) $(E2E_BESIDE) $(E2E)

e2e/again: $(STAMP)
	@$(BIN)/python -m pytest -q $(COUNT) $(AGAIN) $(E2E)

e2e/build: $(STAMP) ## Build the programs and images of test clusters; minutes, once per version, kept in ~/.cache/galley
	@$(BIN)/testcluster build
	@$(BIN)/testcluster images
	@$(BIN)/python -m tools.supply tools

cluster/up: e2e/build ## Create a one-node cluster to try things on; it runs until cluster/down
	@$(BIN)/testcluster up

cluster/down: $(STAMP) ## Remove that cluster
	@$(BIN)/testcluster down

bench: $(STAMP) ## Run the benchmarks and count instructions (needs valgrind); writes into benchmarks/
	@$(BIN)/python -m benchmarks
	@$(BIN)/python -m benchmarks.instructions --keep

connections: $(STAMP) ## Open 10,000 connections to a gateway, and ask it something beside them
	@$(BIN)/python -m benchmarks.connections

bench-idle: e2e/build ## Measure what 100 queues at rest cost the operator (three minutes)
	@$(BIN)/python -m benchmarks.idle

bench-prediction: $(STAMP) ## Play shortened traces to real workers, and print what the simulator predicts beside (six minutes)
	@$(BIN)/python -m benchmarks.prediction

bench-rivals: $(STAMP) ## Compare Galley with other task queues (half an hour; installs them, Redis, RabbitMQ, PostgreSQL); writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks.rivals

bench-sizing: $(STAMP) ## Measure how a queue grows: 1,000,000 tasks that wait, 8 workers, memory (three minutes); writes docs/sizing.md
	@$(BIN)/python -m benchmarks.sizing

bench-cluster: e2e/build ## Benchmark the operator against a real API server; writes benchmarks/cluster.json
	@$(BIN)/python -m benchmarks.cluster

docs: $(STAMP) ## Build the documentation site into docs/_build/html; a broken link is an error
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

docs/check: $(STAMP) ## Read all of the documentation; a broken link is an error
	@$(BIN)/sphinx-build -q -W --keep-going -b dummy docs docs/_build/check

gen: $(STAMP) ## Update the generated documents
	@$(BIN)/python -m docs.generate

verify: $(STAMP) ## Fail if a generated document differs from the code
	@$(BIN)/python -m docs.generate --verify

lock: $(STAMP) ## Update the pinned versions in requirements/ (needs uv)
	@$(LOCK) --extra local --extra gateway --extra operator --extra worker --group dev pyproject.toml -o requirements/dev.txt
	@$(LOCK) -c requirements/dev.txt --extra worker pyproject.toml -o requirements/worker.txt
	@$(LOCK) -c requirements/dev.txt --extra operator pyproject.toml -o requirements/operator.txt
	@$(LOCK) -c requirements/dev.txt --extra gateway pyproject.toml -o requirements/gateway.txt
	@$(LOCK) -c requirements/dev.txt requirements/build.in -o requirements/build.txt
	@$(LOCK) requirements/lint.in -o requirements/lint.txt
	@$(LOCK) requirements/supply.in -o requirements/supply.txt
	@echo pillow | $(LOCK) -c requirements/dev.txt - -o examples/thumbnails/requirements.txt

clean: ## Remove .venv, caches, and the data of `galley dev`
	@test ! -x $(BIN)/testcluster || $(BIN)/testcluster down
	@rm -rf .venv .galley .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache examples/*/out
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements/dev.txt pyproject.toml tools/cluster/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Galley needs Python 3.11 or newer; make PYTHON=/path/to/it")'
	@echo "creating .venv (once, and again when requirements change)"
	@$(PYTHON) -m venv .venv
	@# The list is complete, so nothing has to be resolved; and all processors compile, where pip would use one.
	@$(BIN)/pip install --quiet --no-input --disable-pip-version-check --no-deps --no-compile --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@$(BIN)/pip install --quiet --no-input --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable tools/cluster
	@touch $@
