"""The same questions over the same filing pages in two shapes: the layout text that users have, and FinQA's.

    python -m finmatryoshka.eval layouts MODEL --pages FILE ... --data FILE ... [--base minilm]

A model trained on FinQA's shape alone would find less on raw text; a table says both.
"""

import argparse
from collections.abc import Sequence

from ..data.loading import load_source
from ..data.schema import Example, Page
from ..data.synthesis.transplant import is_set_aside, transplanted_pairs
from .models import load_model, usable_dims
from .retrieval import EncodeOnce, EvaluationError, RetrievalTask, bm25_scores, evaluate_retrieval, score_matrix
from .tables import Table, print_tables


def layout_tasks(examples: Sequence[Example], pages: Sequence[Page], count: int, seed: int) -> list[RetrievalTask]:
    """Two tasks with one set of questions: over ``pages`` in FinQA's shape and over the same pages as they are.

    Args:
        examples: Labelled; their wordings, filled from the pages' tables, are the questions (data/synthesis).
        pages: Filing pages; those without a table that can be asked about are left out of both.
        count: At most so many questions. BM25 finds the page of each among ten in FinQA's shape.

    Raises:
        EvaluationError: no page has a table that any wording fits.
    """
    raw = [page for page in pages if not page.table]  # a labelled page has FinQA's shape already
    text = {page.page_id: page.text for page in raw}
    pairs = transplanted_pairs(list(examples), raw, count, seed, raw_share=0.0)
    if not pairs:
        raise EvaluationError("layouts: no page has a table to ask about; give filing pages with --pages")
    shaped = {pair.page.page_id: pair.page.text for pair in pairs}
    questions = {f"q{i}": pair.question for i, pair in enumerate(pairs)}
    relevant = {f"q{i}": {pair.page.page_id} for i, pair in enumerate(pairs)}
    corpora = {"FinQA's shape": shaped, "layout text": {page_id: text[page_id] for page_id in shaped}}
    return [RetrievalTask(name, questions, corpus, relevant) for name, corpus in corpora.items()]


def layout_table(tasks: list[RetrievalTask], models: dict[str, EncodeOnce], dims: dict[str, list[int]]) -> Table:
    """nDCG@10 of every model at every dimension, and of BM25, on each task."""
    by_task = [{name: evaluate_retrieval(model, task, dims[name]) for name, model in models.items()} for task in tasks]
    rows = [
        [name, str(dim), *(f"{scores[name][dim].ndcg:.4f}" for scores in by_task)]
        for name in models
        for dim in dims[name]
    ]
    rows.append(["BM25", "–", *(f"{score_matrix(task, bm25_scores(task)).ndcg:.4f}" for task in tasks)])
    title = f"{len(tasks[0].queries)} transplanted questions, {len(tasks[0].corpus)} filing pages, nDCG@10"
    return Table(title, ["system", "dimensions", *(task.name for task in tasks)], rows)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m finmatryoshka.eval layouts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="model folder or Hub id")
    parser.add_argument("--pages", nargs="+", required=True, help="unlabelled filing pages; every fifth is asked about")
    parser.add_argument("--data", nargs="+", required=True, help="labelled sources, for the questions' wordings")
    parser.add_argument("--base", help="the untouched encoder, to stand beside it")
    parser.add_argument("--count", type=int, default=500, help="questions")
    parser.add_argument("--dims", nargs="+", type=int, default=[256, 128, 64])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=13)
    args = parser.parse_args(argv)
    pages = [page for name in args.pages for page in load_source(name).pages.values()]
    pages = [page for i, page in enumerate(pages) if is_set_aside(i)]  # at most a projection was refitted on them
    examples = [example for name in args.data for example in load_source(name).examples]
    tasks = layout_tasks(examples, pages, args.count, args.seed)
    loaded = {name: load_model(name) for name in [args.model, *([args.base] if args.base else [])]}
    dims = {name: usable_dims(name, model, args.dims) for name, model in loaded.items()}
    print_tables([layout_table(tasks, {name: EncodeOnce(m, args.batch_size) for name, m in loaded.items()}, dims)])
