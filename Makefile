# The same commands for a person and for CI. `make` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo unit test fuzz lint format bench samples screenshots clean

help: ## List these commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

# Both stamps are remade when the dependencies change, and only then.
$(VENV)/offline.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("cope-live needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || { echo "Setting up $(VENV) (once, a few minutes)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[offline]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/offline.stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[offline,platforms,train,dev]'
	@touch $@

demo: $(VENV)/offline.stamp ## Recognise the products of two sample streams, with all parts embedded; PAGE=1: on a page
	$(BIN)/cope-live watch samples/streams/*.mp4 --catalog samples/catalog.jsonl --events build/demo/events.jsonl \
	    $(if $(PAGE),--page)
ifndef PAGE
	$(BIN)/cope-live score build/demo/events.jsonl samples/streams/*.truth.jsonl
	@cat samples/next-steps.txt
endif

# More processes than two cores, since much of a test is waiting for a broker; one thread of PyTorch each, since more
# threads than cores wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 4

unit: $(VENV)/dev.stamp ## Run the tests of pure code: no trainings, towers, brokers
	$(PYTEST) -m "not slow" tests/unit

test: $(VENV)/dev.stamp ## Run all tests, with their coverage
	$(PYTEST) --cov --cov-report=term tests/unit tests/integration
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/e2e
	$(BIN)/python -m pytest tests/browser

# 3,600 examples a role, of nearly five records each: minutes.
fuzz: $(VENV)/dev.stamp ## Give the roles more than 100,000 records that nobody should send
	OMP_NUM_THREADS=1 FUZZ_EXAMPLES=3600 $(BIN)/python -m pytest --timeout 7200 tests/unit/fuzz

lint: $(VENV)/dev.stamp ## Style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev.stamp ## Speed, memory and latency of watch; JSON in build/
	$(BIN)/python -m benchmarks.watch

samples: $(VENV)/offline.stamp ## Make the sample streams again; needs npm for the Mandarin voice
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[offline,voices]'
	mkdir -p build/voices && cd build/voices && tar xzf "$$(npm pack --silent kokoro-js@1.2.1)"
	$(BIN)/cope-live simulate samples/catalog.jsonl --recipe samples/recipe-en.toml \
	    --out samples/streams/room-en.mp4 --truth samples/streams/room-en.truth.jsonl
	$(BIN)/cope-live simulate samples/catalog.jsonl --recipe samples/recipe-zh.toml --voices build/voices/package/voices \
	    --out samples/streams/room-zh.mp4 --truth samples/streams/room-zh.truth.jsonl

screenshots: $(VENV)/dev.stamp ## Make the pictures of docs/page.md again; needs a Chromium
	$(BIN)/python -m tests.browser.screenshots

clean: ## Remove the virtual environment and all caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
