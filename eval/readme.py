"""The README's one table of results, written from results files and checked against them.

    python -m finmatryoshka.eval readme RESULTS.json ...    writes the table between the two comments of README.md
    python -m finmatryoshka.eval readme --check             fails when the table is not what its results files say

The first comment names the results files, so that a check needs no arguments.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..data.files import replace_file
from .retrieval import EvaluationError
from .systems import BM25, Z_SCORES, base_name
from .tables import BM25_PAIRS, PAIRS_Z_SCORES, SCHEMA_VERSION, TASKS, Table, markdown

DIMS = ("256", "64")
PLAIN = "finmatryoshka-plain"
# From one task of a run to a system's figures by dimension.
Figures = Callable[[dict], dict]
END = "<!-- /results -->"
_REGION = re.compile(r"<!-- results: (?P<files>.*?) -->\n(?P<table>.*?)" + re.escape(END), re.DOTALL)


def readme_table(runs: list[dict], plain: str = PLAIN) -> Table:
    """nDCG@10 of the runs' models beside what they must beat, each figure the mean over the ``runs`` (one model each).

    Args:
        runs: Results of the same evaluation, a seed each.
        plain: The model of ``beside`` that was trained by plain `MatryoshkaLoss`; without it its rows are left out.
    """
    names = [next(iter(run["models"])) for run in runs]
    lengths = [run["models"][name]["max_seq_length"] for run, name in zip(runs, names)]
    tasks = [task for task in runs[0]["retrieval"] if all(task in run["retrieval"] for run in runs)]
    shown: list[tuple[str, list[Figures], Sequence[str]]] = [
        ("FinMatryoshka", _systems(names), DIMS),
        ("FinMatryoshka + BM25", [partial(_fused, name, Z_SCORES) for name in names], DIMS),
        ("BM25 alone", _systems([BM25] * len(runs)), ("0",)),
        (f"untouched encoder, truncated, {lengths[0]} tokens", _systems([base_name(n) for n in lengths]), DIMS),
    ]
    if all(BM25_PAIRS in run["retrieval"][task]["systems"] for run in runs for task in tasks):
        fused: list[Figures] = [partial(_fused, name, PAIRS_Z_SCORES) for name in names]
        shown[3:3] = [
            ("FinMatryoshka + BM25 of words and pairs", fused, DIMS),
            ("BM25 of words and pairs alone", _systems([BM25_PAIRS] * len(runs)), ("0",)),
        ]
    if all(plain in run["retrieval"][task]["systems"] for run in runs for task in tasks):
        shown.append(("plain Matryoshka training", _systems([plain] * len(runs)), DIMS))
    rows = [
        [title, dim if dim != "0" else "–", *(f"{_mean(runs, task, figures, dim):.3f}" for task in tasks)]
        for title, figures, dims in shown
        for dim in dims
    ]
    columns = ["nDCG@10", "dim", *(_task_title(task, runs[0]["retrieval"][task]) for task in tasks)]
    return Table("", columns, rows, f"Mean of {len(runs)} seeds." if len(runs) > 1 else "One model.")


def _systems(names: list[str]) -> list[Figures]:
    return [partial(_system, name) for name in names]


def _system(name: str, part: dict) -> dict:
    return part["systems"][name]


def _fused(name: str, how: str, part: dict) -> dict:
    return part["fused"][name][how]


def _mean(runs: list[dict], task: str, figures: list[Figures], dim: str) -> float:
    try:
        values = [figure(run["retrieval"][task])[dim]["ndcg@10"] for run, figure in zip(runs, figures)]
    except KeyError as error:
        raise EvaluationError(
            f"the results hold no {error} on {task}: evaluate again with --base and --dims {' '.join(DIMS)}"
        ) from None
    return sum(values) / len(values)


def _task_title(task: str, part: dict) -> str:
    return f"{TASKS.get(task, task)} ({part['queries']:,} questions, {part['pages']} pages)"


def load_runs(paths: list[Path]) -> list[dict]:
    """Results files of schema 3 with one model each. Raises `EvaluationError` that names the file and what to run."""
    runs = []
    for path in paths:
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise EvaluationError(f"{path}: is no results file ({error})") from None
        version = run.get("schema_version")
        if version != SCHEMA_VERSION:
            raise EvaluationError(
                f"{path}: schema_version {version}, the table needs {SCHEMA_VERSION}; "
                "run python -m finmatryoshka.eval again"
            )
        if len(run["models"]) != 1 or "retrieval" not in run:
            raise EvaluationError(f"{path}: the table needs a results file of exactly one model, with retrieval")
        runs.append(run)
    tasks = set.intersection(*(set(run["retrieval"]) for run in runs))
    if not tasks or any(len({run["retrieval"][task]["sha256"] for run in runs}) > 1 for task in tasks):
        raise EvaluationError("the results files were measured on different questions or pages; evaluate all again")
    return runs


def update_readme(readme: Path, files: list[str], check: bool = False, plain: str = PLAIN) -> bool:
    """Put the table of ``files`` (paths from the README's folder) into ``readme``; returns whether it stood there.

    Args:
        files: Results files; those that the README names where empty.
        check: Write nothing.

    Raises:
        EvaluationError: no README, no place for the table in it, or results that cannot be shown.
    """
    try:
        text = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{readme}: cannot be read ({error.strerror})") from None
    region = _REGION.search(text)
    if region is None:
        raise EvaluationError(f"{readme}: has no place for the table; write <!-- results: FILE --> and {END} on lines")
    files = files or region["files"].split()
    table = markdown([readme_table(load_runs([readme.parent / file for file in files]), plain)])
    written = text[: region.start()] + f"<!-- results: {' '.join(files)} -->\n{table}{END}" + text[region.end() :]
    if written != text and not check:
        replace_file(readme, written)
    return written == text


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m finmatryoshka.eval readme", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="*", metavar="RESULTS.json", help="default: those that the README names")
    parser.add_argument("--readme", default="README.md", help="paths in it are from its folder")
    parser.add_argument("--plain", default=PLAIN, help="the model of --beside trained by plain MatryoshkaLoss")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the table is another")
    arguments = parser.parse_args(argv)
    readme = Path(arguments.readme)
    same = update_readme(readme, arguments.results, arguments.check, arguments.plain)
    if arguments.check and not same:
        raise EvaluationError(
            f"{readme}: its table is not what the results say; run python -m finmatryoshka.eval readme"
        )
    print(f"{readme}: the table is what the results say" if same else f"{readme}: table written")
