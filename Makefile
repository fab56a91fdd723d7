# make demo · make test · make lint · make docs: each sets up what it needs in .venv, also from a fresh clone.

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
VENV := .venv
BIN := $(VENV)/bin
RUN := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python
METADATA := pyproject.toml $(wildcard plugins/*/pyproject.toml) constraints.txt

.PHONY: demo test lint docs dist clean

demo: $(VENV)/.demo  ## explains two real models across frameworks, and reports it in demo-output/report.html
	$(BIN)/python examples/demo.py

test: $(VENV)/.tox-installed  ## every environment of tox.ini, two at a time, and how long each took
	@mkdir -p .tox && rm -f .tox/result.json
	$(BIN)/tox run-parallel --parallel 2 --result-json .tox/result.json $(TOX_ARGS); status=$$?; \
	test ! -f .tox/result.json || $(BIN)/python tools/minutes.py .tox/result.json; exit $$status

lint: $(VENV)/.tox-installed  ## style, types and who imports whom
	$(BIN)/tox run -e lint

docs: $(VENV)/.tox-installed  ## the documentation site, into site/
	$(BIN)/tox run -e docs
	@echo "The site is $(CURDIR)/site/index.html; with its search: $(BIN)/python -m http.server -d site"

dist: $(VENV)/.tox-installed  ## the wheel and the sdist of every distribution, into dist/
	$(BIN)/python tools/dist.py dist

clean:  ## removes everything that the other targets made
	rm -rf $(VENV) .tox demo-output site build dist .mypy_cache .ruff_cache .pytest_cache
	find cfi_core plugins tests examples benchmarks tools \( -name __pycache__ -o -name '*.egg-info' -o -name build \) -prune -exec rm -rf {} +
	rm -rf *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

# The stamps are newer than what they were made from, so that a second call installs nothing.
$(VENV)/.tox-installed: constraints.txt | $(BIN)/python
	$(RUN) -m pip install --quiet --no-compile tox build 'setuptools>=77'
	@touch $@

$(VENV)/.demo: $(METADATA) examples/requirements.txt | $(BIN)/python
	$(RUN) -m pip install --quiet --no-compile 'setuptools>=77' -r examples/requirements.txt
	$(RUN) tools/install.py --quiet --no-compile --no-build-isolation \
		cfi-captum cfi-tfkerasvis cfi-bridge cfi-cli 'cfi-translate[libraries]'
	@touch $@
