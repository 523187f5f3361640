# Needs only python3.11 or later, git, make and a C compiler; everything else goes into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint quick bench fuzz validation clean

demo: $(VENV)/.installed
	$(BIN)/neupims-sim sweep configs/sweeps/quickstart.yaml --out results/quickstart
	$(BIN)/neupims-sim plot results/quickstart

test: lint
	$(BIN)/pytest -n auto

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The quick form of every experiment, into results/.
quick: $(VENV)/.installed
	set -e; for sweep in $$(find experiments -name sweep.yaml | sort); do \
		$(BIN)/neupims-sim experiment $$(dirname $$sweep) --quick; \
	done

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/run.py

# Hostile input, about half an hour; the counts go into docs/fuzzing.md.
fuzz: $(VENV)/.installed-dev
	cd tests && $(abspath $(BIN))/python -m fuzz --page

# REQUESTS=DIR: the request batches of the public NeuPIMs repository, for the section on whole blocks.
validation: $(VENV)/.installed
	$(BIN)/neupims-sim validate -o docs/validation.md $(if $(REQUESTS),--requests $(REQUESTS))

clean:
	rm -rf $(VENV) build *.egg-info

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# The stamps make pip run again only when the dependencies may have changed.
$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed
