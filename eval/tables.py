"""Results as tables: one renderer for the terminal, ``tables.md``, the model card and the README.

`result_tables` turns sections of a results dictionary into `Table`s, `print_tables` and `markdown` show them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable

from .numeric import METRICS, lost_to_constants

SCHEMA_VERSION = 3  # of results.json (docs/results.md)
SECTIONS = ("retrieval", "facts", "numbers", "quality", "concepts", "cost")
RETRIEVAL_FIGURES = (
    "ndcg@10", "mrr@10", "map@100", "recall@1", "recall@5", "recall@10", "recall@100", "precision@5", "f1@5",
)  # fmt: skip
# What a reader calls the tasks; others have their own names.
TASKS = {"finqa/dev_pages": "FinQA dev", "tatqa/test_gold": "TAT-QA test"}
# A system and a fusion of `eval.systems` that results before them lack.
BM25_PAIRS, PAIRS_Z_SCORES = "BM25, words and pairs", "z-scores, words and pairs"
# What fits a terminal.
SHORT_FIGURES = ("ndcg@10", "mrr@10", "recall@1", "recall@10")


@dataclass(frozen=True)
class Table:
    """A title, column names, rows of as many cells, and what must be said below (may be empty)."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def result_tables(
    results: dict, sections: Sequence[str] = SECTIONS, names: Mapping[str, str] | None = None,
    figures: Sequence[str] = RETRIEVAL_FIGURES,
) -> list[Table]:  # fmt: skip
    """The tables of ``sections``, as far as ``results`` hold them.

    Args:
        results: Of `eval.run.run_evaluation`, or read from a results file.
        names: What a model is called, where not by its key.
        figures: Columns of the retrieval tables; the halves stand behind ``ndcg@10``.
    """
    names = names or {}
    tables = []
    for section in sections:
        if section == "retrieval":
            tables += [_retrieval(task, part, names, figures) for task, part in results.get(section, {}).items()]
        elif results.get(section):
            tables += list(_OF_MODELS[section](results[section], names))
    return tables


def dimension_table(results: dict, name: str, how: str = "z-scores", titles: Mapping[str, str] | None = None) -> Table:
    """What a dimension of model ``name`` costs and finds: bytes a vector, nDCG@10 alone and fused with BM25.

    ``how`` is the fusion, ``titles`` what tasks are called, where not by their key; the last row is BM25 alone.
    """
    tasks = results["retrieval"]
    columns = ["dimensions", "bytes (float32)", "bytes (int8)"]
    for task in tasks:
        title = (titles or {}).get(task, task)
        columns += [title, f"{title}, with BM25"]
    rows = []
    for dim in next(iter(tasks.values()))["systems"][name]:
        rows.append([dim, str(4 * int(dim)), dim])
        for part in tasks.values():
            rows[-1] += [f"{by[dim]['ndcg@10']:.3f}" for by in (part["systems"][name], part["fused"][name][how])]
    alone = [cell for part in tasks.values() for cell in (f"{part['systems']['BM25']['0']['ndcg@10']:.3f}", "–")]
    return Table("", columns, [*rows, ["BM25 alone", "–", "–", *alone]])


def print_tables(tables: Sequence[Table], console: Console | None = None) -> None:
    console = console or Console(width=150)
    for table in tables:
        shown = RichTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
        for i, column in enumerate(table.columns):
            shown.add_column(column, justify="left" if i == 0 else "right")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def markdown(tables: Sequence[Table]) -> str:
    """All tables as Markdown, titles in bold; a table without a title stands alone."""
    return "\n\n".join(map(_markdown, tables)) + "\n"


def _markdown(table: Table) -> str:
    lines = [f"**{table.title}**", ""] if table.title else []
    lines += ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join([*lines, *(["", table.note] if table.note else [])])


def pages_title(pages: int, training_pages: int | None) -> str:
    """How many pages are searched and, where it is known, how many of them were trained on."""
    return f"{pages} pages" + ("" if training_pages is None else f", {training_pages} of them training pages")


def answers_title(n: int, seen: int) -> str:
    """How many answers are evaluated: unseen where no question or page of them was trained on, else how many were."""
    return f"{n} answers, {seen} of them of training questions or pages" if seen else f"{n} unseen answers"


def lost_note(numbers: dict) -> str:
    """Which figures of the heads are not above the best constant's; empty where all are."""
    lost: dict[str, list[str]] = {}
    for dim, name in lost_to_constants(numbers):
        lost.setdefault(METRICS[name].title, []).append(str(dim))
    return "; ".join(f"{name} at {', '.join(dims)} does not beat the best constant" for name, dims in lost.items())


def all_systems(part: dict, names: Mapping[str, str]) -> Iterator[tuple[str, dict, dict[str, dict]]]:
    """(shown name, figures by dimension, nDCG@10 by half and dimension) of every system of one retrieval task."""
    halves = part.get("halves", {})
    for name, by_dim in part["systems"].items():
        yield names.get(name, name), by_dim, {half: own["systems"][name] for half, own in halves.items()}
    for name, by_method in part.get("fused", {}).items():
        for how, by_dim in by_method.items():
            on_halves = {half: own["fused"][name][how] for half, own in halves.items()}
            yield f"{names.get(name, name)} + BM25, {how}", by_dim, on_halves


def _retrieval(task: str, part: dict, names: Mapping[str, str], figures: Sequence[str]) -> Table:
    halves = part.get("halves", {})
    columns, rows = ["system", "dim"], []
    for figure in figures:
        columns += [figure, *(f"{half} half" for half in halves if figure == "ndcg@10")]
    for system, by_dim, on_halves in all_systems(part, names):
        for dim, metrics in by_dim.items():
            cells = [system, dim if dim != "0" else "–"]
            for figure in figures:
                extra = [by[dim] for by in on_halves.values()] if figure == "ndcg@10" else []
                cells += [f"{value:.4f}" for value in (metrics[figure], *extra)]
            rows.append(cells)
    notes = [f"{half} half: {own['queries']} questions" for half, own in halves.items()]
    if "label_id_baseline" in part:
        loss = part["label_id_baseline"]
        notes.append(f"label-id baseline: squared error {loss['loss']:.4f}, a constant {loss['constant']:.4f}")
    pages = pages_title(part["pages"], part.get("training_pages"))
    title = f"Page retrieval on {task}: {part['queries']} questions, {pages}"
    return Table(title, columns, rows, "; ".join(notes))


def _facts(facts: dict, names: Mapping[str, str]) -> Iterator[Table]:
    columns = ("recall@3", "chance@3", "recall@5", "chance@5")
    rows = [
        [names.get(name, name), str(dim), *(f"{scores[column]:.4f}" for column in columns)]
        for name, by_dim in facts.items()
        for dim, scores in by_dim.items()
    ]
    if rows:
        yield Table("Fact retrieval within the page (FinQA's recall)", ["system", "dim", *columns], rows)


def _numbers(numbers: dict, names: Mapping[str, str]) -> Iterator[Table]:
    for name, by_task in numbers.items():
        for task, part in by_task.items():
            yield numbers_table(f"Numbers of {names.get(name, name)}:", task, part)


def numbers_table(title: str, task: str, part: dict) -> Table:
    """One task of `eval.numeric.evaluate_numbers`, the best constant of each metric in the first row."""
    columns = [name for name in METRICS if name in part["constant"]]
    rows = [["best constant of each metric", "–", *(f"{part['constant'][column]:.4f}" for column in columns)]]
    systems = {"words": "ridge on the question's words", "ridge": "ridge on frozen embeddings", "heads": "heads"}
    for system, called in systems.items():
        for dim, scores in part.get(system, {}).items():
            rows.append([called, str(dim) if int(dim) else "–", *(f"{scores[column]:.4f}" for column in columns)])
    return Table(
        f"{title} {answers_title(part['n'], part.get('seen', 0))} of {task} (Huber in z units)",
        ["predictor", "dim", *(METRICS[column].title for column in columns)],
        rows,
        lost_note(part),
    )


def _by_dimension(title: str) -> Callable[[dict, Mapping[str, str]], Iterator[Table]]:
    def tables(section: dict, names: Mapping[str, str]) -> Iterator[Table]:
        for name, by_dim in section.items():
            rows = [
                [figure, *(f"{figures[figure]:.4f}" for figures in by_dim.values())]
                for figure in next(iter(by_dim.values()))
            ]
            yield Table(f"{title} of {names.get(name, name)}", ["figure", *map(str, by_dim)], rows)

    return tables


def _cost(cost: dict, names: Mapping[str, str]) -> Iterator[Table]:
    for name, points in cost.items():
        rows = [[row["storage"], str(row["dim"]), str(row["bytes"]), f"{row['ndcg@10']:.4f}"] for row in points]
        title = f"Vector cost of {names.get(name, name)}"
        yield Table(title, ["storage", "dim", "bytes per vector", "ndcg@10"], rows)


_OF_MODELS: dict[str, Callable[[dict, Mapping[str, str]], Iterator[Table]]] = {
    "facts": _facts,
    "numbers": _numbers,
    "quality": _by_dimension("Embedding quality"),
    "concepts": _by_dimension("Concepts"),
    "cost": _cost,
}
