"""Recall@10 and latency of a search against the exact float32 one: by dimension, storage and number of candidates.

Pages are encoded once, at the largest dimension, and the vectors kept in a file: a shorter vector is the first numbers
of a longer one.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from ..data.schema import Page
from .embedding import Embedder
from .pages import page_row, read_pages
from .passages import split_page
from .schema import PAGE_SCHEMA, STORAGES, Identity
from .search import CorpusSearch
from .table import build_indices, write_rows
from .vectors import unit, with_vectors

TOP = 10


class KnownVectors:
    """Stands for the model where all vectors are at hand: it has an identity and encodes nothing."""

    def __init__(self, identity: Identity):
        self._identity = identity

    def identity(self, storage: str) -> Identity:
        return self._identity


@dataclass
class Encoded:
    """(n,) rows of `PAGE_SCHEMA` and questions, with their (n, dim) float32 unit vectors."""

    pages: pa.Table
    page_vectors: np.ndarray
    questions: list[str]
    question_vectors: np.ndarray


def encoded(files: Sequence[str], questions: list[str], embedder: Embedder, passages: bool, kept: str) -> Encoded:
    """Pages of ``files``, or their distinct sentences and table rows, and ``questions``: from the file ``kept`` (.npz)
    where it holds the vectors of just these by this model, else encoded and written there."""
    rows = list(read_pages(files))
    if passages:
        texts = {passage: row["id"] for row in rows for passage in split_page(row["text"])}
        rows = [page_row(Page(f"{page}:{i}", passage)) for i, (passage, page) in enumerate(texts.items())]
    key = hashlib.sha256(repr([embedder.identity("float32"), questions, [r["digest"] for r in rows]]).encode())
    if Path(kept).is_file():
        file = np.load(kept)
        if str(file["key"]) == key.hexdigest():
            return Encoded(pa.Table.from_pylist(rows, PAGE_SCHEMA), file["pages"], questions, file["questions"])
    started = time.perf_counter()
    page_vectors = embedder.encode_pages([row["text"] for row in rows])
    question_vectors = embedder.encode_queries(questions)
    print(f"encoded {len(rows):,} texts in {time.perf_counter() - started:.1f} s", flush=True)
    np.savez(kept, key=key.hexdigest(), pages=page_vectors, questions=question_vectors)
    return Encoded(pa.Table.from_pylist(rows, PAGE_SCHEMA), page_vectors, questions, question_vectors)


def recall_of_storage(data: Encoded, dims: Sequence[int], candidates: Sequence[int]) -> Iterator[dict]:
    """Figures of every dimension, storage and search: ``recall`` is against the exact search over float32 vectors of
    the same dimension, ``bytes`` what a page takes on disk with its text and indices."""
    for dim in dims:
        vectors, queries = unit(data.page_vectors[:, :dim]), unit(data.question_vectors[:, :dim])
        nearest = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :TOP]
        ids = np.array(data.pages["id"].to_pylist())[nearest]
        for storage in STORAGES:
            with tempfile.TemporaryDirectory() as folder:
                corpus, size = _table(f"{folder}/t.lance", data.pages, vectors, storage)
                for name, options in _searches(corpus, candidates):
                    found, ms = timed(corpus, data.questions, queries, mode="vector", **options)
                    recall = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(ids, found)])
                    p50, p95 = np.percentile(ms, [50, 95])
                    yield {"dim": dim, "storage": storage, "search": name, "recall": recall, "p50": p50, "p95": p95,
                           "bytes": size / len(vectors)}  # fmt: skip


def _table(path: str, pages: pa.Table, vectors: np.ndarray, storage: str) -> tuple[CorpusSearch, int]:
    """A table of known vectors with its approximate indices, however few the rows, and its bytes on disk."""
    identity = Identity("known vectors", "0" * 16, vectors.shape[1], storage, 0, {})
    table = write_rows(path, None, with_vectors(pages, vectors, identity.table_schema(), storage))
    build_indices(path, table, approximate_from=1)
    size = sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())
    return CorpusSearch(path, embedder=cast(Embedder, KnownVectors(identity))), size


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
