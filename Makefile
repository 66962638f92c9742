# Headway. Every target makes .venv when it is missing or older than requirements.lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CLIENTS := .venv-clients
PEERS := .venv-peers
NAME ?= serving
JOBS ?= 3

.DELETE_ON_ERROR:
.PHONY: venv clients peers demo test soak lint bench clean

venv: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not on the path; name another: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

clients: $(CLIENTS)/.installed

# real clients of the serving protocol, as a user has them: in an environment of their own
$(CLIENTS)/.installed: tests/clients/requirements.lock
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

peers: $(PEERS)/.installed

# what the serving benchmark compares with, where pins conflict with ours
$(PEERS)/.installed: benchmarks/peers/requirements.lock
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

demo: venv
	$(BIN)/headway demo

test: venv clients
	$(BIN)/python -m pytest -m "not soak" --numprocesses $(JOBS) --no-loadscope-reorder $(TESTS)

soak: venv
	$(BIN)/python -m pytest -m soak $(TESTS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv
	$(if $(filter serving,$(NAME)),-$(MAKE) peers)
	$(BIN)/python -m benchmarks $(NAME) --json benchmarks/results/$(NAME).json

clean:
	@if test -x $(BIN)/headway; then $(BIN)/headway down; fi
	rm -rf $(VENV) $(CLIENTS) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
