"""eval/: retrieval, fusion, facts and what stores vectors, against values worked out by hand or by a library."""

import math

import bm25s
import numpy as np
import pytest
import torch

from finmatryoshka.data.loading import load_source, parse_records
from finmatryoshka.data.sample import generate_finqa
from finmatryoshka.data.splits import half_of
from finmatryoshka.eval.facts import evaluate_facts, recall_at
from finmatryoshka.eval.fusion import DEFAULT_WEIGHT, choose_weight, reciprocal_rank_fusion, z_score_fusion
from finmatryoshka.eval.geometry import embedding_quality
from finmatryoshka.eval.quantization import evaluate_cost
from finmatryoshka.eval.retrieval import (
    EncodeOnce,
    EvaluationError,
    RetrievalTask,
    bm25_scores,
    evaluate_retrieval,
    retrieval_task,
    score_matrix,
)


class Lookup:
    """Encodes by a table: what a perfect, wrong or broken model would give."""

    prompts: dict = {}

    def __init__(self, vectors: dict[str, list[float]]):
        self.vectors = vectors
        self.calls = 0

    def encode_query(self, texts, **_):
        self.calls += 1
        return torch.tensor([self.vectors[text] for text in texts])

    encode_document = encode_query


TASK = RetrievalTask(
    "toy", {"q1": "one", "q2": "two"}, {"a": "A", "b": "B", "c": "C", "d": "D"}, {"q1": {"a"}, "q2": {"b", "c"}}
)
# both rank b, a, d, c
TOY = Lookup(
    {"one": [1.0, 0.0], "two": [0.9, 0.1], "A": [0.8, 0.6], "B": [1.0, 0.1], "C": [-1.0, 0.0], "D": [0.0, 1.0]}
)


def test_retrieval_figures_by_hand():
    scores = evaluate_retrieval(TOY, TASK, [2])[2]
    ndcg_q1 = 1 / math.log2(3)  # right page second
    ndcg_q2 = (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3))  # first and fourth of two
    assert scores.ndcg_by_query == pytest.approx({"q1": ndcg_q1, "q2": ndcg_q2})
    assert scores.ndcg == pytest.approx((ndcg_q1 + ndcg_q2) / 2)
    assert scores.metrics["mrr@10"] == pytest.approx((0.5 + 1) / 2)
    assert scores.metrics["map@100"] == pytest.approx((0.5 + (1 + 2 / 4) / 2) / 2)
    assert scores.metrics["recall@1"] == pytest.approx((0 + 0.5) / 2) and scores.metrics[
        "precision@1"
    ] == pytest.approx(0.5)
    assert scores.metrics["f1@1"] == pytest.approx(2 * 0.5 * 0.25 / 0.75)
    assert scores.metrics["recall@5"] == 1.0


def test_truncation_and_one_encoding_for_all_dimensions():
    rng = np.random.default_rng(0)
    pages = {f"p{i}": f"page {i}" for i in range(20)}
    task = RetrievalTask("t", {f"q{i}": f"query {i}" for i in range(9)}, pages, {f"q{i}": {f"p{i}"} for i in range(9)})
    model = Lookup({text: rng.normal(size=4).tolist() for text in [*task.queries.values(), *pages.values()]})
    scores = evaluate_retrieval(model, task, [4, 2])
    assert model.calls == 2  # queries once, pages once
    narrow = Lookup({text: vector[:2] for text, vector in model.vectors.items()})
    assert scores[2].metrics == evaluate_retrieval(narrow, task, [2])[2].metrics != scores[4].metrics


def test_bm25_is_bm25s_and_fusion_is_reciprocal_ranks():
    task = RetrievalTask(
        "t", {"q": "net sales of alder"}, {"a": "alder net sales", "b": "birch interest", "c": "net"}, {"q": {"a"}}
    )
    scores = bm25_scores(task)
    assert scores.shape == (1, 3) and scores[0].argmax() == 0 and scores[0, 1] == 0
    retriever = bm25s.BM25()
    retriever.index(
        bm25s.tokenize(list(task.corpus.values()), stopwords="en", show_progress=False), show_progress=False
    )
    np.testing.assert_allclose(scores[0], retriever.get_scores(["net", "sales", "alder"]), rtol=1e-6)
    fused = reciprocal_rank_fusion(np.array([[3.0, 2.0, 1.0]]), np.array([[1.0, 3.0, 2.0]]))
    np.testing.assert_allclose(fused, [[1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]])


@pytest.mark.parametrize(
    "queries, corpus, relevant, message",
    [
        ({"q": "x"}, {}, {"q": {"a"}}, "corpus is empty"),
        ({}, {"a": "A"}, {}, "no queries"),
        ({"q": "x"}, {"a": "A"}, {"q": set()}, "query q .* has no relevant page"),
        ({"q": "x"}, {"a": "A"}, {"q": {"b"}}, "names page 'b', which the corpus does not hold"),
    ],
)
def test_bad_tasks(queries, corpus, relevant, message):
    with pytest.raises(EvaluationError, match=message):
        RetrievalTask("t", queries, corpus, relevant)


def test_nan_vectors_and_narrow_models():
    broken = Lookup(dict(TOY.vectors) | {"B": [math.nan, 0.0]})
    with pytest.raises(EvaluationError, match="NaN or infinity for 'B'"):
        evaluate_retrieval(broken, TASK, [2])
    with pytest.raises(EvaluationError, match="dimension 3 asked for, but the model is 2 wide"):
        evaluate_retrieval(TOY, TASK, [3])


def test_fact_recall():
    assert recall_at(["a", "b", "c"], {"a", "c"}, 2) == 0.5
    (example,) = parse_records(generate_finqa(1)[:1], "x").examples
    gold = set(example.gold)
    vectors = {text: [1.0, 0.0] if name in gold else [0.0, 1.0] for name, text in example.facts.items()}
    perfect = evaluate_facts(Lookup(vectors | {example.question: [1.0, 0.0]}), [example], [2])[2]
    wrong = evaluate_facts(Lookup(vectors | {example.question: [0.0, 1.0]}), [example], [2])[2]
    assert perfect["recall@3"] == 1.0 and wrong["recall@3"] == 0.0
    assert perfect["chance@3"] == pytest.approx(3 / len(example.facts))
    assert evaluate_facts(TOY, [], [2]) == {}


def test_quality_figures_by_hand():
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    figures = embedding_quality(2 * square, (square, square))
    assert figures["average_similarity"] == pytest.approx((4 * 0 + 2 * -1) / 6)
    assert figures["similarity_range"] == pytest.approx(1) and figures["isotropy"] == pytest.approx(1)
    assert figures["pairwise_distance"] == pytest.approx((4 * math.sqrt(2) + 2 * 2) / 6)
    assert figures["norm_mean"] == pytest.approx(2) and figures["norm_spread"] == pytest.approx(0)
    assert figures["dimension_utilisation"] == 1 and figures["alignment"] == pytest.approx(0)
    assert figures["uniformity"] == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6))
    line = embedding_quality(np.array([[1.0, 0], [0.9, 0], [-1.0, 0]]))
    assert line["isotropy"] == pytest.approx(0.5) and line["dimension_utilisation"] == 0.5


def test_cost_counts_bytes_and_loses_little(tmp_path):
    rng = np.random.default_rng(0)
    pages = {f"p{i}": f"page {i}" for i in range(150)}
    vectors = {text: rng.normal(size=32).tolist() for text in pages.values()}
    queries = {f"q{i}": f"query {i}" for i in range(60)}
    vectors |= {f"query {i}": (np.array(vectors[f"page {i}"]) + 0.5 * rng.normal(size=32)).tolist() for i in range(60)}
    task = RetrievalTask("t", queries, pages, {f"q{i}": {f"p{i}"} for i in range(60)})
    rows = {(row["dim"], row["storage"]): row for row in evaluate_cost(EncodeOnce(Lookup(vectors)), task, [32, 16])}
    assert [rows[32, s]["bytes"] for s in ("float32", "int8", "binary")] == [128, 32, 4] and rows[16, "binary"][
        "bytes"
    ] == 2
    assert abs(rows[32, "int8 rescored"]["ndcg@10"] - rows[32, "float32"]["ndcg@10"]) < 0.02
    assert rows[32, "binary"]["ndcg@10"] < rows[32, "binary rescored"]["ndcg@10"] < rows[32, "float32"]["ndcg@10"]


def test_mteb_itself_runs_our_task_with_the_same_score(trained_folders, finqa_files, tmp_path):
    import mteb
    from sentence_transformers import SentenceTransformer

    from finmatryoshka.data.loading import load_source
    from finmatryoshka.eval.mteb_tasks import local_retrieval
    from finmatryoshka.eval.run import retrieval_task

    model = SentenceTransformer(trained_folders["bert"])
    results = mteb.evaluate(
        model, local_retrieval(finqa_files["eval"]), cache=None, show_progress_bar=False, co2_tracker=False
    )
    score = results.task_results[0].scores["test"][0]["ndcg_at_10"]
    task = retrieval_task(load_source(finqa_files["eval"]), [])
    assert score == pytest.approx(evaluate_retrieval(model, task, [32])[32].ndcg, abs=2e-5)
