"""Page retrieval by the protocol of MTEB's FinQARetrieval, at every dimension, for anything that ranks pages.

A page is the corpus document (`data.finqa.page_text`), a distinct question the query, one page relevant; nDCG@10 is the
main figure. The measuring itself is sentence-transformers' InformationRetrievalEvaluator, one per dimension inside a
SequentialEvaluator; each text is encoded once and truncated for every dimension.
"""

from dataclasses import dataclass

import bm25s
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import SequentialEvaluator
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from ..data.schema import Example, Page

MAIN_METRIC = "ndcg@10"
CUTOFFS = [1, 5, 10, 100]


class EvaluationError(ValueError):
    """Input that cannot be measured; the message names it, what is wrong and what to do."""


@dataclass
class RetrievalTask:
    """Queries, documents and which documents answer which query.

    Raises `EvaluationError` for an empty corpus or query set, a query without a relevant page, and relevance that names a
    page the corpus does not hold.
    """

    name: str
    queries: dict[str, str]
    corpus: dict[str, str]
    relevant: dict[str, set[str]]

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
    def of(cls, name: str, examples: list[Example], corpus: list[Page] = ()) -> "RetrievalTask":
        """Distinct questions (their pages united) over the pages of ``examples`` and ``corpus``."""
        pages = {page.page_id: page.text for page in [*corpus, *(example.page for example in examples)]}
        questions: dict[str, set[str]] = {}
        for example in examples:
            questions.setdefault(example.question, set()).add(example.page.page_id)
        return cls(
            name,
            {f"q{i}": question for i, question in enumerate(questions)},
            pages,
            {f"q{i}": relevant for i, relevant in enumerate(questions.values())},
        )


def task_name(source: str) -> str:
    """A source's last two parts without file suffixes: ``../data/finqa/dev.json`` is ``finqa/dev``."""
    for suffix in (".gz", ".jsonl", ".json"):
        source = source.removesuffix(suffix)
    return "/".join(source.strip("/").split("/")[-2:])


class _RankingEvaluator(InformationRetrievalEvaluator):
    """InformationRetrievalEvaluator that keeps nDCG@10 of every query, for paired comparisons."""

    def compute_metrics(self, queries_result_list):
        self.ndcg_by_query = {}
        for query_id, hits in zip(self.queries_ids, queries_result_list):
            hits = sorted(hits, key=lambda hit: (-hit["score"], hit["corpus_id"]))[:10]
            gains = [hit["corpus_id"] in self.relevant_docs[query_id] for hit in hits]
            ideal = self.compute_dcg_at_k([1] * len(self.relevant_docs[query_id]), 10)
            self.ndcg_by_query[query_id] = float(self.compute_dcg_at_k(gains, 10) / ideal)
        return super().compute_metrics(queries_result_list)


def make_evaluator(task: RetrievalTask, dims: list[int], batch_size: int = 32, progress: bool = False):
    """A SequentialEvaluator over ``dims``, whose main score is nDCG@10 at the largest; usable by the trainer.

    Metric names are ``{task}_{dim}_cosine_ndcg@10`` and so on.
    """
    evaluators = [
        _RankingEvaluator(
            task.queries, task.corpus, task.relevant, mrr_at_k=[10], ndcg_at_k=[10], map_at_k=[100],
            accuracy_at_k=[1, 10], precision_recall_at_k=CUTOFFS, truncate_dim=dim, name=f"{task.name}_{dim}",
            score_functions={"cosine": _cosine}, batch_size=batch_size, show_progress_bar=progress, write_csv=False,
        )
        for dim in dims
    ]  # fmt: skip
    return _EncodeOnce(evaluators)


def _cosine(a, b):
    a, b = (torch.nn.functional.normalize(torch.as_tensor(x).float(), dim=-1) for x in (a, b))
    return a @ b.T


class _EncodeOnce(SequentialEvaluator):
    """A SequentialEvaluator whose members share one encoding of every text."""

    def __init__(self, evaluators):
        super().__init__(evaluators, main_score_function=lambda scores: scores[0])

    def __call__(self, model, output_path=None, epoch=-1, steps=-1, **kwargs):
        return super().__call__(EncodeOnce(model), output_path=output_path, epoch=epoch, steps=steps, **kwargs)


class EncodeOnce:
    """Stands for ``model`` in an evaluator: encodes each list of texts once, truncates it for every dimension.

    ``transform`` maps the full vectors (n, width) to others (n, any) before truncation: PCA, random projection.
    Raises `EvaluationError` for vectors that are not finite and dimensions wider than the model.
    """

    def __init__(self, model: SentenceTransformer, transform=None):
        self.model = model
        self.transform = transform
        self._cache: dict[tuple, torch.Tensor] = {}

    def _encode(self, encode, texts, truncate_dim=None, **kwargs):
        key = (encode.__name__, len(texts), hash(tuple(texts)))
        if key not in self._cache:
            kwargs.pop("convert_to_tensor", None)
            vectors = encode(list(texts), convert_to_tensor=True, **kwargs).float().cpu()
            if not torch.isfinite(vectors).all():
                position = int((~torch.isfinite(vectors)).any(dim=1).nonzero()[0])
                raise EvaluationError(f"the model gave a vector with NaN or infinity for {texts[position][:60]!r}")
            self._cache[key] = self.transform(vectors) if self.transform else vectors
        vectors = self._cache[key]
        if truncate_dim is not None and truncate_dim > vectors.shape[1]:
            raise EvaluationError(f"dimension {truncate_dim} asked for, but the model is {vectors.shape[1]} wide")
        return vectors[:, :truncate_dim]

    def encode_query(self, texts, **kwargs):
        return self._encode(self.model.encode_query, texts, **kwargs)

    def encode_document(self, texts, **kwargs):
        return self._encode(self.model.encode_document, texts, **kwargs)

    def __getattr__(self, name):
        return getattr(self.model, name)


@dataclass
class RetrievalScores:
    """One system's figures on one task: ``metrics`` by MTEB-like name, nDCG@10 by query for paired comparisons."""

    metrics: dict[str, float]
    ndcg_by_query: dict[str, float]

    @property
    def ndcg(self) -> float:
        return self.metrics[MAIN_METRIC]


def evaluate_retrieval(
    model, task: RetrievalTask, dims: list[int], transform=None, batch_size: int = 32, progress: bool = False
) -> dict[int, RetrievalScores]:
    """Scores by dimension of a SentenceTransformer (or what encodes like one) on ``task``."""
    evaluator = make_evaluator(task, dims, batch_size, progress)
    shared = model if isinstance(model, EncodeOnce) else EncodeOnce(model, transform)
    scores = {}
    for dim, member in zip(dims, evaluator.evaluators):
        scores[dim] = _scores(member, member.compute_all_metrics(shared)["cosine"])
    return scores


def _scores(evaluator: _RankingEvaluator, computed: dict) -> RetrievalScores:
    metrics = {
        name.replace("@k", f"@{k}"): float(value) for name, by_k in computed.items() for k, value in by_k.items()
    }
    for k in CUTOFFS:
        precision, recall = metrics[f"precision@{k}"], metrics[f"recall@{k}"]
        metrics[f"f1@{k}"] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return RetrievalScores(metrics, dict(evaluator.ndcg_by_query))


def score_matrix(task: RetrievalTask, scores: np.ndarray) -> RetrievalScores:
    """Figures of any (queries × documents) score matrix, rows and columns in the task's order."""
    evaluator = make_evaluator(task, [0]).evaluators[0]
    ids = list(task.corpus)
    hits = [
        [{"corpus_id": ids[i], "score": float(row[i])} for i in np.argsort(-row, kind="stable")[:100]] for row in scores
    ]
    return _scores(evaluator, evaluator.compute_metrics(hits))


def bm25_scores(task: RetrievalTask) -> np.ndarray:
    """(queries × documents) BM25 scores: bm25s' Lucene variant, English stop words, no stemming."""
    retriever = bm25s.BM25()
    retriever.index(
        bm25s.tokenize(list(task.corpus.values()), stopwords="en", show_progress=False), show_progress=False
    )
    queries = bm25s.tokenize(list(task.queries.values()), stopwords="en", return_ids=False, show_progress=False)
    return np.stack([retriever.get_scores(tokens) if tokens else np.zeros(len(task.corpus)) for tokens in queries])


def similarity_matrix(model: EncodeOnce, task: RetrievalTask, dim: int) -> np.ndarray:
    """(queries × documents) cosines at ``dim``."""
    queries = model.encode_query(list(task.queries.values()), truncate_dim=dim)
    documents = model.encode_document(list(task.corpus.values()), truncate_dim=dim)
    return _cosine(queries, documents).numpy()


def reciprocal_rank_fusion(*matrices: np.ndarray, k: int = 60) -> np.ndarray:
    """Σ 1/(k + rank) over the systems (Cormack, Clarke and Buettcher 2009, k = 60)."""
    return sum(1 / (k + 1 + np.argsort(np.argsort(-m, axis=1, kind="stable"), axis=1, kind="stable")) for m in matrices)
