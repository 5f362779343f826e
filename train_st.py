"""Trains FinMatryoshka: arguments → data → model → loss → trainer → evaluation → one folder.

    python train_st.py                                          # nomic-embed-text-v1.5 on FinQA, from the Hub
    python train_st.py --backbone minilm --data sample          # packaged encoder, generated pages, no Hub
    python train_st.py recipes/minilm.yaml                      # every argument from one file
    accelerate launch --num_processes 2 train_st.py ...         # several processes
    python train_st.py search recipes/search.yaml --trials 8    # hyper-parameters (training/search.py)

``python train_st.py --help`` lists the arguments (training/arguments.py documents them).
"""

import os
import shlex
import sys

from finmatryoshka.sentence_transformers_config.publish import PublishError
from finmatryoshka.training.report import print_report
from finmatryoshka.training.run import parse_phases, train_phases
from finmatryoshka.training.search import main as search


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["search"]:
            search(argv[1:])
            return 0
        report = train_phases(parse_phases(argv), shlex.join(["python", "train_st.py", *argv]))
    except (ValueError, TypeError, PublishError) as error:
        if os.environ.get("FINMATRYOSHKA_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    if report is not None:
        print_report(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
