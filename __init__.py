"""FinMatryoshka: nested sentence embeddings and numeric heads for financial filings.

The entry point ``train_st`` uses ``training`` (how it learns), that ``sentence_transformers_config`` (the folder), that
``eval`` (what is measured), that ``data`` (what is read); ``corpus`` is the model at work over many pages.
"""

from .configuration_finmatryoshka import FinMatryoshkaConfig
from .modeling_finmatryoshka import FinMatryoshkaModel, FinMatryoshkaOutput

__all__ = ["FinMatryoshkaConfig", "FinMatryoshkaModel", "FinMatryoshkaOutput"]
