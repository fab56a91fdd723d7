# make demo · make test · make lint: each sets up what it needs in .venv, also from a fresh clone.

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install --quiet --no-compile
PACKAGES := . plugins/cfi_torch plugins/cfi_tensorflow plugins/cfi_onnx plugins/cfi_captum plugins/cfi_tfkerasvis plugins/cfi_translate plugins/cfi_bridge
METADATA := $(addsuffix /pyproject.toml,$(PACKAGES)) constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/.demo  ## explains two real models across frameworks and writes demo-output/
	$(BIN)/python examples/demo.py

test: $(VENV)/.tox-installed  ## every environment of tox.ini
	$(BIN)/tox run $(TOX_ARGS)

lint: $(VENV)/.tox-installed  ## ruff and mypy only
	$(BIN)/tox run -e lint

clean:  ## removes everything that the other targets made
	rm -rf $(VENV) .tox demo-output build dist .mypy_cache .ruff_cache .pytest_cache
	find cfi_core plugins tests examples benchmarks \( -name __pycache__ -o -name '*.egg-info' -o -name build \) -prune -exec rm -rf {} +
	rm -rf *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

# The stamps are newer than what they were made from, so that a second call installs nothing.
$(VENV)/.tox-installed: constraints.txt | $(BIN)/python
	$(PIP) tox
	@touch $@

$(VENV)/.demo: $(METADATA) examples/requirements.txt | $(BIN)/python
	$(PIP) $(addprefix -e ,$(PACKAGES)) -r examples/requirements.txt
	@touch $@
