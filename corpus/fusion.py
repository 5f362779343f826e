"""Two rankings in one, until `eval.fusion` is there to import: the same functions, the same arguments."""

import numpy as np

from ..eval.retrieval import reciprocal_rank_fusion

DEFAULT_WEIGHT = 0.3


def z_scores(scores: np.ndarray) -> np.ndarray:
    """Each query's row of (queries × documents) scores standardised over the documents; 0 where a row is constant."""
    centred, spread = scores - scores.mean(axis=1, keepdims=True), scores.std(axis=1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred, dtype=np.float64), where=spread > 0)


def z_score_fusion(a: np.ndarray, b: np.ndarray, weight: float) -> np.ndarray:
    """(1 - ``weight``)·z(a) + ``weight``·z(b), per query."""
    return (1 - weight) * z_scores(a) + weight * z_scores(b)


__all__ = ["DEFAULT_WEIGHT", "reciprocal_rank_fusion", "z_score_fusion"]
