# One command to see it, one to check it; both need Python >= 3.11, make and a package index, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests are spread over the processors; set JOBS=0 to run them in one process.
JOBS ?= auto

.PHONY: demo test lint fuzz dst faults bench profile protos format clean
# How long `make dst` begins new runs.
DST_MINUTES ?= 60

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Fairway needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/fairway demo $(DEMO_FLAGS)

test: $(VENV)/installed
	$(BIN)/pytest -n $(JOBS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python protos/generate.py --check
	$(BIN)/buf lint build/protos.binpb --config "$$(cat protos/buf.lint.json)"

# The hard rules on ten times as many random fleets as `make test` tries.
fuzz: $(VENV)/installed
	FAIRWAY_FUZZ_CASES=100000 $(BIN)/pytest tests/scenarios

# Three regions in virtual time under random faults: as many seeds of ten virtual minutes as fit into DST_MINUTES.
dst: $(VENV)/installed
	$(BIN)/python -m tests.faults.dst --minutes $(DST_MINUTES)

# Regions cut off, databases gone or stuck, at full length; writes the table in tests/faults/README.md.
faults: $(VENV)/installed
	$(BIN)/python -m tests.faults $(FAULTS_FLAGS)

bench: $(VENV)/installed
	$(BIN)/pip install -q --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m tests.bench $(BENCH_FLAGS)

# Flame graphs of Route over gRPC, of a rebuild and of a start, in build/profile.
profile: $(VENV)/installed
	$(BIN)/pip install -q --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m tests.bench.profiles

protos: $(VENV)/installed
	$(BIN)/python protos/generate.py

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build
