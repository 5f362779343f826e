"""eval/: figures about numbers and concepts against values worked out by hand, and what the best constants score."""

from dataclasses import replace
from types import SimpleNamespace

import evaluate as hf_evaluate
import numpy as np
import pytest
import torch

from finmatryoshka.data.numbers import SignedLogScaler
from finmatryoshka.data.schema import Example, Page
from finmatryoshka.eval.concepts import CLASSES, concept_scores, load_concepts
from finmatryoshka.eval.numeric import (
    METRICS,
    best_constant,
    constant_scores,
    evaluate_numbers,
    huber,
    lost_to_constants,
    magnitude_accuracy,
    median_relative_error,
    number_scores,
    sign_accuracy,
    spearman,
)
from finmatryoshka.eval.tables import lost_note, numbers_table

from conftest import ROOT


def test_number_figures_by_hand():
    true, predicted = np.array([100.0, -5.0, 0.0, 2.0]), np.array([50.0, 5.0, 1.0, 30.0])
    assert median_relative_error(predicted, true) == pytest.approx(np.median([0.5, 2.0, 14.0]))
    assert sign_accuracy(predicted, true) == 0.5 and sign_accuracy(predicted[:2], true[:2] * [1, -1]) == 1
    assert spearman(predicted, true) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert spearman(np.ones(4), true) == 0.0
    assert huber(np.array([0.5, 3.0]), np.array([0.0, 0.0])) == pytest.approx((0.125 + 2.5) / 2)
    assert huber(predicted, true) == pytest.approx(
        torch.nn.functional.huber_loss(torch.tensor(predicted), torch.tensor(true)).item()
    )
    z = SCALER.transform(true)
    exact = number_scores(z, true, SCALER)
    assert exact["huber"] == pytest.approx(0, abs=1e-12) and exact["spearman"] == 1 and exact["sign_accuracy"] == 1


@pytest.mark.parametrize(
    "predicted, true, within",
    [
        (50.0, 100.0, True),
        (10.0, 100.0, True),  # a factor of ten, exactly
        (9.9, 100.0, False),
        (0.5, -0.5, False),  # the sign counts, however small
        (3.0, 0.05, False),  # and so does the ratio: most answers are shares
        (0.2, 0.05, True),
        (-30.0, -3.0, True),
        (0.0, 0.0, True),
        (1e-9, 0.0, False),
        (0.0, 1e-9, False),
    ],
)
def test_within_ten_is_a_true_ratio_with_the_sign(predicted, true, within):
    assert magnitude_accuracy(np.array([predicted]), np.array([true])) == within


def test_always_three_is_not_within_ten_of_shares():
    shares = np.array([0.05, -0.02, 0.14, 0.146, 0.5, 12.0, 300.0])
    assert magnitude_accuracy(np.full(7, 3.0), shares) == pytest.approx(2 / 7)  # 0.5 and 12


TRAIN = np.array([1.0, 2.0, 1e6, -50.0, 3.0, 0.04, 0.05, 0.03, -0.2, 0.06, 0.02])
SCALER = SignedLogScaler.fit(TRAIN)


@pytest.mark.parametrize("name", METRICS)
def test_no_constant_beats_the_best_of_each_metric_on_the_training_answers(name):
    metric = METRICS[name]

    def score(constant: float) -> float:
        values = np.full(len(TRAIN), constant)
        return metric.score(*map(SCALER.transform, (values, TRAIN))) if metric.in_z else metric.score(values, TRAIN)

    best = score(best_constant(name, TRAIN, SCALER))
    for constant in [0.0, *TRAIN, *np.geomspace(1e-3, 1e7, 50), *-np.geomspace(1e-3, 1e7, 50)]:
        assert not metric.beats(score(constant), best) or score(constant) == pytest.approx(best, abs=0.1)


def test_each_metric_has_its_own_constant_chosen_on_the_training_answers_alone():
    evaluation = np.array([-1.0, -2.0, -0.03, 500.0])
    scores, constants = constant_scores(TRAIN, evaluation, SCALER)
    assert constants["sign_accuracy"] > 0 and scores["sign_accuracy"] == 0.25  # most training answers are positive
    assert 0.01 < constants["magnitude_accuracy"] < 0.3 and scores["magnitude_accuracy"] == 0
    assert constants["huber"] != constants["magnitude_accuracy"] and scores["spearman"] == 0
    assert scores["huber"] == pytest.approx(
        huber(np.full(4, SCALER.transform(constants["huber"])), SCALER.transform(evaluation))
    )


class Silent:
    """Answers z = 0 to everything."""

    matryoshka_dims = [8]

    def encode_batches(self, texts, prompt_name, precision):
        yield list(range(len(texts))), SimpleNamespace(numeric={8: torch.zeros(len(texts))})


def test_the_words_of_a_question_alone_are_a_baseline():
    """What can be guessed from them is no reading of the evidence, so that a head is worth what it has above it."""

    def asked(thing: str, number: float, fact: str) -> list[Example]:
        return [
            Example(f"what {thing} of {name} in 20{i}?", Page("p", ""), fact, number + i / 100)
            for i, name in enumerate(("sales", "leases", "goodwill", "cash", "notes", "land"), 10)
        ]

    train = asked("was the percentage change", 0.1, "a") + asked("was the amount", 5000.0, "b")
    scaler = SignedLogScaler.fit([example.number for example in train])
    evaluation = {"same": train[1::2], "other facts": [replace(e, fact="no such thing") for e in train[1::2]]}
    same, other = (evaluate_numbers(Silent(), train, evaluation, scaler)[task] for task in evaluation)
    assert same["words"] == other["words"] and same["words"].keys() == {0}
    assert same["words"][0]["huber"] < 0.1 * same["constant"]["huber"]
    rows = numbers_table("Numbers:", "a task", same).rows
    assert [row[:2] for row in rows[1:]] == [["ridge on the question's words", "–"], ["heads", "8"]]


def test_every_figure_that_loses_to_its_constant_is_named():
    constant = {
        "huber": 0.28, "median_relative_error": 1.0, "sign_accuracy": 0.874, "magnitude_accuracy": 0.4, "spearman": 0.0,
    }  # fmt: skip
    head = constant | {"huber": 0.19, "median_relative_error": 0.9, "magnitude_accuracy": 0.5, "spearman": 0.5}
    numbers = {"n": 3, "constant": constant, "heads": {256: head | {"sign_accuracy": 0.805}, 64: head}}
    assert lost_to_constants(numbers) == [(256, "sign_accuracy"), (64, "sign_accuracy")]  # to equal is not to beat
    assert lost_note(numbers) == "right sign at 256, 64 does not beat the best constant"


@pytest.mark.parametrize(
    "name", ["numeric_huber", "median_relative_error", "sign_accuracy", "magnitude_accuracy", "numeric_spearman"]
)
def test_hugging_face_evaluate_loads_each_metric_offline(name, tmp_path):
    metric = hf_evaluate.load(str(ROOT / "eval" / "metrics" / f"{name}.py"), cache_dir=str(tmp_path))
    result = metric.compute(predictions=[1.0, -2.0, 3.0], references=[1.0, -2.0, 3.0])
    assert result == {name: pytest.approx(0.0 if name in ("numeric_huber", "median_relative_error") else 1.0)}
    worse = metric.compute(predictions=[-100.0, 2.0, -3.0], references=[1.0, -2.0, 3.0])
    assert (worse[name] > result[name]) == (name in ("numeric_huber", "median_relative_error")) and worse != result


def test_the_metrics_are_one_file_and_an_unknown_name_says_which_there_are(tmp_path):
    path = str(ROOT / "eval" / "metrics" / "finance_numbers.py")
    metric = hf_evaluate.load(path, "magnitude_accuracy", cache_dir=str(tmp_path))
    assert metric.compute(predictions=[0.5], references=[-0.5]) == {"magnitude_accuracy": 0.0}
    for name in (None, "f1"):
        with pytest.raises(ValueError, match="numeric_huber, median_relative_error"):
            hf_evaluate.load(path, name, cache_dir=str(tmp_path))


def test_concepts_are_many_distinct_and_show_four_pairs():
    pairs = load_concepts()
    assert len(pairs) >= 200 and {pair["class"] for pair in pairs} == set(CLASSES)
    assert len({(pair["a"], pair["b"]) for pair in pairs}) == len(pairs)
    shown = {("operating expenses", "marketing"), ("income", "profit"), ("revenue", "employees"), ("revenue", "sales")}
    assert {(p["a"], p["b"]) for p in pairs if p["subset"] == "pair"} == shown
    ideal = np.array([{"same": 0.9, "related": 0.5, "unrelated": 0.1}[pair["class"]] for pair in pairs])
    scores = concept_scores(ideal)
    assert (
        scores["auc_same_unrelated"] == 1
        and scores["unrelated_under_0.3"] == 1
        and scores["mean_related"] == pytest.approx(0.5)
    )
    assert concept_scores(-ideal)["auc_same_unrelated"] == 0 and scores["pair: revenue / sales"] == 0.9
