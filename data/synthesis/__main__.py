"""Prints transplanted questions to be read: ``python -m finmatryoshka.data.synthesis --show 50 --data ... --pages
...``."""

import argparse
import logging
import random

from ..loading import load_source
from ..schema import DataError
from .transplant import transplanted_pairs
from .wordings import wordings


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m finmatryoshka.data.synthesis", description=__doc__)
    parser.add_argument("--data", nargs="+", required=True, help="labelled sources whose questions give the wordings")
    parser.add_argument(
        "--pages", nargs="+", default=[], help="unlabelled sources to ask about, beside those of --data"
    )
    parser.add_argument("--count", type=int, default=40000, help="how many questions to make")
    parser.add_argument("--show", type=int, default=50, help="how many of them to print, drawn at random")
    parser.add_argument("--seed", type=int, default=13)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    try:
        labelled, unlabelled = ([load_source(name) for name in names] for names in (args.data, args.pages))
    except DataError as error:
        parser.error(str(error))
    examples = [example for source in labelled for example in source.examples]
    pages = [page for source in [*labelled, *unlabelled] for page in source.pages.values()]
    worded = wordings(examples)
    pairs = transplanted_pairs(examples, pages, args.count, args.seed)
    print(
        f"{len(examples)} questions gave {len(worded)} distinct wordings; {len(pairs)} questions on {len(pages)} pages"
    )
    for pair in random.Random(args.seed).sample(pairs, min(args.show, len(pairs))):
        print(f"- {pair.question} — {', '.join(filter(None, (pair.page.company, *pair.page.page_id.rsplit('/', 1))))}")


if __name__ == "__main__":
    main()
