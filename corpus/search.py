"""Questions to ranked pages: by vector, by words and phrases, or by both as one weighted sum.

Up to `EXACT_ROWS` pages behind the filter, and without an approximate index, every page is scored, exactly. Else that
index and the full-text index name candidates, which are scored exactly. The vectors of up to `KEPT` pages that every
question is held against stay in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..eval.fusion import DEFAULT_WEIGHT, best_share_fusion, reciprocal_rank_fusion
from ..eval.quantization import unit
from .embedding import Embedder
from .fulltext import text_query
from .passages import best_passages
from .schema import PREFIX_DIM, CorpusError
from .table import has_index, is_indexed, one_line, open_corpus
from .vectors import as_matrix

MODES = ("hybrid", "vector", "text")
FUSIONS = ("best_share", "reciprocal_ranks")
CANDIDATES = 500
EXACT_ROWS = 20_000
KEPT = 50_000  # vectors that stay in memory for the next question
PROBES = 20  # partitions of the approximate index that a query reads
_HIT_COLUMNS = ["id", "document", "page", "company", "year", "text"]


@dataclass
class Hit:
    """One answer. ``score`` is a cosine (vector), BM25 (text), or the fused score (hybrid); ``passage`` None if not
    asked."""

    rank: int
    score: float
    id: str
    document: str
    page: str
    company: str
    year: int | None
    passage: str | None = None


class CorpusSearch:
    """A table and the model of its vectors, ready for questions.

    Raises:
        CorpusError: no such table, one that is not finished, or another model's.
    """

    def __init__(self, path: str, model: str | None = None, embedder: Embedder | None = None):
        self.path = path
        self.table, self.identity = open_corpus(path)
        self.embedder = embedder or Embedder(model or self.identity.model, self.identity.dim)
        self.identity.check(self.embedder.identity(self.identity.storage), path)
        if not is_indexed(self.table):
            raise CorpusError(f"{path}: its index is not finished or an earlier version's; run the index command again")
        self._kept: tuple = (None, None)  # of which version and filter, and what `_vectors` gave

    def search(self, query: str, top: int = 5, passages: bool = True, **options) -> list[Hit]:
        """The ``top`` pages of `rank`'s order, with the sentence or row of each that matches best.

        Raises `CorpusError` for an empty query, an unknown mode and an invalid filter.
        """
        ids, scores = self.rank(query, top, **options)
        rows = {row["id"]: row for row in self._rows(_among(ids), _HIT_COLUMNS).to_pylist()} if ids else {}
        best: Sequence[str | None] = [None] * len(ids)
        if passages and ids:
            best = best_passages(self.embedder, self._vector(query), [rows[i]["text"] for i in ids])
        hits = []
        for rank, (i, score, passage) in enumerate(zip(ids, scores, best), start=1):
            row = rows[i]
            hits.append(Hit(rank, score, i, row["document"], row["page"], row["company"], row["year"], passage))
        return hits

    def rank(
        self, query: str, top: int = 5, mode: str = "hybrid", where: str | None = None, fusion: str = "best_share",
        weight: float = DEFAULT_WEIGHT, prefix: bool = False, exact: bool | None = None, candidates: int = CANDIDATES,
        query_vector: np.ndarray | None = None,
    ) -> tuple[list[str], list[float]]:  # fmt: skip
        """Ids and scores of the ``top`` pages, best first; equal scores by id.

        Args:
            where: An SQL condition over the columns, applied before ranking.
            weight: Of the words in a fusion by `best_share_fusion`, from 0 to 1.
            prefix: Candidates by the first 64 dimensions (int8 in the index), ordered by the stored vectors.
            exact: Score every page behind the filter, however many there are (True), or the candidates, however few
                (False); None does the first up to `EXACT_ROWS` pages, unless ``prefix`` asks for candidates.
            candidates: How many pages each index names.
            query_vector: (dim,) unit vector of the question where it is known.
        """
        if not query.strip():
            raise CorpusError("the question is empty; say what to look for")
        if mode not in MODES or fusion not in FUSIONS:
            raise CorpusError(f"mode {mode!r} with fusion {fusion!r}; take one of {MODES} and one of {FUSIONS}")
        if not 0 <= weight <= 1:
            raise CorpusError(f"weight {weight:g}: is the words' part of the sum, from 0 to 1")
        if prefix and exact:
            raise CorpusError("--prefix takes its candidates from an index and --exact scores every page: give one")
        if prefix and "prefix" not in self.table.schema.names:
            raise CorpusError(
                f"{self.path}: has no prefix, as its vectors are {self.identity.dim} wide; leave --prefix out"
            )
        count = self._count(where)
        if not count:
            return [], []
        if mode == "text":
            found = self._words(query, where, top)
            return _best(list(found), np.array(list(found.values())), top)
        vector = self._vector(query) if query_vector is None else query_vector
        if exact is None:
            exact = not prefix and count <= EXACT_ROWS
        every, floats = exact or not prefix and not self._has_candidates(), self.identity.storage != "int8"
        # LanceDB's own scan finds the nearest of many vectors without holding them all.
        held = every and not (mode == "vector" and floats and count > KEPT)
        limit = count if held else max(top, candidates)
        words = self._words(query, where, limit) if mode == "hybrid" else {}
        if held:
            ids, vectors = self._vectors(where)
        else:
            named = self._nearest(vector, where, limit, prefix or not floats, every)
            if mode == "hybrid" and (unscored := sorted(named - words.keys())):
                words |= self._words(query, _among(unscored), len(unscored))
            ids, vectors = self._read(_among(sorted(named | words.keys())))
        cosines = vectors @ vector
        if mode == "vector":
            return _best(ids, cosines, top)
        texts = np.array([[words.get(i, 0.0) for i in ids]])
        if fusion == "reciprocal_ranks":
            return _best(ids, reciprocal_rank_fusion(cosines[None], texts)[0], top)
        return _best(ids, best_share_fusion(cosines[None], texts, weight)[0], top)

    def _vector(self, query: str) -> np.ndarray:
        return self.embedder.encode_queries([query])[0]

    def _rows(self, where: str | None, columns: list[str], limit: int | None = None) -> pa.Table:
        rows = self.table.search().select(columns).limit(limit or self.table.count_rows())
        return (rows.where(where) if where else rows).to_arrow()

    def _words(self, query: str, where: str | None, limit: int) -> dict[str, float]:
        """BM25 score by id of the best ``limit`` pages that hold a word of ``query``."""
        found = self.table.search(text_query(query), query_type="fts").limit(limit).select(["id", "_score"])
        rows = (found.where(where) if where else found).to_arrow()
        return dict(zip(rows["id"].to_pylist(), rows["_score"].to_pylist()))

    def _count(self, where: str | None) -> int:
        try:
            return self.table.count_rows(where)
        except (ValueError, OSError, RuntimeError) as error:
            what = f"filter {where!r} on {self.path}" if where else f"{self.path}: cannot be read"
            raise CorpusError(f"{what}: {one_line(error)}") from None

    def _has_candidates(self) -> bool:
        """Whether an approximate index names candidates; int8 vectors have one over their prefix alone."""
        return any(has_index(self.table, column) for column in ("vector", "prefix"))

    def _vectors(self, where: str | None) -> tuple[list[str], np.ndarray]:
        """Ids and unit vectors (n, dim) of the pages behind ``where``, kept for the next question if not too many."""
        key, kept = (self.table.version, where), self._kept
        if kept[0] == key:
            return kept[1]
        found = self._read(where)
        if len(found[0]) <= KEPT:
            self._kept = key, found
        return found

    def _read(self, where: str | None) -> tuple[list[str], np.ndarray]:
        rows = self._rows(where, ["id", "vector"])
        return rows["id"].to_pylist(), as_matrix(rows["vector"])

    def _nearest(self, vector: np.ndarray, where: str | None, limit: int, prefix: bool, exact: bool) -> set[str]:
        """Ids of the ``limit`` nearest pages, by the index or by LanceDB's own scan, over the prefix or all
        dimensions."""
        query = unit(vector[None, :PREFIX_DIM])[0] if prefix else vector
        found = self.table.search(query, vector_column_name="prefix" if prefix else "vector").distance_type("cosine")
        found = found.bypass_vector_index() if exact else found.nprobes(PROBES)
        found = found.limit(limit).select(["id", "_distance"])
        return set((found.where(where) if where else found).to_arrow()["id"].to_pylist())


def _best(ids: list[str], scores: np.ndarray, top: int) -> tuple[list[str], list[float]]:
    least = np.partition(scores, -top)[-top] if top < len(scores) else -np.inf
    likely = np.flatnonzero(scores >= least).tolist()  # so that what cannot be among them is not sorted
    order = sorted(likely, key=lambda i: (-scores[i], ids[i]))[:top]
    return [ids[i] for i in order], [float(scores[i]) for i in order]


def _among(ids: list[str]) -> str:
    """An SQL condition that holds for ``ids``."""
    quoted = ", ".join("'" + i.replace("'", "''") + "'" for i in ids)
    return f"id IN ({quoted})" if ids else "false"
