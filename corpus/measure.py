"""The command that prints the figures of docs/corpus.md: quality beside eval's fusion, latency, recall, a made
table."""

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from ..data.loading import load_source
from ..eval.fusion import DEFAULT_WEIGHT, best_share_fusion
from ..eval.quantization import unit
from ..eval.retrieval import EncodeOnce, RetrievalScores, RetrievalTask, bm25_scores, score_matrix, similarity_matrix
from .duplicates import read_questions
from .embedding import DEFAULT_MODEL, Embedder
from .index import IndexPlan, index_pages
from .recall import KnownVectors, recall_of_table, timed
from .schema import CorpusError, Identity
from .search import CANDIDATES, CorpusSearch
from .table import build_indices, open_corpus, write_rows
from .vectors import as_matrix, with_vectors

EXACT_QUERIES = 10
_BLOCK = 50_000


def add_options(command: argparse.ArgumentParser) -> None:
    kinds = command.add_subparsers(dest="kind", required=True)
    quality = kinds.add_parser("quality", help="nDCG@10 and the share of questions whose page is first")
    quality.add_argument("file")
    quality.add_argument("--model", default=DEFAULT_MODEL)
    quality.add_argument("--dim", type=int, default=128)
    speed = kinds.add_parser("search", help="latency, and recall@10 of the approximate search against the exact one")
    speed.add_argument("table")
    speed.add_argument("--model")
    speed.add_argument("--questions", required=True, help="a labelled file or a .txt file")
    speed.add_argument("--queries", type=int, default=200)
    storage = kinds.add_parser("recall", help="recall@10 by dimension, storage and number of candidates")
    storage.add_argument("table", help="indexed with --storage float32 and as wide as the largest of --dims")
    storage.add_argument("--model")
    storage.add_argument("--questions", required=True, help="a labelled file or a .txt file")
    storage.add_argument("--dims", type=int, nargs="+", default=[64, 128, 256])
    storage.add_argument("--candidates", type=int, nargs="+", default=[CANDIDATES])
    storage.add_argument("--queries", type=int, default=200)
    difference = kinds.add_parser("difference", help="how far two tables' vectors of the same pages lie apart")
    difference.add_argument("table")
    difference.add_argument("other")
    synthetic = kinds.add_parser("synthetic", help="the same on a made table of random vectors")
    synthetic.add_argument("table", help="where to write it")
    synthetic.add_argument("--rows", type=int, default=1_000_000)
    synthetic.add_argument("--dim", type=int, default=128)
    synthetic.add_argument("--queries", type=int, default=100)
    synthetic.add_argument("--seed", type=int, default=13)


def run(arguments: argparse.Namespace) -> None:
    if arguments.kind == "quality":
        print(f"{'':<20} {'nDCG@10':>8} {'first':>8}")
        for name, scores in quality(arguments.file, arguments.model, arguments.dim).items():
            print(f"{name:<20} {scores.ndcg:8.4f} {scores.metrics['accuracy@1']:8.4f}")
    elif arguments.kind == "search":
        corpus = CorpusSearch(arguments.table, arguments.model)
        queries = read_questions(arguments.questions)[: arguments.queries]
        _print_speed(search_speed(corpus, queries, corpus.embedder.encode_queries(queries)))
    elif arguments.kind == "recall":
        corpus = CorpusSearch(arguments.table, arguments.model)
        queries = read_questions(arguments.questions)[: arguments.queries]
        _print_recall(recall_of_table(corpus, queries, arguments.dims, arguments.candidates))
    elif arguments.kind == "difference":
        pages, largest = difference(arguments.table, arguments.other)
        print(f"{pages:,} pages in both, no number of a vector further apart than {largest:.1e}")
    else:
        corpus, vectors = synthetic_table(arguments)
        queries = [f"w{i % 1000} w{(7 * i) % 1000}" for i in range(arguments.queries)]
        _print_speed(search_speed(corpus, queries, vectors))


def quality(file: str, model: str, dim: int) -> dict[str, RetrievalScores]:
    """Scores by mode of a table of ``file``'s pages, and of `eval`'s BM25 of words and pairs and its fusion over the
    same pages and questions."""
    task = RetrievalTask.of("quality", load_source(file).examples)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "quality.lance")
        index_pages(IndexPlan([file], path, model, dim, progress=False))
        corpus = CorpusSearch(path, model)
        embedder = corpus.embedder
        vectors = embedder.encode_queries(list(task.queries.values()))
        figures = {
            f"corpus {mode}": score_matrix(task, _matrix(corpus, task, vectors, mode))
            for mode in ("vector", "text", "hybrid")
        }
    dense, words = similarity_matrix(EncodeOnce(embedder.model), task, dim), bm25_scores(task, pairs=True)
    fused = best_share_fusion(dense, words, DEFAULT_WEIGHT)
    for name, scores in {"vector": dense, "text (bm25s)": words, "hybrid": fused}.items():
        figures[f"eval {name}"] = score_matrix(task, scores)
    return figures


def _matrix(corpus: CorpusSearch, task: RetrievalTask, vectors: np.ndarray, mode: str) -> np.ndarray:
    """(queries × documents): minus the rank for the first ten, less for the others."""
    position = {page: i for i, page in enumerate(task.corpus)}
    scores = np.full((len(task.queries), len(position)), -1000.0)
    for row, (query, vector) in enumerate(zip(task.queries.values(), vectors)):
        ids, _ = corpus.rank(query, 10, mode, query_vector=vector)
        scores[row, [position[i] for i in ids]] = -np.arange(len(ids))
    return scores


def search_speed(corpus: CorpusSearch, queries: list[str], vectors: np.ndarray) -> Iterator[dict]:
    """Milliseconds at p50 and p95 without the encoder, and recall@10 of the first `EXACT_QUERIES` against the exact
    search of the same mode; None of that itself and of the text search, which is always exact."""
    variants: dict[str, tuple[str, dict]] = {"vector": ("vector", {})}
    if "prefix" in corpus.table.schema.names:
        variants["vector, prefix"] = ("vector", {"prefix": True})
    variants |= {"text": ("text", {}), "hybrid": ("hybrid", {})}
    for name, (mode, options) in variants.items():
        few = slice(EXACT_QUERIES)  # an exact hybrid search reads every vector
        exact, exact_ms = timed(corpus, queries[few], vectors[few], mode=mode, exact=True)
        found, found_ms = timed(corpus, queries, vectors, mode=mode, **options)
        recall = float(np.mean([len(set(a) & set(b)) / max(1, len(a)) for a, b in zip(exact, found)]))
        timings = (
            {name: found_ms} if name in ("text", "vector, prefix") else {name: found_ms, f"{name}, exact": exact_ms}
        )
        for variant, ms in timings.items():
            p50, p95 = np.percentile(ms, [50, 95])
            share = None if "exact" in variant or name == "text" else recall
            yield {"search": variant, "p50": p50, "p95": p95, "recall@10": share}


def _print_speed(rows: Iterable[dict]) -> None:
    print(f"{'search':<22} {'p50 ms':>8} {'p95 ms':>8} recall@10 of {EXACT_QUERIES} queries")
    for row in rows:
        share = "–" if row["recall@10"] is None else f"{row['recall@10']:.3f}"
        print(f"{row['search']:<22} {row['p50']:8.1f} {row['p95']:8.1f} {share:>9}", flush=True)


def _print_recall(rows: Iterable[dict]) -> None:
    print(f"{'dim':>4} {'storage':<8} {'search':<12} {'recall@10':>9} {'p50 ms':>8} {'p95 ms':>8} {'bytes/page':>10}")
    for row in rows:
        print(
            f"{row['dim']:>4} {row['storage']:<8} {row['search']:<12} {row['recall']:9.3f} {row['p50']:8.1f} "
            f"{row['p95']:8.1f} {row['bytes']:10,.0f}",
            flush=True,
        )


def difference(path: str, other: str) -> tuple[int, float]:
    """(pages, largest absolute difference of a vector's number). Raises `CorpusError` where the pages are not the same
    or the models are not."""
    (table, identity), (other_table, other_identity) = open_corpus(path), open_corpus(other)
    identity.check(other_identity, path)
    rows, others = table.to_arrow().sort_by("id"), other_table.to_arrow().sort_by("id")
    if rows["digest"] != others["digest"]:
        raise CorpusError(f"{path} and {other} do not hold the same pages ({len(rows):,} and {len(others):,})")
    return len(rows), float(np.abs(as_matrix(rows["vector"]) - as_matrix(others["vector"])).max())


def synthetic_table(arguments: argparse.Namespace) -> tuple[CorpusSearch, np.ndarray]:
    """A table of ``rows`` unit vectors around 1,000 centres, with short texts, and (queries, dim) vectors near
    pages."""
    if Path(arguments.table).exists():
        raise CorpusError(f"{arguments.table}: exists; name a table that is not there")
    rng = np.random.default_rng(arguments.seed)
    centres = unit(rng.standard_normal((1000, arguments.dim)))

    def around(count: int) -> np.ndarray:
        noise = rng.standard_normal((count, arguments.dim)) / np.sqrt(arguments.dim)
        return unit(centres[rng.integers(len(centres), size=count)] + 0.7 * noise)

    identity = Identity("synthetic", "0" * 16, arguments.dim, "float32", 0, {})
    table, started = None, time.perf_counter()
    for start in range(0, arguments.rows, _BLOCK):
        count = min(_BLOCK, arguments.rows - start)
        rows = with_vectors(_synthetic_pages(rng, start, count), around(count), identity.table_schema(), "float32")
        table = write_rows(arguments.table, table, rows)
    written = time.perf_counter()
    build_indices(arguments.table, table)
    print(f"written in {written - started:.1f} s, indices built in {time.perf_counter() - written:.1f} s")
    return CorpusSearch(arguments.table, embedder=cast(Embedder, KnownVectors(identity))), around(arguments.queries)


def _synthetic_pages(rng: np.random.Generator, start: int, count: int) -> pa.Table:
    words = rng.integers(1000, size=(count, 8))
    numbers = range(start, start + count)
    return pa.table(
        {
            "id": [f"report/{i}" for i in numbers],
            "text": [" ".join(f"w{word}" for word in row) for row in words],
            "company": [f"company {i % 500}" for i in numbers],
            "year": pa.array([2000 + i % 25 for i in numbers], pa.int32()),
            "document": ["report"] * count,
            "page": [str(i) for i in numbers],
            "digest": [f"{value:016x}" for value in rng.integers(2**64 - 1, dtype=np.uint64, size=count)],
        }
    )
