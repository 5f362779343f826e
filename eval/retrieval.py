"""Page retrieval by the protocol of MTEB's FinQARetrieval, at every dimension, for anything that ranks pages.

A page is the corpus document (`data.finqa.page_text`), a distinct question the query, one page relevant; nDCG@10 is the
main figure. The figures are those of sentence-transformers' InformationRetrievalEvaluator, from a matrix of scores.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from ..data.bm25 import bm25s
from ..data.positions import extend_encoder
from ..data.schema import Example, Page, Source
from ..data.splits import half_of
from .encoding import encode_by_length, precision_of

MAIN_METRIC = "ndcg@10"
CUTOFFS = [1, 5, 10, 100]
HALVES = ("choosing", "reported")


class EvaluationError(ValueError):
    """Input that cannot be measured; the message names it, what is wrong and what to do."""


@dataclass
class RetrievalTask:
    """Queries, documents and which documents answer which query.

    Raises `EvaluationError` for an empty corpus or query set, a query without a relevant page, and relevance that names
    a page the corpus does not hold.
    """

    name: str
    queries: dict[str, str]
    corpus: dict[str, str]
    relevant: dict[str, set[str]]
    schema: str = ""

    def __post_init__(self):
        if not self.corpus:
            raise EvaluationError(f"{self.name}: the corpus is empty; give a file with pages")
        if not self.queries:
            raise EvaluationError(f"{self.name}: no queries; give a file with questions")
        for query_id, query in self.queries.items():
            pages = self.relevant.get(query_id)
            if not pages:
                raise EvaluationError(
                    f"{self.name}: query {query_id} ({query[:60]!r}) has no relevant page; leave it out"
                )
            for page in pages - self.corpus.keys():
                raise EvaluationError(
                    f"{self.name}: query {query_id} names page {page!r}, which the corpus does not hold"
                )

    @classmethod
    def of(cls, name: str, examples: list[Example], corpus: Sequence[Page] = (), schema: str = "") -> "RetrievalTask":
        """Distinct questions (their pages united) over the pages of ``examples`` and ``corpus``."""
        pages: dict[str, str] = {}
        for page in [*(example.page for example in examples), *corpus]:
            pages.setdefault(page.page_id, page.text)  # one id, two texts: the examples' own
        questions: dict[str, set[str]] = {}
        for example in examples:
            questions.setdefault(example.question, set()).add(example.page.page_id)
        return cls(
            name,
            {f"q{i}": question for i, question in enumerate(questions)},
            pages,
            {f"q{i}": relevant for i, relevant in enumerate(questions.values())},
            schema,
        )

    def contents(self) -> list:
        """All that a score depends on: questions, pages and which answers which, in an order of their own."""
        return [self.queries, sorted(self.corpus.items()), sorted((q, sorted(p)) for q, p in self.relevant.items())]

    def half(self, name: str) -> list[str]:
        """The queries on the ``"choosing"`` or ``"reported"`` half (`data.splits.half_of` their pages).

        One with pages on both is for choosing: what is reported stays clean.
        """
        choosing = {q for q, pages in self.relevant.items() if any(half_of(page) == "choosing" for page in pages)}
        return [query for query in self.queries if (query in choosing) == (name == "choosing")]

    def known_pages(self, train: list[Example]) -> int:
        """How many of the searched pages are pages of ``train``, by id or by text."""
        ids, texts = {e.page.page_id for e in train}, {e.page.text for e in train}
        return sum(page_id in ids or text in texts for page_id, text in self.corpus.items())


def retrieval_task(source: Source, extra: list[Page]) -> RetrievalTask:
    """The task of one source: its questions over its own pages and, for FinQA's, the ``extra`` pages as well.

    Training's closing table, the evaluation and mteb all search the pages that this says.
    """
    corpus = list(source.pages.values()) + (extra if source.schema.startswith("finqa") else [])
    return RetrievalTask.of(task_name(source.name), source.examples, corpus, source.schema)


def task_name(source: str) -> str:
    """A source's last two parts without file suffixes: ``../data/finqa/dev.json`` is ``finqa/dev``."""
    for suffix in (".gz", ".jsonl", ".json", ".parquet"):
        source = source.removesuffix(suffix)
    return "/".join(source.strip("/").split("/")[-2:])


class EncodeOnce:
    """``model`` that encodes each list of texts once, and truncates the vectors for every dimension.

    Args:
        model: A SentenceTransformer, or what encodes like one.
        batch_size: Texts of a batch; by default batches hold as many tokens each (`encode_by_length`).
        precision: What it multiplies in; ``self.precision`` says what "auto" means on its device.

    Raises `EvaluationError` for vectors that are not finite and dimensions wider than the model.
    """

    def __init__(self, model: Any, batch_size: int | None = None, precision: str = "auto"):
        self.model = model
        self.batch_size = batch_size
        self.precision = precision_of(model, precision)
        self._vectors: dict[tuple, torch.Tensor] = {}
        self._at_length: dict[int, EncodeOnce] = {}

    @classmethod
    def of(cls, model: Any) -> "EncodeOnce":
        """``model`` itself where it is one already."""
        return model if isinstance(model, cls) else cls(model)

    def encode_query(self, texts: list[str], truncate_dim: int | None = None) -> torch.Tensor:
        """(n, ``truncate_dim``) float32 vectors of questions on the CPU; the full width without ``truncate_dim``."""
        return self._encode(self.model.encode_query, texts, truncate_dim)

    def encode_document(self, texts: list[str], truncate_dim: int | None = None) -> torch.Tensor:
        """(n, ``truncate_dim``) likewise, of pages."""
        return self._encode(self.model.encode_document, texts, truncate_dim)

    def _encode(self, encode, texts: list[str], truncate_dim: int | None) -> torch.Tensor:
        key = (encode.__name__, *texts)
        if key not in self._vectors:
            vectors = encode_by_length(self.model, encode, list(texts), self.precision, batch_size=self.batch_size)
            if not torch.isfinite(vectors).all():
                position = int((~torch.isfinite(vectors)).any(dim=1).nonzero()[0])
                raise EvaluationError(f"the model gave a vector with NaN or infinity for {texts[position][:60]!r}")
            self._vectors[key] = vectors
        vectors = self._vectors[key]
        if truncate_dim is not None and truncate_dim > vectors.shape[1]:
            raise EvaluationError(f"dimension {truncate_dim} asked for, but the model is {vectors.shape[1]} wide")
        return vectors[:, :truncate_dim]

    def at_length(self, length: int) -> "EncodeOnce":
        """The same model reading ``length`` tokens of a text, its positions extended as training extends them.

        Raises `BackboneError` for an architecture whose positions cannot be.
        """
        if length == self.model.max_seq_length:
            return self
        if length not in self._at_length:
            model = copy.deepcopy(self.model)
            encoder = model[0].auto_model
            if hasattr(encoder, "config"):  # static embeddings have no positions
                model[0].model, _ = extend_encoder(encoder, encoder.config, length)
            model.max_seq_length = length
            self._at_length[length] = EncodeOnce(model, self.batch_size, self.precision)
        return self._at_length[length]


@dataclass
class RetrievalScores:
    """One system's figures on one task: ``metrics`` by MTEB-like name, nDCG@10 by query for paired comparisons."""

    metrics: dict[str, float]
    ndcg_by_query: dict[str, float]

    @property
    def ndcg(self) -> float:
        return self.metrics[MAIN_METRIC]

    def ndcg_of(self, queries: list[str]) -> float:
        """nDCG@10 over some of the queries alone; NaN over none."""
        return float(np.mean([self.ndcg_by_query[query] for query in queries])) if queries else float("nan")


def evaluate_retrieval(model, task: RetrievalTask, dims: list[int]) -> dict[int, RetrievalScores]:
    """Scores by dimension of a SentenceTransformer (or what encodes like one) on ``task``."""
    shared = EncodeOnce.of(model)
    return {dim: score_matrix(task, similarity_matrix(shared, task, dim)) for dim in dims}


def score_matrix(task: RetrievalTask, scores: np.ndarray) -> RetrievalScores:
    """Figures of any (queries × documents) score matrix, rows and columns in the task's order."""
    data: dict[str, Any] = {"queries": task.queries, "corpus": task.corpus, "relevant_docs": task.relevant}
    evaluator = InformationRetrievalEvaluator(
        **data, mrr_at_k=[10], ndcg_at_k=[10], map_at_k=[100], accuracy_at_k=[1, 10], precision_recall_at_k=CUTOFFS,
        write_csv=False,
    )  # fmt: skip
    ids = np.array(list(task.corpus))
    best = np.argsort(-scores, axis=1, kind="stable")[:, : max(CUTOFFS)]
    hits: list[Any] = [
        [{"corpus_id": page, "score": float(score)} for page, score in zip(ids[order], row[order])]
        for row, order in zip(scores, best)
    ]
    computed = evaluator.compute_metrics(hits)
    metrics = {
        name.replace("@k", f"@{k}"): float(value) for name, by_k in computed.items() for k, value in by_k.items()
    }
    for k in CUTOFFS:
        precision, recall = metrics[f"precision@{k}"], metrics[f"recall@{k}"]
        metrics[f"f1@{k}"] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    by_query = {}
    for query, ranked in zip(task.queries, hits):
        first = sorted(ranked, key=lambda hit: (-hit["score"], hit["corpus_id"]))[:10]
        gains = [hit["corpus_id"] in task.relevant[query] for hit in first]
        ideal = evaluator.compute_dcg_at_k([1] * len(task.relevant[query]), 10)
        by_query[query] = float(evaluator.compute_dcg_at_k(gains, 10) / ideal)
    return RetrievalScores(metrics, by_query)


def cosine(a, b) -> torch.Tensor:
    """(n, d), (m, d) → (n, m) cosines in float32."""
    a, b = (torch.nn.functional.normalize(torch.as_tensor(x, device="cpu").float(), dim=-1) for x in (a, b))
    return a @ b.T


def similarity_matrix(model: EncodeOnce, task: RetrievalTask, dim: int) -> np.ndarray:
    """(queries × documents) cosines at ``dim``."""
    queries = model.encode_query(list(task.queries.values()), truncate_dim=dim)
    documents = model.encode_document(list(task.corpus.values()), truncate_dim=dim)
    return cosine(queries, documents).numpy()


def bm25_scores(task: RetrievalTask, pairs: bool = False) -> np.ndarray:
    """(queries × documents) BM25 scores: bm25s' Lucene variant, English stop words, no stemming.

    With ``pairs``, two neighbouring words (of those that are left) are a term of their own, too.
    """

    def terms(texts: Iterable[str]) -> list[list[str]]:
        found = bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
        return [words + [" ".join(pair) for pair in zip(words, words[1:])] for words in found] if pairs else found

    retriever = bm25s.BM25()
    retriever.index(terms(task.corpus.values()), show_progress=False)
    queries = terms(task.queries.values())
    return np.stack([retriever.get_scores(words) if words else np.zeros(len(task.corpus)) for words in queries])
