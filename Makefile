# `make demo` tries it here, `make check` and `make check-engines` are what CI runs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo setup install check check-engines smoke-remote soak bench format schemas lock clean

# Everything that is needed to work on it.
setup: .venv/.test-installed
	@scripts/testbed/install

# The command on the PATH of whoever types this.
install:
	@scripts/install $(PYTHON)

demo: .venv/.installed
	@scripts/demo

check: setup
	@scripts/check

# The tests that start container engines and machines.
check-engines: setup
	@scripts/check --engines

# A compose sandbox on SANDBOXER_HOST, a host as OpenSSH knows it; on one of the testbed's when it is not set.
smoke-remote: .venv/.test-installed
	@$(BIN)/python scripts/smoke_remote

# The same tests with the full size of every sweep: hours, not minutes. The engines' part runs also when the first is red.
soak: export SANDBOXER_SOAK = 1
soak: .venv/.test-installed
	@scripts/testbed/install
	@red=0; for part in "" --engines; do $(BIN)/python scripts/run_tests $$part || red=1; done; exit $$red

bench: setup
	@$(BIN)/python scripts/bench

format: .venv/.test-installed
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

schemas: .venv/.installed
	@$(BIN)/python scripts/schemas

# Pin what was tested: ranges are in pyproject.toml, exact versions here.
lock: .venv/bin/python
	@$(BIN)/python -m pip install --quiet pip-tools
	@$(BIN)/pip-compile --quiet --extra test --strip-extras --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --no-header --no-annotate --output-file constraints.txt pyproject.toml

.venv/bin/python:
	@scripts/venv $(PYTHON)

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/.test-installed: .venv/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

clean:
	@rm -rf .venv .testbed .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
