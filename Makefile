# One command each, from a clean clone: `make quickstart`, `make check test`, `make reproduce`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
TRAIN := HF_HUB_OFFLINE=1 $(RUN) train_st.py
DATA ?= ../shared/data
export TOKENIZERS_PARALLELISM ?= false

.PHONY: quickstart check test reproduce data evidence readme clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# torch first and pinned: an open range would fetch gigabytes of GPU libraries
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

# Train on generated annual-report pages from the packaged encoder; no Hub, no data needed. Leaves ./finmatryoshka-quickstart/
quickstart: $(VENV)/.installed
	$(TRAIN) recipes/quickstart.yaml

# Lint, format and types. The link gives mypy the repository under its package's name.
check: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	mkdir -p .types && ln -sfn .. .types/finmatryoshka
	MYPYPATH=.types $(RUN) -m mypy

test: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(RUN) -m pytest

clean:
	rm -rf finmatryoshka-* .types build *.egg-info
