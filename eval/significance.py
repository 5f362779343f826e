"""Are two models, or two recipes over their seeds, really different? A paired bootstrap over queries."""

import json

import numpy as np

from .retrieval import EvaluationError


def paired_bootstrap(a: np.ndarray, b: np.ndarray, resamples: int = 10_000, seed: int = 13) -> dict[str, float]:
    """``difference`` of means b − a, its 95% interval ``low``..``high``, two-sided ``p``, by paired resampling."""
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.array(
        [differences[rng.integers(0, len(differences), len(differences))].mean() for _ in range(resamples)]
    )
    # the sample itself counts as one of the resamples: so many of them cannot show a p of 0
    tail = (1 + min((means <= 0).sum(), (means >= 0).sum())) / (1 + resamples)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "difference": float(differences.mean()),
        "low": float(low),
        "high": float(high),
        "p": float(min(1.0, 2 * tail)),
    }


def compare_results(a: list[dict], b: list[dict]) -> list[dict]:
    """One row per task and dimension that all results hold: means of the models under test, and the bootstrap.

    Args:
        a, b: Results of one model each, or of several seeds: a question then counts with its mean over them.

    Raises:
        EvaluationError: they share nothing or were measured on other data.
    """
    rows = []
    for task in [task for task in a[0]["retrieval"] if all(task in results["retrieval"] for results in [*a, *b])]:
        if len({results["retrieval"][task]["sha256"] for results in [*a, *b]}) > 1:
            raise EvaluationError(
                f"{task}: the results were measured on different questions or pages; evaluate all again"
            )
        x, y = ([_by_dimension(results, task) for results in side] for side in (a, b))
        for dim in sorted(set.intersection(*(set(by) for by in [*x, *y])), key=int, reverse=True):
            first, second = (
                np.mean([[by[dim][query] for query in x[0][dim]] for by in side], axis=0) for side in (x, y)
            )
            rows.append(
                {
                    "task": task,
                    "dim": int(dim),
                    "a": first.mean(),
                    "b": second.mean(),
                    **paired_bootstrap(first, second),
                }
            )
    if not rows:
        raise EvaluationError("the results share no task and dimension")
    return rows


def _by_dimension(results: dict, task: str) -> dict[str, dict[str, float]]:
    """nDCG@10 of every question by dimension, of the one model under test."""
    (name,) = results["models"]
    return results["retrieval"][task]["ndcg_by_query"][name]


def load_results(path: str) -> dict:
    try:
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
    except (OSError, json.JSONDecodeError) as error:
        raise EvaluationError(f"{path}: is no results file ({error})") from None
    if "retrieval" not in results or len(results.get("models", ())) != 1:
        raise EvaluationError(f"{path}: compare needs a results file of exactly one model, with retrieval")
    return results
