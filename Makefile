# Everything a fresh machine with Python >= 3.10 needs; `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# one thread a process: threads that share cores wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

.PHONY: help venv demo test check lint clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.installed  ## make the virtual environment and install requirements.txt

demo: $(VENV)/.installed  ## run both stages and fine-tuning on built-in shapes (some minutes on a CPU)
	$(BIN)/python tools/demo.py

test: $(VENV)/.installed-dev  ## run all tests, a process for each core
	$(PYTEST)

check: lint  ## check the style and run the quick tests (under two minutes)
	$(PYTEST) -m "not slow"

lint: $(VENV)/.installed-dev  ## check the style
	$(BIN)/ruff check .

clean:  ## remove the virtual environment and caches; experiments and data stay
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# the stamps are older than a requirements file exactly when something has to be installed
$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' is not Python >= 3.10: install one, or name it, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' has no venv module: install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(INSTALL) -r requirements-dev.txt
	@touch $@
