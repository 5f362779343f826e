"""Trains FinMatryoshka: arguments → stages (train, average, refit) → one folder, evaluated and published if asked.

    python train_st.py                                          # nomic-embed-text-v1.5 on FinQA, from the Hub
    python train_st.py --backbone minilm --data sample          # packaged encoder, generated pages, no Hub
    python train_st.py recipes/minilm.yaml                      # every argument and stage from one file
    accelerate launch --num_processes 2 train_st.py ...         # several processes
    python train_st.py search recipes/search.yaml --trials 8    # hyper-parameters (docs/search.md)

``python train_st.py --help`` lists the arguments (training/arguments.py documents them); docs/training.md tells the
rest.
"""

import os
import shlex
import sys

from finmatryoshka.data.files import WriteError
from finmatryoshka.data.schema import DataError
from finmatryoshka.eval.retrieval import EvaluationError
from finmatryoshka.sentence_transformers_config.folder import FolderError
from finmatryoshka.training.arguments import ArgumentError
from finmatryoshka.training.backbone import BackboneError
from finmatryoshka.training.checkpoints import StorageError
from finmatryoshka.training.recipe import read_stages
from finmatryoshka.training.report import print_report
from finmatryoshka.training.run import run
from finmatryoshka.training.teacher import TeacherError

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


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["search"]:
            from finmatryoshka.training.search import main as search  # Optuna and its storage: an extra of their own

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


if __name__ == "__main__":
    sys.exit(main())
