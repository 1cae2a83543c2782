# What CI runs, and what to run before sending a change.
PYTHON ?= python

.PHONY: check fix test test-all docs bench bench-frontier bench-testbed bench-throughput

check: ## style, types, floors, generated documentation
	ruff check .
	ruff format --check .
	mypy
	$(PYTHON) -m pytest -q tests/test_floors.py
	$(PYTHON) scripts/docs.py --check

fix: ## what tools can repair themselves
	ruff check --fix .
	ruff format .

test: ## the tests that need neither a GPU nor minutes
	$(PYTHON) -m pytest -n auto --dist loadfile

test-all: ## the slow ones too
	$(PYTHON) -m pytest -n auto --dist loadfile -m "not gpu"

docs: ## write the generated tables
	$(PYTHON) scripts/docs.py

bench: ## train every installed method on the embedded data, each into runs/METHOD
	for algo in $$($(PYTHON) -m xpo algos --json | $(PYTHON) -c "import json, sys; print(*(a['name'] for a in json.load(sys.stdin)))"); do \
		$(PYTHON) -m xpo train --algo $$algo --overwrite true || exit; \
	done

bench-frontier: ## reward against KL to the start on the testbed, with a figure; OPTIONS="--seeds 0", say
	OMP_NUM_THREADS=1 $(PYTHON) -m benchmarks.frontier $(OPTIONS)

bench-testbed: ## what the methods do to the known reward of the testbed; OPTIONS="--experiments raise --seeds 0", say
	OMP_NUM_THREADS=1 $(PYTHON) -m benchmarks.testbed $(OPTIONS)

bench-throughput: ## time, memory and losses beside TRL; PAIRS, LONG_PAIRS, PLAIN_PAIRS, SMALL_MODEL name your own, OPTIONS the rest
	$(PYTHON) -m benchmarks.throughput $(if $(PAIRS),--pairs $(PAIRS)) $(if $(LONG_PAIRS),--long-pairs $(LONG_PAIRS)) \
		$(if $(PLAIN_PAIRS),--plain-pairs $(PLAIN_PAIRS)) $(if $(SMALL_MODEL),--small-model $(SMALL_MODEL)) $(OPTIONS)
