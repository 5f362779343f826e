"""What training changed: the table that ends a training run, each figure beside the trivial answer's."""

from rich.console import Console
from rich.table import Table

from ..data.numbers import SignedLogScaler
from ..data.splits import FinancialData
from ..eval.numeric import evaluate_numbers
from ..eval.retrieval import EncodeOnce, RetrievalTask, evaluate_retrieval, similarity_matrix, task_name


def evaluation_tasks(data: FinancialData) -> list[RetrievalTask]:
    """One retrieval task per evaluation source, each over all labelled pages of its kind and the given corpora."""
    tasks = []
    for name, source in data.evaluation.items():
        if not source.examples:
            continue
        corpus = list(source.pages.values())
        if source.schema.startswith("finqa"):
            # FinQA's pages of the training side are searched too: more to choose from, as in the benchmark.
            corpus += [page for page in data.corpus if "/" in page.page_id and page.page_id not in source.pages]
        tasks.append(RetrievalTask.of(task_name(name), source.examples, corpus))
    return tasks


def learning_report(model, base, data: FinancialData, scaler: SignedLogScaler) -> dict:
    """Figures of ``model`` and of its untouched ``base`` (both SentenceTransformers), ready for `print_report`.

    ``retrieval``: by task, nDCG@10 by system and dimension. ``numbers``: see `evaluate_numbers`. ``learned``: whether the
    model beats the base at every dimension and the heads beat the constant.
    """
    dims = list(model[0].auto_model.matryoshka_dims)
    report = {"retrieval": {}, "learned": True}
    tasks = evaluation_tasks(data)
    shared = EncodeOnce(model)
    for task in tasks:
        fine_tuned = {d: s.ndcg for d, s in evaluate_retrieval(shared, task, dims).items()}
        truncated = {d: s.ndcg for d, s in evaluate_retrieval(base, task, dims).items()}
        report["retrieval"][task.name] = {
            "base": truncated,
            "model": fine_tuned,
            "queries": len(task.queries),
            "pages": len(task.corpus),
        }
        report["learned"] &= all(fine_tuned[d] > truncated[d] for d in dims)
    examples = {task_name(name): source.examples for name, source in data.evaluation.items()}
    report["numbers"] = evaluate_numbers(model, data.train, examples, scaler)
    for numbers in report["numbers"].values():
        report["learned"] &= all(scores["huber"] < numbers["constant"]["huber"] for scores in numbers["heads"].values())
    report["example"] = example_search(shared, tasks[0], dims[len(dims) // 2])
    return report


def example_search(model: EncodeOnce, task: RetrievalTask, dim: int, top: int = 3) -> dict:
    """The first query's best pages at ``dim``: (page id, similarity, whether it is the right one)."""
    query_id, query = next(iter(task.queries.items()))
    one = RetrievalTask("example", {query_id: query}, task.corpus, {query_id: task.relevant[query_id]})
    scores = similarity_matrix(model, one, dim)[0]
    pages = list(task.corpus)
    best = scores.argsort()[::-1][:top]
    hits = [(pages[i], float(scores[i]), pages[i] in task.relevant[query_id]) for i in best]
    return {"query": query, "dim": dim, "hits": hits}


def print_report(report: dict, console: Console | None = None) -> None:
    """The report as tables a person can read; says loudly when nothing was learned."""
    console = console or Console(width=100)
    for name, task in report["retrieval"].items():
        table = Table(
            title=f"nDCG@10 on {name}: {task['queries']} questions, {task['pages']} pages, unseen in training"
        )
        table.add_column("dimension")
        for column in ("truncated base", "fine-tuned", "gain"):
            table.add_column(column, justify="right")
        for dim in task["model"]:
            base, tuned = task["base"][dim], task["model"][dim]
            table.add_row(str(dim), f"{base:.4f}", f"{tuned:.4f}", f"{tuned - base:+.4f}")
        console.print(table)
    for task, numbers in report["numbers"].items():
        table = Table(
            title=f"Numeric heads on {numbers['n']} unseen answers of {task} (Huber in z units: lower is better)"
        )
        for column in ("predictor", "Huber", "of constant's", "right sign", "within ×10", "Spearman"):
            table.add_column(column, justify="right" if column != "predictor" else "left")
        rows = {"constant": numbers["constant"]} | {
            f"head at {dim}": scores for dim, scores in numbers["heads"].items()
        }
        for name, s in rows.items():
            share = s["huber"] / numbers["constant"]["huber"]
            cells = (
                f"{s['huber']:.4f}",
                f"{share:.1%}",
                f"{s['sign_accuracy']:.1%}",
                f"{s['magnitude_accuracy']:.1%}",
                f"{s['spearman']:+.3f}",
            )
            table.add_row(name, *cells)
        console.print(table)
    example = report["example"]
    console.print(f"Search at {example['dim']}-d: {example['query']}", highlight=False)
    for rank, (page, similarity, right) in enumerate(example["hits"], 1):
        console.print(f"  {rank}. {similarity:.3f}  {page}{'   <- the page' if right else ''}", highlight=False)
    if report["learned"]:
        console.print(
            "Learned: above the truncated base at every dimension, and every head below the constant's error."
        )
    else:
        console.print("NOT LEARNED EVERYWHERE: some figure above does not beat its trivial answer.", style="bold red")
