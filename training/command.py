"""What ``train_st.py`` does with its arguments: runs them or the search, and says in one line what a user can mend."""

import os
import shlex
import sys

from ..data.files import WriteError
from ..data.schema import DataError
from ..eval.retrieval import EvaluationError
from ..sentence_transformers_config.folder import FolderError
from .arguments import ArgumentError
from .backbone import BackboneError
from .checkpoints import StorageError
from .recipe import read_stages
from .report import print_report
from .run import run
from .teacher import TeacherError

# What a user made or can mend: one line. Anything else is ours and keeps its traceback. (SearchError is an
# ArgumentError.)
ERRORS = (
    ArgumentError,
    BackboneError,
    DataError,
    EvaluationError,
    FolderError,
    StorageError,
    TeacherError,
    WriteError,
)


def main(argv: list[str]) -> int:
    """The exit status of ``python train_st.py ARGV``."""
    try:
        if argv[:1] == ["search"]:
            try:
                from .search import main as search  # Optuna and its storage: an extra of their own
            except ImportError as error:
                raise ArgumentError(f"search: {error.name} is not installed; pip install '.[search]'") from None
            search(argv[1:])
            return 0
        report = run(read_stages(argv), shlex.join(["python", "train_st.py", *argv]))
    except ERRORS as error:
        if os.environ.get("FINMATRYOSHKA_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    if report is not None:
        print_report(report)
    return 0
