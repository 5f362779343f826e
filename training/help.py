"""What ``train_st.py --help`` prints; it imports no torch, so that it is there at once."""

from collections.abc import Sequence
from typing import Any

from transformers import HfArgumentParser

from .arguments import DataArguments, ModelArguments, StageArguments, TrainingArguments

PROGRAM: dict[str, Any] = {"prog": "train_st.py", "usage": "train_st.py [RECIPE] [--NAME VALUE ...]"}
_REST = (
    "Every argument of sentence-transformers' SentenceTransformerTrainingArguments can be given as well: "
    "train_st.py --help all lists them."
)


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether a command line asks for the list of this project's arguments; `--help all` and the search have their
    own."""
    return bool({"-h", "--help"} & set(argv)) and "all" not in argv and "search" not in argv[:1]


def print_help() -> None:
    groups = (ModelArguments, DataArguments, TrainingArguments, StageArguments)
    # what the library asks for is a NewType of Any, which no class is
    HfArgumentParser(groups, epilog=_REST, **PROGRAM).print_help()  # type: ignore[arg-type]
