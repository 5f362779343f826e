"""eval/: every figure against a value worked out by hand or by a library, the command line, and its errors."""

import json
import math
from pathlib import Path

import bm25s
import evaluate as hf_evaluate
import numpy as np
import pytest
import torch

from finmatryoshka.data.loading import parse_records
from finmatryoshka.data.numbers import SignedLogScaler
from finmatryoshka.data.sample import generate_finqa
from finmatryoshka.eval import __main__ as cli
from finmatryoshka.eval.concepts import CLASSES, concept_scores, load_concepts
from finmatryoshka.eval.facts import evaluate_facts, recall_at
from finmatryoshka.eval.geometry import embedding_quality
from finmatryoshka.eval.numeric import (
    best_constant,
    huber,
    magnitude_accuracy,
    median_relative_error,
    number_scores,
    sign_accuracy,
    spearman,
)
from finmatryoshka.eval.quantization import evaluate_cost
from finmatryoshka.eval.retrieval import (
    EncodeOnce,
    EvaluationError,
    RetrievalTask,
    bm25_scores,
    evaluate_retrieval,
    reciprocal_rank_fusion,
    score_matrix,
)
from finmatryoshka.eval.significance import compare_results, paired_bootstrap

from conftest import DIMS, ROOT


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


def test_score_matrix_agrees_with_the_evaluator():
    rng = np.random.default_rng(0)  # more pages than are looked at
    pages = {f"p{i}": f"page {i}" for i in range(150)}
    task = RetrievalTask("t", {f"q{i}": f"query {i}" for i in range(9)}, pages, {f"q{i}": {f"p{i}"} for i in range(9)})
    q, d = rng.normal(size=(9, 4)), rng.normal(size=(150, 4))
    model = Lookup(dict(zip([*task.queries.values(), *pages.values()], np.concatenate([q, d]).tolist())))
    cosines = (q / np.linalg.norm(q, axis=1, keepdims=True)) @ (d / np.linalg.norm(d, axis=1, keepdims=True)).T
    assert score_matrix(task, cosines).metrics == pytest.approx(evaluate_retrieval(model, task, [4])[4].metrics)


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


def test_number_figures_by_hand():
    true, predicted = np.array([100.0, -5.0, 0.0, 2.0]), np.array([50.0, 5.0, 1.0, 30.0])
    assert median_relative_error(predicted, true) == pytest.approx(np.median([0.5, 2.0, 14.0]))
    assert sign_accuracy(predicted, true) == 0.5 and sign_accuracy(predicted[:2], true[:2] * [1, -1]) == 1
    assert magnitude_accuracy(predicted, true) == pytest.approx(
        2 / 4
    )  # 50 for 100 and 1 for 0; 5 for -5 and 30 for 2 are not
    assert spearman(predicted, true) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert spearman(np.ones(4), true) == 0.0
    assert huber(np.array([0.5, 3.0]), np.array([0.0, 0.0])) == pytest.approx((0.125 + 2.5) / 2)
    assert huber(predicted, true) == pytest.approx(
        torch.nn.functional.huber_loss(torch.tensor(predicted), torch.tensor(true)).item()
    )


def test_best_constant_is_the_best():
    numbers = np.array([1.0, 2.0, 1e6, -50.0, 3.0])
    scaler = SignedLogScaler.fit(numbers)
    z, constant = scaler.transform(numbers), best_constant(numbers, scaler)
    assert all(huber(np.full(5, constant), z) <= huber(np.full(5, c), z) + 1e-9 for c in np.linspace(-3, 3, 601))
    exact = number_scores(z, numbers, scaler)
    assert (
        exact["huber"] == pytest.approx(0, abs=1e-12)
        and exact["sign_accuracy"] == 1
        and exact["median_relative_error"] < 1e-9
    )


@pytest.mark.parametrize(
    "name", ["numeric_huber", "median_relative_error", "sign_accuracy", "magnitude_accuracy", "numeric_spearman"]
)
def test_hugging_face_evaluate_loads_each_metric_offline(name, tmp_path):
    metric = hf_evaluate.load(str(ROOT / "eval" / "metrics" / f"{name}.py"), cache_dir=str(tmp_path))
    result = metric.compute(predictions=[1.0, -2.0, 3.0], references=[1.0, -2.0, 3.0])
    assert result == {name: pytest.approx(0.0 if name in ("numeric_huber", "median_relative_error") else 1.0)}
    worse = metric.compute(predictions=[-100.0, 2.0, -3.0], references=[1.0, -2.0, 3.0])
    assert (worse[name] > result[name]) == (name in ("numeric_huber", "median_relative_error")) and worse != result


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


def test_concepts_are_many_distinct_and_hold_the_seeds_four():
    pairs = load_concepts()
    assert len(pairs) >= 200 and {pair["class"] for pair in pairs} == set(CLASSES)
    assert len({(pair["a"], pair["b"]) for pair in pairs}) == len(pairs)
    seed = {("operating expenses", "marketing"), ("income", "profit"), ("revenue", "employees"), ("revenue", "sales")}
    assert {(p["a"], p["b"]) for p in pairs if p["subset"] == "seed"} == seed
    ideal = np.array([{"same": 0.9, "related": 0.5, "unrelated": 0.1}[pair["class"]] for pair in pairs])
    scores = concept_scores(ideal)
    assert (
        scores["auc_same_unrelated"] == 1
        and scores["unrelated_under_0.3"] == 1
        and scores["mean_related"] == pytest.approx(0.5)
    )
    assert concept_scores(-ideal)["auc_same_unrelated"] == 0


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


def test_bootstrap_tells_a_difference_from_noise():
    rng = np.random.default_rng(1)
    a = rng.random(300)
    better, noise = np.clip(a + 0.1, 0, 1), a + rng.normal(0, 0.2, 300)
    real = paired_bootstrap(a, better, 2000)
    assert real["low"] > 0 and real["p"] < 0.01 and real["difference"] == pytest.approx((better - a).mean())
    assert paired_bootstrap(better, a, 2000)["high"] < 0
    assert paired_bootstrap(a, noise - (noise - a).mean(), 2000)["p"] > 0.5


@pytest.fixture(scope="module")
def evaluated(trained_folders, finqa_files, tiny_backbones, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "results"
    arguments = [trained_folders["bert"], "--data", finqa_files["eval"], "--corpus_data", finqa_files["train"], "--train_data", finqa_files["train"],
                 "--base", tiny_backbones["bert"], "--dims", *map(str, DIMS), "--output", str(out)]  # fmt: skip
    assert cli.main(arguments) == 0
    return out


def test_one_command_writes_results_tables_and_pictures(evaluated, trained_folders):
    results = json.loads((evaluated / "results.json").read_text())
    name = trained_folders["bert"]
    (task,) = results["retrieval"].values()
    systems = task["systems"]
    assert {name, f"{name} + BM25", "BM25", "truncated base", "random projection", "PCA", "seed recipe"} == set(systems)
    assert set(systems[name]) == {"32", "16", "8"} and set(systems["truncated base"]) == {"64", "32", "16", "8"}
    assert (
        results["models"][name]["sha256"]
        and results["seed"] == 13
        and results["machine"]
        and results["versions"]["torch"]
    )
    (numbers,) = results["numbers"][name].values()
    assert set(numbers) == {"constant", "heads", "ridge", "n"} and set(numbers["heads"]) == {"32", "16", "8"}
    assert set(results["facts"][name]["8"]) == {"recall@3", "recall@5", "chance@3", "chance@5"}
    assert len(results["cost"][name]) == 15 and "isotropy" in results["quality"][name]["8"]
    loss = task["seed_recipe_loss"]
    assert loss["loss"] > 0.9 * loss["constant"]  # the earlier recipe learns nothing: the reason this project exists
    pngs = {path.stem for path in evaluated.glob("*.png")}
    assert pngs == {
        "quality_over_dimension",
        "ndcg_over_bytes",
        "similarity_maps",
        "concept_similarities",
        "predicted_against_true",
    }
    assert pngs == {path.stem for path in evaluated.glob("*.svg")}
    assert "| truncated base | 8 |" in (evaluated / "tables.md").read_text()


def test_same_evaluation_twice_gives_the_same_bytes(evaluated, trained_folders, finqa_files, tiny_backbones, tmp_path):
    arguments = [trained_folders["bert"], "--data", finqa_files["eval"], "--corpus_data", finqa_files["train"], "--train_data", finqa_files["train"],
                 "--base", tiny_backbones["bert"], "--dims", *map(str, DIMS), "--output", str(tmp_path / "again")]  # fmt: skip
    assert cli.main(arguments) == 0
    for path in evaluated.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_compare_reads_two_results_files(evaluated, trained_folders, finqa_files, tmp_path, capsys):
    other = tmp_path / "other"
    arguments = [trained_folders["nomic_bert"], "--data", finqa_files["eval"], "--corpus_data", finqa_files["train"], "--dims", "32", "8",
                 "--sections", "retrieval", "--beside", trained_folders["bert"], "--output", str(other)]  # fmt: skip
    assert cli.main(arguments) == 0
    capsys.readouterr()
    assert cli.main(["compare", str(evaluated / "results.json"), str(other / "results.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("95% [" in line and "p = " in line for line in lines)
    a, b = (json.loads((path / "results.json").read_text()) for path in (evaluated, other))
    rows = compare_results(a, b)
    (name,), (task,) = b["models"], b["retrieval"].values()
    assert rows[0]["b"] == pytest.approx(task["systems"][name]["32"]["ndcg@10"])
    # the model beside is a row of the tables, scored as when it was the model under test
    (before,) = a["retrieval"].values()
    beside = trained_folders["bert"]
    assert (
        task["systems"][beside] == {dim: before["systems"][beside][dim] for dim in ("32", "8")}
        and beside not in b["models"]
    )
    assert cli.main(["compare", str(tmp_path / "none.json"), str(other / "results.json")]) == 2


def test_a_strangers_model_evaluates_and_a_narrow_one_says_so(tiny_backbones, finqa_files, tmp_path, capsys):
    common = ["--data", finqa_files["eval"], "--sections", "retrieval", "quality"]
    stranger = tiny_backbones["bert"]
    assert cli.main([stranger, *common, "--dims", "64", "8"]) == 0
    assert "Page retrieval" in capsys.readouterr().out
    assert cli.main([stranger, *common, "--dims", "128", "8", "--output", str(tmp_path / "o")]) == 2
    assert "is 64 wide, dimension 128 asked for" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()  # whole or not at all
    assert cli.main([stranger, *common, "--dims", "128", "8", "--narrow", "skip"]) == 0
    assert cli.main(["./no-such-model", *common]) == 2
    capsys.readouterr()
    assert cli.main([stranger, *common, "--dims", "8", "--beside", "./nobody"]) == 2
    assert "./nobody: no such folder" in capsys.readouterr().err
    assert cli.main([stranger, "--data", str(tmp_path / "none.json")]) == 2
    assert cli.main([stranger, *common, "--dims", "0"]) == 2


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


def test_flops_are_those_of_the_formulas():
    from finmatryoshka.eval.speed import count_flops

    a, b = torch.ones(7, 11), torch.ones(11, 13)
    assert count_flops(lambda: a @ b) == 2 * 7 * 11 * 13
    heads, length, width = 4, 96, 32
    q = torch.ones(2, heads, length, width, requires_grad=True)
    products = 2 * 2 * heads * length * length * width  # of one matrix product of the attention
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count_flops(lambda: attend(q, q, q)) == 2 * products
    assert count_flops(lambda: attend(q, q, q).sum().backward()) == 7 * products  # backward: 5, the scores once more


def test_speed_ratios_are_within_each_repeat_and_the_command_runs(tiny_backbones, finqa_files, capsys):
    from finmatryoshka.eval.speed import memory_ratios, ratios

    memory = memory_ratios({"a": lambda: torch.ones(50 << 20).sum(), "b": lambda: torch.ones(25 << 20).sum()}, "a")["b"]
    assert memory is None or memory == pytest.approx(0.5, abs=0.1)
    assert ratios({"a": [2.0, 4.0, 3.0], "b": [1.0, 1.0, 3.0]}, "a")["b"] == (2.0, 1.0, 4.0)
    from finmatryoshka.training import speed

    data = ["--data", finqa_files["eval"], "--repeats", "1"]
    assert cli.main(["speed", tiny_backbones["bert"], "--texts", "8", *data]) == 0
    encoding = capsys.readouterr().out
    assert "nDCG@10 at 64" in encoding
    base = ["--base", tiny_backbones["bert"], "--dims", "32", "16", "--length", "160", "--pairs", "4"]
    assert speed.main([*base, *data]) == 0
    training = capsys.readouterr().out
    assert "plain sentence-transformers, fp32, its dropout" in training and "2 dimensions and numbers" in training
    assert (encoding + training).count("% of peak") == 6


def test_baselines_are_not_fitted_on_evaluation_questions(tiny_backbones, finqa_files):
    from finmatryoshka.eval.run import EvaluationPlan, run_evaluation

    plan = EvaluationPlan(
        [tiny_backbones["bert"]],
        [finqa_files["eval"]],
        [8],
        train_data=[finqa_files["eval"]],
        base=tiny_backbones["bert"],
        sections=("retrieval",),
    )
    results, _ = run_evaluation(plan)
    (task,) = results["retrieval"].values()
    assert "PCA" not in task["systems"] and "seed recipe" not in task["systems"]  # nothing was left to fit them on
