"""FinMatryoshka: nested sentence embeddings and numeric heads for financial filings.

The entry point ``train_st`` uses ``training`` (how it learns), that ``sentence_transformers_config`` (the folder), that
``eval`` (what is measured), that ``data`` (what is read); ``corpus`` is the model at work over many pages.

The classes load torch and transformers when they are first asked for, so that a command's ``--help`` need not.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .configuration_finmatryoshka import FinMatryoshkaConfig
    from .modeling_finmatryoshka import FinMatryoshkaModel, FinMatryoshkaOutput

__all__ = ["FinMatryoshkaConfig", "FinMatryoshkaModel", "FinMatryoshkaOutput"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = "configuration" if name == "FinMatryoshkaConfig" else "modeling"
    return getattr(importlib.import_module(f"{__name__}.{place}_finmatryoshka"), name)
