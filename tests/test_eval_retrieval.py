"""eval/: retrieval, fusion, facts and what stores vectors, against values worked out by hand or by a library."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import bm25s
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from finmatryoshka.data.loading import load_source, parse_records
from finmatryoshka.data.sample import generate_finqa
from finmatryoshka.data.schema import Page
from finmatryoshka.data.splits import half_of
from finmatryoshka.eval.facts import evaluate_facts, recall_at
from finmatryoshka.eval.fusion import (
    DEFAULT_WEIGHT,
    best_share_fusion,
    choose_weight,
    reciprocal_rank_fusion,
    z_score_fusion,
)
from finmatryoshka.eval.geometry import embedding_quality
from finmatryoshka.eval.quantization import evaluate_cost
from finmatryoshka.eval.retrieval import (
    EncodeOnce,
    EvaluationError,
    RetrievalTask,
    bm25_scores,
    cosine,
    evaluate_retrieval,
    retrieval_task,
    score_matrix,
)
from finmatryoshka.eval.systems import base_at_lengths


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


def test_bm25_starts_no_jax_where_it_is_installed(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("")
    (tmp_path / "jax" / "lax.py").write_text("raise SystemExit('JAX was started')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import finmatryoshka.eval.retrieval; "
        "import finmatryoshka.data.synthesis.filter, finmatryoshka.corpus.table; import jax; print(jax.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith(str(tmp_path)), done.stderr


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


def test_bm25_with_pairs_reads_neighbouring_words_as_one_more():
    corpus = {"a": "interest on net sales", "b": "net interest sales", "c": "sales tax"}
    pairs = {"a": "interest net sales interest_net net_sales", "b": "net interest sales net_interest interest_sales"}
    task = RetrievalTask("t", {"q": "the net sales"}, corpus, {"q": {"a"}})
    spelt = RetrievalTask("t", {"q": "net sales net_sales"}, pairs | {"c": "sales tax sales_tax"}, {"q": {"a"}})
    words = bm25_scores(task)[0]
    assert words[0] == words[1]  # the same words
    scores = bm25_scores(task, pairs=True)
    np.testing.assert_allclose(scores, bm25_scores(spelt), rtol=1e-6)
    assert scores[0].argmax() == 0 and scores[0, 0] > scores[0, 1]


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

    from finmatryoshka.eval.mteb_tasks import local_retrieval

    model = SentenceTransformer(trained_folders["bert"])
    results = mteb.evaluate(
        model, local_retrieval(finqa_files["eval"]), cache=None, show_progress_bar=False, co2_tracker=False
    )
    score = results.task_results[0].scores["test"][0]["ndcg_at_10"]
    task = retrieval_task(load_source(finqa_files["eval"]), [])
    ours = evaluate_retrieval(EncodeOnce(model, precision="fp32"), task, [32])[32].ndcg  # as mteb computes
    assert score == pytest.approx(ours, abs=2e-5)


def test_scores_are_those_of_the_libraries_own_evaluation():
    rng = np.random.default_rng(0)  # more pages than are looked at
    pages = {f"p{i}": f"page {i}" for i in range(150)}
    task = RetrievalTask("t", {f"q{i}": f"query {i}" for i in range(9)}, pages, {f"q{i}": {f"p{i}"} for i in range(9)})
    texts = [*task.queries.values(), *pages.values()]
    model = Lookup(dict(zip(texts, rng.normal(size=(159, 4)).tolist())))
    evaluator = InformationRetrievalEvaluator(
        task.queries, pages, task.relevant, map_at_k=[100], precision_recall_at_k=[1, 5, 10, 100], mrr_at_k=[10],
        accuracy_at_k=[1, 10], ndcg_at_k=[10], score_functions={"cosine": cosine}, write_csv=False,
    )  # fmt: skip
    ours = evaluate_retrieval(model, task, [4])[4]
    theirs = evaluator.compute_all_metrics(model)["cosine"]
    for name, by_k in theirs.items():
        for k, value in by_k.items():
            assert ours.metrics[name.replace("@k", f"@{k}")] == pytest.approx(value), name
    assert ours.ndcg == pytest.approx(np.mean(list(ours.ndcg_by_query.values())))


def test_fusion_by_the_share_of_the_best_words():
    cosines, words = np.array([[0.5, 0.1], [0.2, 0.4]]), np.array([[3.0, 12.0], [0.0, 0.0]])
    np.testing.assert_allclose(best_share_fusion(cosines, words, 0.25), [[0.4375, 0.325], [0.15, 0.3]])
    np.testing.assert_allclose(best_share_fusion(cosines, 7 * words, 0.25), best_share_fusion(cosines, words, 0.25))
    assert best_share_fusion(cosines[:, :0], words[:, :0], 0.25).shape == (2, 0)


def test_fusion_by_z_scores_is_a_convex_combination_of_standardised_rows():
    a, b = np.array([[3.0, 2.0, 1.0], [5.0, 5.0, 5.0]]), np.array([[10.0, 30.0, 20.0], [0.0, 0.0, 9.0]])
    z = math.sqrt(1.5)
    np.testing.assert_allclose(z_score_fusion(a, b, 0.25)[0], 0.75 * np.array([z, 0, -z]) + 0.25 * np.array([-z, z, 0]))
    np.testing.assert_array_equal(z_score_fusion(a, b, 0.0)[1], [0, 0, 0])  # a constant row says nothing
    np.testing.assert_allclose(z_score_fusion(1000 * a + 7, b, 0.4), z_score_fusion(a, b, 0.4))  # units do not matter


def pages_of(half: str, count: int) -> list[str]:
    return [page for page in map("C/2015/page_{}.pdf".format, range(9 * count)) if half_of(page) == half][:count]


def test_the_weight_is_chosen_on_one_half_and_reported_on_the_other():
    choosing, reported = pages_of("choosing", 6), pages_of("reported", 6)
    pages = choosing + reported
    task = RetrievalTask(
        "t", {f"q{i}": f"{i}" for i in range(12)}, {p: p for p in pages}, {f"q{i}": {p} for i, p in enumerate(pages)}
    )
    assert task.half("choosing") == [f"q{i}" for i in range(6)] and task.half("reported") == [
        f"q{i}" for i in range(6, 12)
    ]
    right, wrong = np.eye(12), np.roll(np.eye(12), 1, axis=1)
    first = np.where(np.arange(12)[:, None] < 6, right, wrong)  # right on the choosing half alone
    second = np.where(np.arange(12)[:, None] < 6, wrong, right)
    assert choose_weight(task, first, second) < 0.5 < choose_weight(task, second, first)
    assert score_matrix(task, first).ndcg_of(task.half("choosing")) == 1 > score_matrix(task, first).ndcg
    alone = RetrievalTask("t", {"q": "x"}, {reported[0]: "y"}, {"q": {reported[0]}})
    assert choose_weight(alone, np.eye(1), np.eye(1)) == DEFAULT_WEIGHT
    both = RetrievalTask("t", {"q": "x"}, {p: p for p in pages}, {"q": {choosing[0], reported[0]}})
    assert both.half("choosing") == ["q"] and both.half("reported") == []  # what is reported stays clean


def test_training_pages_among_the_searched_ones_are_counted_by_id_and_by_text():
    train = parse_records(generate_finqa(2), "train").examples
    source = parse_records(generate_finqa(2, first_company=100), "eval")
    task = retrieval_task(source, [*{e.page.page_id: e.page for e in train}.values()])
    trained = len({e.page.page_id for e in train})
    assert task.known_pages(train) == trained > 0 and task.known_pages([]) == 0
    assert len(task.corpus) == trained + len(source.pages)
    assert (
        task.known_pages([replace(e, page=replace(e.page, page_id=f"other {i}")) for i, e in enumerate(train)])
        == trained
    )


def test_the_base_reads_what_the_model_reads(tiny_backbones):
    base = EncodeOnce(SentenceTransformer(tiny_backbones["bert"]))
    text = "net sales of the year " * 60  # beyond 128 tokens
    longer = base.at_length(200)
    assert (base.model.max_seq_length, longer.model.max_seq_length) == (128, 200)
    assert base.at_length(200) is longer and base.at_length(128) is base
    short, cut, whole = (
        base.encode_document(["net sales"]),
        base.encode_document([text]),
        longer.encode_document([text]),
    )
    assert torch.allclose(longer.encode_document(["net sales"]), short, atol=1e-6)
    assert not torch.allclose(cut, whole, atol=1e-4)
    assert list(base_at_lengths(base, [200])) == [128, 200]


def test_a_base_that_cannot_read_as_much_is_left_out_with_a_warning(tiny_backbones, caplog):
    base = EncodeOnce(SentenceTransformer(tiny_backbones["modernbert"]))
    assert list(base_at_lengths(base, [300])) == [128]
    assert "not compared at 300 tokens" in caplog.text


def test_passages_in_financebenchs_schema_are_a_task(tmp_path):
    records = [
        {"question": f"What did {name} say?", "evidence": [{"evidence_text": f"{name} said {i}."}], "answer": str(i),
         "company": name, "doc_name": f"{name}_10K"}
        for i, name in enumerate(("ALDER", "BIRCH", "CEDAR"))
    ]  # fmt: skip
    (tmp_path / "sample.jsonl").write_text("\n".join(map(json.dumps, records)))
    source = load_source(str(tmp_path / "sample.jsonl"), "validation")
    task = retrieval_task(source, [Page("elsewhere", "a FinQA page")])
    assert len(task.queries) == len(task.corpus) == 3  # FinQA's further pages are not searched
    assert score_matrix(task, bm25_scores(task)).ndcg == 1


def test_what_is_hashed_is_all_that_a_score_depends_on():
    assert TASK.contents() == replace(TASK, corpus=dict(reversed(TASK.corpus.items()))).contents()
    page, other = list(TASK.corpus)[:2]
    for changes in (
        {"corpus": TASK.corpus | {page: "another text"}},
        {"relevant": TASK.relevant | {next(iter(TASK.relevant)): {page, other}}},
        {"queries": TASK.queries | {next(iter(TASK.queries)): "another question"}},
    ):
        assert replace(TASK, **changes).contents() != TASK.contents()
