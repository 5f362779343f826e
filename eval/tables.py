"""Results as tables a person can read, in a terminal or as Markdown for the README and the model card."""

from rich.console import Console
from rich.table import Table

RETRIEVAL_COLUMNS = (
    "ndcg@10",
    "mrr@10",
    "map@100",
    "recall@1",
    "recall@5",
    "recall@10",
    "recall@100",
    "precision@5",
    "f1@5",
)


def result_tables(results: dict) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, columns, rows) of every section that ``results`` holds."""
    tables = []
    for task, part in results.get("retrieval", {}).items():
        rows = [
            [system, dim if dim != "0" else "–", *(f"{metrics[name]:.4f}" for name in RETRIEVAL_COLUMNS)]
            for system, by_dim in part["systems"].items()
            for dim, metrics in by_dim.items()
        ]
        title = f"Page retrieval on {task}: {part['queries']} questions, {part['pages']} pages"
        tables.append((title, ["system", "dim", *RETRIEVAL_COLUMNS], rows))
    losses = [part["seed_recipe_loss"] for part in results.get("retrieval", {}).values() if "seed_recipe_loss" in part]
    if losses:  # one regression, whatever it is then asked to find
        rows = [["seed recipe", f"{losses[0]['loss']:.4f}"], ["a constant", f"{losses[0]['constant']:.4f}"]]
        tables.append(("The seed's recipe: squared error on unseen label ids", ["", "loss"], rows))
    facts = [
        [name, str(dim), *(f"{scores[c]:.4f}" for c in ("recall@3", "chance@3", "recall@5", "chance@5"))]
        for name, by_dim in results.get("facts", {}).items()
        for dim, scores in by_dim.items()
    ]
    if facts:
        tables.append(
            (
                "Fact retrieval within the page (FinQA's recall)",
                ["system", "dim", "recall@3", "chance@3", "recall@5", "chance@5"],
                facts,
            )
        )
    for name, by_task in results.get("numbers", {}).items():
        for task, numbers in by_task.items():
            columns = list(numbers["constant"])
            rows = [["constant", "–", *(f"{numbers['constant'][c]:.4f}" for c in columns)]]
            for system in ("ridge", "heads"):
                rows += [
                    [system, str(dim), *(f"{s[c]:.4f}" for c in columns)] for dim, s in numbers.get(system, {}).items()
                ]
            title = f"Numbers of {name}: {numbers['n']} unseen answers of {task} (Huber in z units)"
            tables.append((title, ["predictor", "dim", *columns], rows))
    for section, title in (("quality", "Embedding quality"), ("concepts", "Concepts")):
        for name, by_dim in results.get(section, {}).items():
            columns = list(next(iter(by_dim.values())))
            rows = [[figure, *(f"{by_dim[dim][figure]:.4f}" for dim in by_dim)] for figure in columns]
            tables.append((f"{title} of {name}", ["figure", *map(str, by_dim)], rows))
    for name, cost in results.get("cost", {}).items():
        rows = [[row["storage"], str(row["dim"]), str(row["bytes"]), f"{row['ndcg@10']:.4f}"] for row in cost]
        tables.append((f"Vector cost of {name}", ["storage", "dim", "bytes per vector", "ndcg@10"], rows))
    return tables


def print_tables(results: dict) -> None:
    console = Console(width=140)
    for title, columns, rows in result_tables(results):
        table = Table(title=title, title_justify="left")
        for i, column in enumerate(columns):
            table.add_column(column, justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def markdown(results: dict) -> str:
    """All tables as Markdown."""
    parts = []
    for title, columns, rows in result_tables(results):
        lines = [f"**{title}**", "", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        parts.append("\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]))
    return "\n\n".join(parts) + "\n"
