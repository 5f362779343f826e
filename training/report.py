"""What training changed: the table that ends a training run, each figure beside the trivial answer's."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ..data.numbers import SignedLogScaler
from ..data.splits import FinancialData
from ..eval.models import load_model, usable_dims
from ..eval.numeric import METRICS, evaluate_numbers, lost_to_constants
from ..eval.retrieval import (
    EncodeOnce,
    RetrievalTask,
    evaluate_retrieval,
    retrieval_task,
    similarity_matrix,
    task_name,
)
from ..eval.systems import base_at_lengths, base_name
from ..eval.tables import Table, numbers_table, pages_title, print_tables
from ..sentence_transformers_config.folder import finmatryoshka_of


def evaluation_tasks(data: FinancialData) -> list[RetrievalTask]:
    """One retrieval task per evaluation source: the one that `python -m finmatryoshka.eval` makes of it."""
    return [retrieval_task(source, data.corpus) for source in data.evaluation.values() if source.examples]


def learning_report(model, base, data: FinancialData, scaler: SignedLogScaler, beside: Sequence[str] = ()) -> dict:
    """Figures of ``model`` and of its untouched ``base`` (a SentenceTransformer or an `EncodeOnce`).

    ``beside`` names further models: ``beside`` of each task holds their nDCG@10, which nothing has to beat.

    ``retrieval``: by task, nDCG@10 by dimension of the ``model``, of the ``base`` at its own length (``base_tokens``)
    and of the base at the model's (``base_at_length``, ``tokens``; missing where its positions cannot be extended).
    ``numbers``: see `evaluate_numbers`. ``not_learned``: every figure of these that does not beat its trivial answer;
    ``learned``: whether there is none. ``precision``: what both multiplied in.
    """
    dims = list(finmatryoshka_of(model).matryoshka_dims)
    tasks = evaluation_tasks(data)
    shared, tokens = EncodeOnce.of(model), model.max_seq_length
    bases = base_at_lengths(EncodeOnce.of(base), [tokens])
    others = {name: EncodeOnce(load_model(name)) for name in beside}
    report: dict = {"precision": shared.precision, "retrieval": {}}
    for task in tasks:
        figures = {"model": shared, "base": next(iter(bases.values()))}
        if tokens in bases:
            figures["base_at_length"] = bases[tokens]
        report["retrieval"][task.name] = {
            "queries": len(task.queries),
            "pages": len(task.corpus),
            "training_pages": task.known_pages(data.train),
            "base_tokens": next(iter(bases)),
            "tokens": tokens,
            **{name: _ndcg(m, task, dims) for name, m in figures.items()},
            "beside": {
                name: {
                    "tokens": other.model.max_seq_length,
                    "ndcg": _ndcg(other, task, usable_dims(name, other.model, dims, "skip")),
                }
                for name, other in others.items()
            },
        }
    examples = {task_name(name): source.examples for name, source in data.evaluation.items()}
    report["numbers"] = evaluate_numbers(model, data.train, examples, scaler)
    report["not_learned"] = not_learned(report)
    report["learned"] = not report["not_learned"]
    report["example"] = example_search(shared, tasks[0], dims[len(dims) // 2])
    return report


def _ndcg(model, task: RetrievalTask, dims: list[int]) -> dict[int, float]:
    return {dim: scores.ndcg for dim, scores in evaluate_retrieval(model, task, dims).items()}


def not_learned(report: dict) -> list[str]:
    """A line for each figure that does not beat its trivial answer: the base at either length, or the best constant."""
    lines = []
    for task, part in report["retrieval"].items():
        for kind, tokens in (("base", part["base_tokens"]), ("base_at_length", part["tokens"])):
            for dim, base in part.get(kind, {}).items():
                if part["model"][dim] <= base:
                    lines.append(
                        f"{task}: nDCG@10 at {dim} is {part['model'][dim]:.4f}, {base_name(tokens)} has {base:.4f}"
                    )
    for task, numbers in report["numbers"].items():
        for dim, name in lost_to_constants(numbers):
            own, constant = numbers["heads"][dim][name], numbers["constant"][name]
            lines.append(f"{task}: {METRICS[name].title} at {dim} is {own:.4f}, the best constant's {constant:.4f}")
    return lines


def example_search(model: EncodeOnce, task: RetrievalTask, dim: int, top: int = 3) -> dict:
    """The first query's best pages at ``dim``: (page id, similarity, whether it is the right one)."""
    query_id, query = next(iter(task.queries.items()))
    relevant = task.relevant[query_id]
    scores = similarity_matrix(model, replace(task, queries={query_id: query}, relevant={query_id: relevant}), dim)[0]
    pages = list(task.corpus)
    best = scores.argsort()[::-1][:top]
    return {"query": query, "dim": dim, "hits": [(pages[i], float(scores[i]), pages[i] in relevant) for i in best]}


def report_tables(report: dict) -> list[Table]:
    """The report's figures: retrieval by task, numbers by task."""
    tables = [_retrieval_table(name, part) for name, part in report["retrieval"].items()]
    return tables + [numbers_table("Numeric heads on", task, numbers) for task, numbers in report["numbers"].items()]


def _retrieval_table(name: str, part: dict) -> Table:
    fair = part.get("base_at_length", part["base"])  # at equal length, so that the gain is training's alone
    lengths = (
        {part["base_tokens"]: part["base"], part["tokens"]: fair}
        if "base_at_length" in part
        else {part["base_tokens"]: fair}
    )
    others = part.get("beside", {})
    rows = [
        [
            str(dim), *(f"{base[dim]:.4f}" for base in lengths.values()), f"{tuned:.4f}", f"{tuned - fair[dim]:+.4f}",
            *(f"{other['ndcg'][dim]:.4f}" if dim in other["ndcg"] else "–" for other in others.values()),
        ]
        for dim, tuned in part["model"].items()
    ]  # fmt: skip
    title = f"nDCG@10 on {name}: {part['queries']} questions, {pages_title(part['pages'], part['training_pages'])}"
    columns = ["dimension", *map(base_name, lengths), f"fine-tuned at {part['tokens']}", "gain"]
    return Table(
        title, [*columns, *(f"{Path(name).name} at {other['tokens']}" for name, other in others.items())], rows
    )


def print_report(report: dict, console: Console | None = None) -> None:
    """The report as tables a person can read; says loudly what was not learned."""
    console = console or Console(width=120)
    print_tables(report_tables(report), console)
    example = report["example"]
    console.print(f"Search at {example['dim']}-d: {example['query']}", highlight=False)
    for rank, (page, similarity, right) in enumerate(example["hits"], 1):
        console.print(f"  {rank}. {similarity:.3f}  {page}{'   <- the page' if right else ''}", highlight=False)
    if report["learned"]:
        console.print("Learned: every figure above beats its trivial answer, the base or the best constant.")
    else:
        console.print("NOT LEARNED EVERYWHERE. These do not beat their trivial answer:", style="bold red")
        for line in report["not_learned"]:
            console.print(f"  {line}", highlight=False)
