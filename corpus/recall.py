"""Recall@10 and latency of a search against the exact float32 one: by dimension, storage and number of candidates.

The vectors are those of a table that `index` wrote: a shorter vector is the first numbers of a longer one.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa

from ..eval.quantization import unit
from .embedding import Embedder
from .schema import PAGE_SCHEMA, STORAGES, CorpusError, Identity
from .search import CorpusSearch
from .table import build_indices, size_on_disk, write_rows
from .vectors import as_matrix, with_vectors

TOP = 10


class KnownVectors:
    """Stands for the model where all vectors are at hand: it has an identity and encodes nothing."""

    def __init__(self, identity: Identity):
        self._identity = identity

    def identity(self, storage: str) -> Identity:
        return self._identity


def recall_of_table(
    corpus: CorpusSearch, questions: list[str], dims: Sequence[int], candidates: Sequence[int]
) -> Iterator[dict]:
    """`recall_of_storage` of the pages and vectors that ``corpus`` holds. Raises `CorpusError` where these are rounded
    or narrower than ``dims``."""
    identity = corpus.identity
    if identity.storage != "float32" or identity.dim < max(dims):
        raise CorpusError(
            f"{corpus.path}: holds {identity.storage} vectors of {identity.dim} dimensions; recall at {max(dims)} is "
            f"measured on a table indexed with --storage float32 --dim {max(dims)}"
        )
    rows = corpus.table.to_arrow()
    vectors, asked = as_matrix(rows["vector"]), corpus.embedder.encode_queries(questions)
    return recall_of_storage(rows.select(PAGE_SCHEMA.names), vectors, questions, asked, dims, candidates)


def recall_of_storage(
    pages: pa.Table, page_vectors: np.ndarray, questions: list[str], question_vectors: np.ndarray,
    dims: Sequence[int], candidates: Sequence[int],
) -> Iterator[dict]:  # fmt: skip
    """Figures of every dimension, storage and search: ``recall`` is against the exact search over float32 vectors of
    the same dimension, ``bytes`` what a page takes on disk with its text and indices.

    Args:
        pages, page_vectors: (n,) rows of `PAGE_SCHEMA` with their (n, dim) float32 unit vectors.
        questions, question_vectors: Likewise; only the vectors are searched with.
        candidates: How many pages an index names.
    """
    for dim in dims:
        vectors, queries = unit(page_vectors[:, :dim]), unit(question_vectors[:, :dim])
        nearest = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :TOP]
        ids = np.array(pages["id"].to_pylist())[nearest]
        for storage in STORAGES:
            with tempfile.TemporaryDirectory() as folder:
                corpus, size = _table(f"{folder}/t.lance", pages, vectors, storage)
                for name, options in _searches(corpus, candidates):
                    found, ms = timed(corpus, questions, queries, mode="vector", **options)
                    recall = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(ids, found)])
                    p50, p95 = np.percentile(ms, [50, 95])
                    yield {"dim": dim, "storage": storage, "search": name, "recall": recall, "p50": p50, "p95": p95,
                           "bytes": size / len(vectors)}  # fmt: skip


def _table(path: str, pages: pa.Table, vectors: np.ndarray, storage: str) -> tuple[CorpusSearch, int]:
    """A table of known vectors with its approximate indices, however few the rows, and its bytes on disk."""
    identity = Identity("known vectors", "0" * 16, vectors.shape[1], storage, 0, {})
    table = write_rows(path, None, with_vectors(pages, vectors, identity.table_schema(), storage))
    build_indices(path, table, approximate_from=1)
    return CorpusSearch(path, embedder=cast(Embedder, KnownVectors(identity))), size_on_disk(path) or 0


def _searches(corpus: CorpusSearch, candidates: Sequence[int]) -> Iterator[tuple[str, dict]]:
    """The exact search, and with every number of candidates those by the vectors' index and by the prefix's."""
    yield "exact", {"exact": True}
    prefix = "prefix" in corpus.table.schema.names
    for count in candidates:
        if corpus.identity.storage != "int8":  # of int8 vectors only the prefix has an index
            yield f"index, {count}", {"exact": False, "candidates": count}
        if prefix:
            yield f"prefix, {count}", {"prefix": True, "candidates": count}


def timed(corpus: CorpusSearch, queries: list[str], vectors: np.ndarray, **options) -> tuple[list, list[float]]:
    """The first ten ids of every query by ``CorpusSearch.rank(**options)``, and the milliseconds of each."""
    found, milliseconds = [], []
    corpus.rank(queries[0], TOP, query_vector=vectors[0], **options)  # the first query opens files
    for query, vector in zip(queries, vectors):
        started = time.perf_counter()
        found.append(corpus.rank(query, TOP, query_vector=vector, **options)[0])
        milliseconds.append((time.perf_counter() - started) * 1000)
    return found, milliseconds
