"""Financial concepts: do terms of one meaning lie closer than related and unrelated ones, at every dimension?

``concepts.csv`` holds the pairs (ours): two terms or questions, their class (same, related, unrelated) and a subset;
``pair`` marks the four pairs that the earlier project looked at, whose similarities are shown one by one.
"""

import csv
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from .retrieval import EncodeOnce

CLASSES = ("same", "related", "unrelated")


def load_concepts() -> list[dict[str, str]]:
    with open(Path(__file__).with_name("concepts.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def concept_similarities(model, dims: list[int]) -> dict[int, np.ndarray]:
    """By dimension, the cosine of every pair of ``concepts.csv``, in its order."""
    pairs = load_concepts()
    shared = EncodeOnce.of(model)
    similarities = {}
    for dim in dims:
        a, b = (
            shared.encode_query([pair[side] for pair in pairs], truncate_dim=dim).double().numpy()
            for side in ("a", "b")
        )
        similarities[dim] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return similarities


def concept_scores(similarities: np.ndarray) -> dict[str, float]:
    """Mean per class, AUC of same against unrelated (chance: 0.5), share of unrelated under 0.3, the shown pairs."""
    pairs = load_concepts()
    by_class = {name: similarities[[pair["class"] == name for pair in pairs]] for name in CLASSES}
    labels = np.repeat([1, 0], [len(by_class["same"]), len(by_class["unrelated"])])
    figures = {f"mean_{name}": float(values.mean()) for name, values in by_class.items()}
    figures["auc_same_unrelated"] = float(
        roc_auc_score(labels, np.concatenate([by_class["same"], by_class["unrelated"]]))
    )
    figures["unrelated_under_0.3"] = float((by_class["unrelated"] < 0.3).mean())
    for pair, similarity in zip(pairs, similarities):
        if pair["subset"] == "pair":
            figures[f"pair: {pair['a']} / {pair['b']}"] = float(similarity)
    return figures
