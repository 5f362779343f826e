"""The command line of the corpus: pages and their vectors in a LanceDB table.

python -m finmatryoshka.corpus index FILES... --output corpus.lance [--model FOLDER] [--engine local|ray]
python -m finmatryoshka.corpus search corpus.lance "what was the change in net sales in 2015?" [--where "year = 2015"]
python -m finmatryoshka.corpus duplicates corpus.lance     pairs of near-equal pages
python -m finmatryoshka.corpus questions FILE              groups of like questions
python -m finmatryoshka.corpus measure ...                 the figures of docs/corpus.md
"""

import argparse
import json
import logging
import os
import sys
from dataclasses import asdict, fields

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from ..data.encoders import BackboneError
from ..data.schema import DataError
from ..eval.encoding import PRECISION_CHOICES, PRECISION_HELP
from ..eval.fusion import DEFAULT_WEIGHT
from ..eval.retrieval import EvaluationError
from . import measure
from .duplicates import NEIGHBOURS, duplicate_pages, like_questions, read_questions
from .embedding import DEFAULT_MODEL, Embedder
from .index import IndexPlan, index_pages
from .schema import STORAGES, CorpusError
from .search import FUSIONS, MODES, CorpusSearch, Hit
from .table import APPROXIMATE_FROM


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m finmatryoshka.corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _index_options(commands.add_parser("index", help="embed pages that are new or changed"))
    _search_options(commands.add_parser("search", help="the pages that answer a question"))
    duplicates = commands.add_parser("duplicates", help="pairs of near-equal pages")
    duplicates.add_argument("table")
    questions = commands.add_parser("questions", help="groups of like questions")
    questions.add_argument("file", help="a labelled file, 'sample', or a .txt file with a question on each line")
    questions.add_argument("--model", default=DEFAULT_MODEL)
    questions.add_argument("--dim", type=_positive, default=128)
    for command in (duplicates, questions):
        command.add_argument("--threshold", type=float, default=0.9, help="least cosine")
    measure.add_options(commands.add_parser("measure", help="speed, recall and quality"))
    return parser


def _index_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "files", nargs="+", help="FinQA, TAT-QA or corpus JSON(L), Parquet, .txt, .pdf, folders of these, or 'sample'"
    )
    command.add_argument("--output", required=True, help="the table: FOLDER/NAME.lance, or on an object store")
    command.add_argument("--model", default=DEFAULT_MODEL, help="a folder, a Hub id, or 'minilm', the packaged encoder")
    command.add_argument("--dim", type=_positive, default=128)
    command.add_argument("--storage", choices=list(STORAGES), default="float32")
    command.add_argument("--engine", choices=("local", "ray"), default="local")
    command.add_argument(
        "--batch_tokens", type=_positive, help="tokens of a batch, padding included; default: what suits the device"
    )
    command.add_argument("--precision", choices=PRECISION_CHOICES, default="auto", help=PRECISION_HELP)
    command.add_argument("--workers", type=_positive, default=1, help="processes that embed, with --engine ray")
    command.add_argument("--ray_address", help="a running cluster, HOST:PORT or 'auto'; else Ray starts here")
    command.add_argument("--skip-invalid", action="store_true", help="name, count and leave out what cannot be read")
    command.add_argument(
        "--approximate_from", type=_positive, default=APPROXIMATE_FROM, help="rows from which vectors get an index"
    )


def _search_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("table")
    command.add_argument("question")
    command.add_argument("--model", help="where the table's model lies, if not where it was indexed with")
    command.add_argument("--top", type=_positive, default=5)
    command.add_argument("--mode", choices=MODES, default="hybrid")
    command.add_argument("--where", help="SQL over id, company, year, document, page, text: \"company = 'PEPSICO'\"")
    command.add_argument("--fusion", choices=FUSIONS, default="best_share")
    command.add_argument("--weight", type=float, default=DEFAULT_WEIGHT, help="of the words, 0 to 1 (best_share)")
    command.add_argument("--prefix", action="store_true", help="candidates by 64 dimensions, ordered by all")
    command.add_argument(
        "--exact", action="store_true", default=None, help="score every page, without the approximate index"
    )
    command.add_argument("--json", action="store_true", help="one JSON object a line")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("give a number of at least 1")
    return value


def index(arguments: argparse.Namespace) -> None:
    names = {field.name for field in fields(IndexPlan)}
    report = index_pages(IndexPlan(**{name: value for name, value in vars(arguments).items() if name in names}))
    print(f"{arguments.output}: {report}")


def search(arguments: argparse.Namespace) -> None:
    corpus = CorpusSearch(arguments.table, arguments.model)
    names = ("top", "mode", "where", "fusion", "weight", "prefix", "exact")
    hits = corpus.search(arguments.question, **{name: getattr(arguments, name) for name in names})
    if arguments.json:
        for hit in hits:
            print(json.dumps(asdict(hit)))
    else:
        print_hits(hits)


def print_hits(hits: list[Hit]) -> None:
    """A table to read; no line where nothing was found but one that says so."""
    if not hits:
        print("no pages found")
        return
    table = Table("rank", "score")
    for name in ("document", "page", "best match"):
        table.add_column(name, overflow="fold")
    for hit in hits:
        table.add_row(str(hit.rank), f"{hit.score:.3f}", hit.document, hit.page, hit.passage)
    Console(markup=False, highlight=False).print(table)


def duplicates(arguments: argparse.Namespace) -> None:
    pairs = duplicate_pages(arguments.table, arguments.threshold)
    for score, first, second in pairs:
        print(f"{score:.3f}  {first}  {second}")
    print(f"{len(pairs)} pairs at or above {arguments.threshold}, of a page's {NEIGHBOURS} nearest")


def questions(arguments: argparse.Namespace) -> None:
    groups = like_questions(
        read_questions(arguments.file), Embedder(arguments.model, arguments.dim), arguments.threshold
    )
    for group in groups:
        print("\n".join(group), end="\n\n")
    print(f"{len(groups)} groups at or above {arguments.threshold}")


def main(argv: list[str] | None = None) -> int:
    # LanceDB's own log lines would stand between ours.
    os.environ.setdefault("LANCE_LOG", "error")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    disable_progress_bar()
    arguments = _parser().parse_args(argv)
    run = {"index": index, "search": search, "duplicates": duplicates, "questions": questions, "measure": measure.run}
    try:
        run[arguments.command](arguments)
    except (CorpusError, DataError, BackboneError, EvaluationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
