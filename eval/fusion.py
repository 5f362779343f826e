"""Two rankings in one: by reciprocal ranks, or by a weighted sum of similarities, z-scored or as they are."""

import numpy as np

from .retrieval import RetrievalTask, score_matrix

WEIGHTS = [round(0.1 * step, 1) for step in range(1, 10)]
# Where there is nothing to choose on: twice as much of the vectors as of the words.
DEFAULT_WEIGHT = 0.3


def reciprocal_rank_fusion(*matrices: np.ndarray, k: int = 60) -> np.ndarray:
    """Σ 1/(k + rank) over the systems (Cormack, Clarke and Buettcher 2009, k = 60)."""
    ranks = [np.argsort(np.argsort(-m, axis=1, kind="stable"), axis=1, kind="stable") for m in matrices]
    return np.sum([1 / (k + 1 + rank) for rank in ranks], axis=0)


def z_scores(scores: np.ndarray) -> np.ndarray:
    """Each query's row of (queries × documents) scores standardised over the documents; 0 where a row is constant."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    spread = scores.std(axis=1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred, dtype=np.float64), where=spread > 0)


def z_score_fusion(a: np.ndarray, b: np.ndarray, weight: float) -> np.ndarray:
    """(1 − ``weight``)·z(a) + ``weight``·z(b), per query: the convex combination of Bruch, Gai and Ingber 2023.

    Args:
        a, b: (queries × documents) scores of two systems.
        weight: From 0 (``a`` alone) to 1 (``b`` alone).
    """
    return (1 - weight) * z_scores(a) + weight * z_scores(b)


def best_share_fusion(cosines: np.ndarray, words: np.ndarray, weight: float) -> np.ndarray:
    """(1 − ``weight``)·cosine + ``weight``·BM25 / the query's best BM25.

    Cosines have a scale of their own. BM25 has none, but its least score is known, 0 (the theoretical minimum of Bruch,
    Gai and Ingber 2023), and a search for words gives the best: nothing has to be known of all other pages.

    Args:
        cosines, words: (queries × documents).
        weight: From 0 (``cosines`` alone) to 1 (``words`` alone).
    """
    best = words.max(axis=1, keepdims=True, initial=0)  # of no documents, too
    shares = np.divide(words, best, out=np.zeros_like(words, dtype=np.float64), where=best > 0)
    return (1 - weight) * cosines + weight * shares


def choose_weight(task: RetrievalTask, a: np.ndarray, b: np.ndarray) -> float:
    """The one of `WEIGHTS` with the best nDCG@10 on the choosing half of ``task``; of equals the nearest to a half.

    `DEFAULT_WEIGHT` where no query is on that half.
    """
    queries = task.half("choosing")
    if not queries:
        return DEFAULT_WEIGHT
    ndcg = {weight: score_matrix(task, z_score_fusion(a, b, weight)).ndcg_of(queries) for weight in WEIGHTS}
    return max(WEIGHTS, key=lambda weight: (ndcg[weight], -abs(weight - 0.5)))
