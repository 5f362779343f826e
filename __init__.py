"""FinMatryoshka: nested sentence embeddings and numeric heads for financial filings.

Data flows one way: ``training.data`` → the model of this folder → ``training.losses`` → ``training.trainer`` →
``eval`` → ``sentence_transformers_config``.
"""

from .configuration_finmatryoshka import FinMatryoshkaConfig
from .modeling_finmatryoshka import FinMatryoshkaModel, FinMatryoshkaOutput

__all__ = ["FinMatryoshkaConfig", "FinMatryoshkaModel", "FinMatryoshkaOutput"]
