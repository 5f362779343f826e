"""What a vector costs: nDCG@10 over bytes per vector, int8 and binary, with and without rescoring."""

import numpy as np
from sentence_transformers.util.quantization import quantize_embeddings

from .retrieval import EncodeOnce, RetrievalTask, score_matrix

RESCORED = 100


def evaluate_cost(model: EncodeOnce, task: RetrievalTask, dims: list[int]) -> list[dict]:
    """One row per dimension and storage: ``dim``, ``storage``, ``bytes`` per stored vector, ``ndcg@10``.

    int8 takes its ranges from the stored vectors. "rescored" ranks by the quantised query first and the best 100 again
    by the float query against the stored (quantised) vectors, so nothing more is stored.
    """
    rows = []
    for dim in dims:
        queries, pages = (
            unit(model.encode_query(list(task.queries.values()), truncate_dim=dim)),
            unit(model.encode_document(list(task.corpus.values()), truncate_dim=dim)),
        )
        low, high = pages.min(axis=0), pages.max(axis=0)
        ranges = np.stack([low, np.where(high > low, high, low + 1e-6)])
        int8 = np.asarray(quantize_embeddings(pages, "int8", ranges=ranges), dtype=np.float32)
        clipped = np.clip(queries, ranges[0], ranges[1])
        int8_queries = np.asarray(quantize_embeddings(clipped, "int8", ranges=ranges), dtype=np.float32)
        steps = (ranges[1] - ranges[0]) / 255
        restored = (int8 + 128) * steps + ranges[0]
        restored_queries = (int8_queries + 128) * steps + ranges[0]
        bits = np.unpackbits(quantize_embeddings(pages, "ubinary"), axis=1)[:, :dim].astype(np.float32)
        query_bits = np.unpackbits(quantize_embeddings(queries, "ubinary"), axis=1)[:, :dim].astype(np.float32)
        signs, query_signs = 2 * bits - 1, 2 * query_bits - 1
        variants = {
            "float32": (4 * dim, queries @ pages.T),
            "int8": (dim, unit(restored_queries) @ unit(restored).T),
            "int8 rescored": (dim, _rescore(unit(restored_queries) @ unit(restored).T, queries @ unit(restored).T)),
            "binary": (-(-dim // 8), query_signs @ signs.T),
            "binary rescored": (-(-dim // 8), _rescore(query_signs @ signs.T, queries @ signs.T)),
        }
        for storage, (size, scores) in variants.items():
            rows.append({"dim": dim, "storage": storage, "bytes": size, "ndcg@10": score_matrix(task, scores).ndcg})
    return rows


def unit(vectors) -> np.ndarray:
    """Rows of length 1, float32."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def _rescore(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Scores that keep ``first``'s best `RESCORED` per row and order those by ``second``."""
    if first.shape[1] <= RESCORED:
        return second
    scores = np.full_like(second, -np.inf)
    kept = np.argpartition(-first, RESCORED, axis=1)[:, :RESCORED]
    np.put_along_axis(scores, kept, np.take_along_axis(second, kept, axis=1), axis=1)
    return scores
