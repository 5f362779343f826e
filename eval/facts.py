"""Fact retrieval as the FinQA paper measures its retriever: rank a page's own sentences and table rows for a question.

Recall@k is the share of a question's ``gold_inds`` among its k best facts, averaged over questions (Chen et al. 2021,
"FinQA: A Dataset of Numerical Reasoning over Financial Data", the retriever's evaluation).
"""

import numpy as np

from ..data.schema import Example
from .retrieval import EncodeOnce, cosine

CUTOFFS = (3, 5)


def recall_at(ranked: list[str], gold: set[str], k: int) -> float:
    """|gold ∩ first k| / |gold|."""
    return len(gold & set(ranked[:k])) / len(gold)


def evaluate_facts(model, examples: list[Example], dims: list[int]) -> dict[int, dict[str, float]]:
    """``recall@3`` and ``recall@5`` by dimension, over the examples that name gold facts; empty where none does.

    Each dimension also has ``chance@3`` and ``chance@5``: what a random order of the same facts would score.
    """
    named = [example for example in examples if not example.gold_derived]  # read off a program, it is no annotation
    examples = [example for example in named if set(example.gold) & example.facts.keys()]
    if not examples:
        return {}
    texts = list(dict.fromkeys(fact for example in examples for fact in example.facts.values()))
    position = {text: i for i, text in enumerate(texts)}
    shared = EncodeOnce.of(model)
    chance = {f"chance@{k}": float(np.mean([min(1, k / len(e.facts)) for e in examples])) for k in CUTOFFS}
    results = {}
    for dim in dims:
        facts = shared.encode_document(texts, truncate_dim=dim)
        questions = shared.encode_query([example.question for example in examples], truncate_dim=dim)
        recalls: dict[int, list[float]] = {k: [] for k in CUTOFFS}
        for example, question in zip(examples, questions):
            names = list(example.facts)
            scores = cosine(question[None], facts[[position[example.facts[name]] for name in names]])[0].numpy()
            ranked = [names[i] for i in np.argsort(-scores, kind="stable")]
            for k in CUTOFFS:
                recalls[k].append(recall_at(ranked, set(example.gold) & example.facts.keys(), k))
        results[dim] = {f"recall@{k}": float(np.mean(values)) for k, values in recalls.items()} | chance
    return results
