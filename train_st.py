"""Trains FinMatryoshka: arguments → stages (train, average, refit) → one folder, evaluated and published if asked.

    python train_st.py                                          # nomic-embed-text-v1.5 on FinQA, from the Hub
    python train_st.py --backbone minilm --data sample          # packaged encoder, generated pages, no Hub
    python train_st.py recipes/minilm.yaml                      # every argument and stage from one file
    accelerate launch --num_processes 2 train_st.py ...         # several processes
    python train_st.py search recipes/search.yaml --trials 8    # hyper-parameters (docs/search.md)

``python train_st.py --help`` lists the arguments (training/arguments.py documents them), ``--help all`` those of
sentence-transformers' trainer, too; docs/training.md tells the rest.
"""

import sys

from finmatryoshka.training.help import asks_for_help, print_help


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if asks_for_help(argv):
        print_help()
        return 0
    from finmatryoshka.training.command import main as train  # torch and all that trains: nothing that --help needs

    return train(argv)


if __name__ == "__main__":
    sys.exit(main())
