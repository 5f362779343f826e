"""The command line of the evaluation.

python -m finmatryoshka.eval MODEL ... --data FILE ...     tables, results.json and pictures
python -m finmatryoshka.eval compare A.json B.json         is the difference real? Several seeds: A.json,A14.json
python -m finmatryoshka.eval readme A.json ...             writes or checks the README's table
python -m finmatryoshka.eval layouts MODEL                 raw layout text against FinQA's shape
python -m finmatryoshka.eval speed MODEL                   ratios against plain sentence-transformers
"""

import argparse
import os
import sys
from pathlib import Path

from ..data.encoders import BackboneError
from ..data.files import WriteError, check_writable, written_whole
from ..data.schema import DataError
from .encoding import PRECISION_CHOICES, PRECISION_HELP
from .layouts import main as layouts
from .readme import main as readme
from .retrieval import EvaluationError
from .run import EvaluationPlan, run_evaluation, write_results
from .significance import compare_results, load_results
from .speed import main as speed
from .tables import SECTIONS, SHORT_FIGURES, print_tables, result_tables


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m finmatryoshka.eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="+", help="model folders or Hub ids; 'minilm' and 'mpnet' are packaged encoders"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        help="labelled sources: FinQA, TAT-QA or FinanceBench files, Hub ids, 'sample'",
    )
    parser.add_argument(
        "--corpus_data", nargs="+", default=[], help="sources whose pages are searched beside FinQA's own"
    )
    parser.add_argument(
        "--train_data", nargs="+", default=[], help="what was trained on: counted, and what the baselines are fitted on"
    )
    parser.add_argument("--base", help="the untouched encoder, for the baselines")
    parser.add_argument("--beside", nargs="+", default=[], help="further models, in the retrieval tables alone")
    parser.add_argument("--dims", nargs="+", type=int, default=[256, 128, 64])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument(
        "--narrow", choices=("fail", "skip"), default="fail", help="what to do with a model narrower than a dimension"
    )
    parser.add_argument("--skip-invalid", action="store_true", help="leave out records without question or page")
    parser.add_argument("--output", help="folder for results.json, tables.md and pictures; replaced when complete")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--batch_size", type=int, help="texts of a batch; by default batches hold as many tokens each")
    parser.add_argument("--precision", choices=PRECISION_CHOICES, default="auto", help=PRECISION_HELP)
    return parser


def evaluate(argv: list[str]) -> None:
    arguments = _parser().parse_args(argv)
    output = arguments.output
    fields = {name: value for name, value in vars(arguments).items() if name != "output"}
    fields["sections"] = tuple(fields["sections"])
    if output:
        check_writable(output)
    results, pictures = run_evaluation(EvaluationPlan(**fields))
    print_tables(result_tables(results, figures=SHORT_FIGURES))
    if output:
        with written_whole(output) as folder:
            write_results(results, pictures, folder)
        print(f"written: {Path(output) / 'results.json'}, tables.md and pictures")


def compare(argv: list[str]) -> None:
    sides = [side.split(",") for side in argv]
    if len(sides) != 2 or not all(map(all, sides)):
        raise EvaluationError(
            f"compare {' '.join(argv)}: give two results files, or two lists of seeds without blanks: python -m "
            "finmatryoshka.eval compare A.json[,A14.json] B.json[,B14.json]"
        )
    for row in compare_results(*([load_results(path) for path in side] for side in sides)):
        print(
            f"{row['task']} at {row['dim']}: {row['a']:.4f} -> {row['b']:.4f}, difference {row['difference']:+.4f}, "
            f"95% [{row['low']:+.4f}, {row['high']:+.4f}], p = {row['p']:.4f}"
        )


COMMANDS = {"compare": compare, "layouts": layouts, "readme": readme, "speed": speed}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    command = COMMANDS.get(argv[0]) if argv else None
    try:
        command(argv[1:]) if command else evaluate(argv)
    except (EvaluationError, DataError, BackboneError, WriteError) as error:
        if os.environ.get("FINMATRYOSHKA_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
