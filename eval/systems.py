"""All systems that rank the pages of a task, side by side: models, BM25, both fused, untouched encoder, baselines."""

import hashlib
import json
import logging

import numpy as np

from ..data.encoders import BackboneError
from ..data.schema import Example
from .baselines import label_id_baseline, projection_baselines
from .fusion import DEFAULT_WEIGHT, choose_weight, reciprocal_rank_fusion, z_score_fusion
from .numeric import labelled
from .retrieval import (
    HALVES,
    EncodeOnce,
    RetrievalScores,
    RetrievalTask,
    bm25_scores,
    evaluate_retrieval,
    score_matrix,
    similarity_matrix,
)
from .tables import BM25_PAIRS, PAIRS_Z_SCORES

logger = logging.getLogger(__name__)

BM25 = "BM25"
LABEL_ID_BASELINE = "label-id baseline"
RECIPROCAL_RANKS, Z_SCORES = "reciprocal ranks", "z-scores"

Scores = dict[str, dict[int, RetrievalScores]]


def base_name(length: int) -> str:
    """What the untouched encoder is called where it reads ``length`` tokens of a text."""
    return f"base at {length} tokens"


def base_at_lengths(base: EncodeOnce, lengths: list[int]) -> dict[int, EncodeOnce]:
    """The untouched encoder at its own length and at each of ``lengths``, where a model's gain is training's alone.

    A length that its positions cannot be extended to is left out, with a warning.
    """
    encoders = {base.model.max_seq_length: base}
    for length in lengths:
        try:
            encoders[length] = base.at_length(length)
        except BackboneError as error:
            logger.warning("the base is not compared at %d tokens: %s", length, error)
    return encoders


def compare_systems(
    tasks: list[RetrievalTask], models: dict[str, EncodeOnce], beside: dict[str, EncodeOnce],
    dims: dict[str, list[int]], base: EncodeOnce | None, base_dims: list[int], fit: list[Example],
    trained_on: list[Example] | None, seed: int,
) -> tuple[dict, dict]:  # fmt: skip
    """The results' ``retrieval`` and ``fusion`` (docs/results.md).

    Args:
        models, beside, dims: What is measured, all of it and in the retrieval tables alone, and at which dimensions.
        base, base_dims: The untouched encoder, and at which dimensions it stands beside them.
        fit: What projections and the label-id baseline are fitted on.
        trained_on: Whose pages count as training pages; None where that is not known.
        seed: Of the baselines.
    """
    projected = projection_baselines(base, tasks, base_dims, fit, seed) if base is not None else {}
    labels = label_id_baseline(base, tasks, base_dims, fit, seed) if base is not None and labelled(fit) else None
    lexical = {task.name: bm25_scores(task) for task in tasks}
    pairs = {task.name: bm25_scores(task, pairs=True) for task in tasks}
    fusion = fusion_weights(tasks, lexical, pairs, models, dims)
    results = {}
    for task in tasks:
        systems: Scores = {name: evaluate_retrieval(m, task, dims[name]) for name, m in (models | beside).items()}
        systems[BM25] = {0: score_matrix(task, lexical[task.name])}
        systems[BM25_PAIRS] = {0: score_matrix(task, pairs[task.name])}
        if base is not None:
            width = base.encode_query(["width"]).shape[1]
            at = [dim for dim in dict.fromkeys([*base_dims, width]) if dim <= width]
            lengths = [model.model.max_seq_length for model in models.values() if model.model.max_seq_length]
            for length, encoder in base_at_lengths(base, lengths).items():
                systems[base_name(length)] = evaluate_retrieval(encoder, task, at)
        systems |= {name: by_task[task.name] for name, by_task in projected.items()}
        if labels:
            systems[LABEL_ID_BASELINE] = labels["retrieval"][task.name]
        fused = {
            name: _fused(
                task,
                model,
                lexical[task.name],
                pairs[task.name],
                fusion["weights"][name],
                fusion["pairs_weights"][name],
            )
            for name, model in models.items()
        }
        results[task.name] = {
            "queries": len(task.queries),
            "pages": len(task.corpus),
            "training_pages": None if trained_on is None else task.known_pages(trained_on),
            "sha256": hashlib.sha256(json.dumps(task.contents()).encode()).hexdigest(),
            "systems": {name: _metrics(by_dim) for name, by_dim in systems.items()},
            "fused": {name: {how: _metrics(s) for how, s in by_how.items()} for name, by_how in fused.items()},
            "halves": _halves(task, systems, fused),
            "ndcg_by_query": {name: {str(dim): s.ndcg_by_query for dim, s in systems[name].items()} for name in models},
        }
        if labels:
            results[task.name]["label_id_baseline"] = {name: labels[name] for name in ("loss", "constant")}
    return results, fusion


def fusion_weights(
    tasks: list[RetrievalTask], lexical: dict[str, np.ndarray], pairs: dict[str, np.ndarray],
    models: dict[str, EncodeOnce], dims: dict[str, list[int]],
) -> dict:  # fmt: skip
    """``weights`` of BM25, ``pairs_weights`` of that with pairs, by model and dimension, from the choosing half of the
    first FinQA task (``chosen_on``)."""
    chosen_on = next((task for task in tasks if task.schema.startswith("finqa") and task.half("choosing")), None)

    def weights(words: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return {
            name: {
                str(dim): choose_weight(chosen_on, similarity_matrix(model, chosen_on, dim), words[chosen_on.name])
                if chosen_on
                else DEFAULT_WEIGHT
                for dim in dims[name]
            }
            for name, model in models.items()
        }

    return {
        "chosen_on": chosen_on.name if chosen_on else None,
        "weights": weights(lexical),
        "pairs_weights": weights(pairs),
    }


def _fused(
    task: RetrievalTask, model: EncodeOnce, lexical: np.ndarray, pairs: np.ndarray, weights: dict[str, float],
    pairs_weights: dict[str, float],
) -> Scores:  # fmt: skip
    scores: Scores = {RECIPROCAL_RANKS: {}, Z_SCORES: {}, PAIRS_Z_SCORES: {}}
    for dim, weight in weights.items():
        dense = similarity_matrix(model, task, int(dim))
        scores[RECIPROCAL_RANKS][int(dim)] = score_matrix(task, reciprocal_rank_fusion(dense, lexical))
        scores[Z_SCORES][int(dim)] = score_matrix(task, z_score_fusion(dense, lexical, weight))
        scores[PAIRS_Z_SCORES][int(dim)] = score_matrix(task, z_score_fusion(dense, pairs, pairs_weights[dim]))
    return scores


def _metrics(by_dim: dict[int, RetrievalScores]) -> dict[str, dict[str, float]]:
    return {str(dim): scores.metrics for dim, scores in by_dim.items()}


def _halves(task: RetrievalTask, systems: Scores, fused: dict[str, Scores]) -> dict:
    """nDCG@10 of everything on either half of the questions; empty where all are on one."""
    queries = {half: task.half(half) for half in HALVES}
    if not all(queries.values()):
        return {}

    def ndcg(by_dim: dict[int, RetrievalScores], half: str) -> dict[str, float]:
        return {str(dim): scores.ndcg_of(queries[half]) for dim, scores in by_dim.items()}

    return {
        half: {
            "queries": len(queries[half]),
            "systems": {name: ndcg(by_dim, half) for name, by_dim in systems.items()},
            "fused": {name: {how: ndcg(s, half) for how, s in by_how.items()} for name, by_how in fused.items()},
        }
        for half in HALVES
    }
