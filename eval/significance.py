"""Are two results files really different? A paired bootstrap over queries."""

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


def compare_results(a: dict, b: dict) -> list[dict]:
    """One row per task and dimension that both results hold: means of the models under test, and the bootstrap.

    Raises `EvaluationError` when they share nothing or were measured on other data.
    """
    rows = []
    for task in [task for task in a["retrieval"] if task in b["retrieval"]]:
        ours, theirs = a["retrieval"][task]["ndcg_by_query"], b["retrieval"][task]["ndcg_by_query"]
        if a["retrieval"][task]["sha256"] != b["retrieval"][task]["sha256"]:
            raise EvaluationError(
                f"{task}: the two results were measured on different questions or pages; evaluate both again"
            )
        (x,), (y,) = (ours[name] for name in a["models"]), (theirs[name] for name in b["models"])
        for dim in sorted(x.keys() & y.keys(), key=int, reverse=True):
            first, second = (np.array([by[dim][q] for q in x[dim]]) for by in (x, y))
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
        raise EvaluationError("the two results share no task and dimension")
    return rows


def load_results(path: str) -> dict:
    try:
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
    except (OSError, json.JSONDecodeError) as error:
        raise EvaluationError(f"{path}: is no results file ({error})") from None
    if "retrieval" not in results or len(results.get("models", ())) != 1:
        raise EvaluationError(f"{path}: compare needs a results file of exactly one model, with retrieval")
    return results
