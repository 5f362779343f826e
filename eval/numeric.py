"""How well the numeric heads answer, at every dimension, beside the best constants and two ridge regressions: on the
question's words and on frozen base embeddings.

Huber in z units (signed log, standardised on the training answers), everything else in the answers' own unit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline

from ..data.numbers import SignedLogScaler
from ..data.schema import Example
from .encoding import encode_to_array

HUBER_DELTA = 1.0
# Constants that are tried for a metric: so many quantiles of the training answers, and zero.
CANDIDATES = 500
ALPHAS = np.logspace(-2, 3, 11)


def huber(z: np.ndarray, target: np.ndarray, delta: float = HUBER_DELTA) -> float:
    """Mean Huber loss: quadratic up to ``delta``, linear beyond (Huber 1964)."""
    error = np.abs(np.asarray(z, dtype=np.float64) - target)
    return float(np.where(error <= delta, 0.5 * error**2, delta * (error - 0.5 * delta)).mean())


def median_relative_error(predicted: np.ndarray, true: np.ndarray) -> float:
    """Median of |predicted − true| / |true| over the answers that are not 0; NaN where all are."""
    nonzero = true != 0
    if not nonzero.any():
        return float("nan")
    return float(np.median(np.abs(predicted[nonzero] - true[nonzero]) / np.abs(true[nonzero])))


def sign_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Share of answers whose sign is right; zero is a sign of its own."""
    return float((np.sign(predicted) == np.sign(true)).mean())


def magnitude_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Share of answers within a factor of ten: the right sign, and 1/10 ≤ predicted/true ≤ 10.

    For an answer of 0 nothing but 0 counts: no ratio to it says how near a prediction is.
    """
    size, target = np.abs(predicted), np.abs(true)
    within = (size <= 10 * target) & (target <= 10 * size)
    return float((within & (np.sign(predicted) == np.sign(true))).mean())


def spearman(predicted: np.ndarray, true: np.ndarray) -> float:
    """Spearman's rank correlation; 0 for a constant prediction, which ranks nothing."""
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return 0.0
    return float(spearmanr(predicted, true).statistic)


@dataclass(frozen=True)
class Metric:
    """A figure of (n,) predictions and true answers; ``in_z`` says that both go in as z units, as Huber's do."""

    score: Callable[[np.ndarray, np.ndarray], float]
    title: str
    lower_is_better: bool = False
    in_z: bool = False

    def beats(self, score: float, other: float) -> bool:
        """Whether ``score`` is strictly better than ``other``."""
        return score < other if self.lower_is_better else score > other


METRICS = {
    "huber": Metric(huber, "Huber", lower_is_better=True, in_z=True),
    "median_relative_error": Metric(median_relative_error, "median relative error", lower_is_better=True),
    "sign_accuracy": Metric(sign_accuracy, "right sign"),
    "magnitude_accuracy": Metric(magnitude_accuracy, "within ×10"),
    "spearman": Metric(spearman, "Spearman"),
}


def number_scores(z: np.ndarray, numbers: np.ndarray, scaler: SignedLogScaler) -> dict[str, float]:
    """All figures of predictions ``z`` for true ``numbers`` (both (n,), numbers in the answers' unit)."""
    target, predicted = scaler.transform(numbers), scaler.inverse(z)
    return {name: m.score(z, target) if m.in_z else m.score(predicted, numbers) for name, m in METRICS.items()}


def best_constant(name: str, train_numbers: np.ndarray, scaler: SignedLogScaler) -> float:
    """The constant answer (in the answers' unit) that is best by one metric of `METRICS` on the training answers.

    Huber's is found by minimisation, the others' among `CANDIDATES` quantiles of the training answers and zero.
    """
    if name == "huber":
        z = scaler.transform(train_numbers)
        found = minimize_scalar(lambda c: huber(np.full_like(z, c), z), bounds=(z.min() - 1e-9, z.max() + 1e-9))
        return float(scaler.inverse(found.x))
    metric = METRICS[name]
    quantiles = np.quantile(train_numbers, np.linspace(0, 1, CANDIDATES), method="nearest")
    best, best_score = 0.0, metric.score(np.zeros_like(train_numbers), train_numbers)
    for candidate in np.unique(quantiles):
        score = metric.score(np.full_like(train_numbers, candidate), train_numbers)
        if metric.beats(score, best_score):
            best, best_score = float(candidate), score
    return best


def constant_scores(
    train_numbers: np.ndarray, numbers: np.ndarray, scaler: SignedLogScaler
) -> tuple[dict[str, float], dict[str, float]]:
    """For every metric, what its own best constant scores on ``numbers``, and that constant: never one for all."""
    constants = {name: best_constant(name, train_numbers, scaler) for name in METRICS}
    z = {name: np.full(len(numbers), scaler.transform(value)) for name, value in constants.items()}
    # Not through z for the rest: log and back would turn a constant of 3 into 2.9999.
    scores = {
        name: metric.score(z[name], scaler.transform(numbers))
        if metric.in_z
        else metric.score(np.full(len(numbers), constants[name]), numbers)
        for name, metric in METRICS.items()
    }
    return scores, constants


def lost_to_constants(numbers: dict) -> list[tuple[int, str]]:
    """(dimension, metric) of the heads' figures in one task of `evaluate_numbers` that do not beat their constant's."""
    return [
        (dim, name)
        for dim, scores in numbers["heads"].items()
        for name, metric in METRICS.items()
        if not metric.beats(scores[name], numbers["constant"][name])
    ]


def labelled(examples: list[Example]) -> list[Example]:
    """Those with a number and with evidence to read it from: a numeric head comes after retrieval."""
    return [example for example in examples if example.evidence_known and np.isfinite(example.number)]


def seen_answers(evaluation: list[Example], train: list[Example]) -> int:
    """How many of the ``evaluation`` answers are of a question or a page that ``train`` holds."""
    questions, pages = {e.question for e in train}, {e.page.page_id for e in train}
    return sum(e.question in questions or e.page.page_id in pages for e in labelled(evaluation))


@torch.inference_mode()
def predict_z(model, texts: list[str], precision: str = "auto") -> dict[int, np.ndarray]:
    """By dimension, (n,) predictions in z units of a FinMatryoshka SentenceTransformer or FinMatryoshkaModel."""
    heads = model[0].auto_model if hasattr(model, "modules") and hasattr(model, "encode_query") else model
    result = {dim: np.empty(len(texts)) for dim in heads.matryoshka_dims}
    for positions, output in heads.encode_batches(texts, "numeric", precision=precision):
        for dim, z in output.numeric.items():
            result[dim][positions] = z.float().cpu().numpy()
    return result


def evaluate_numbers(
    model, train: list[Example], evaluation: dict[str, list[Example]], scaler: SignedLogScaler, base=None,
    seen: list[Example] | None = None, precision: str = "auto",
) -> dict[str, dict]:  # fmt: skip
    """By task of ``evaluation``: figures by system and dimension of ``n`` answers, ``seen`` of them in training.

    ``heads`` of ``model``; ``constant``, for each metric the best constant of the training answers by that metric
    (``constants`` has them); ``words``, ridge regression on the words and word pairs of the questions (TF-IDF): what
    can be guessed without the evidence, under dimension 0; and, with a ``base`` SentenceTransformer, ``ridge``
    regression on its frozen truncated embeddings. Alphas are chosen by cross-validation. A task without answers is left
    out.

    Args:
        train: What constants and ridge are fitted on.
        seen: What the model may have been trained on, where that is more than ``train``.
        precision: What model and base multiply in (eval/encoding.py).
    """
    known = labelled(train)
    train_numbers = np.array([example.number for example in known])
    targets = scaler.transform(train_numbers)
    words = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), RidgeCV(alphas=ALPHAS))
    words.fit([example.question for example in known], targets)
    if base is not None:
        inputs = encode_to_array(base, base.encode, [example.numeric_text for example in known], precision)
    results: dict[str, dict] = {}
    for task, examples in evaluation.items():
        numbers = np.array([example.number for example in labelled(examples)])
        if not len(numbers):
            continue
        texts = [example.numeric_text for example in labelled(examples)]
        predicted = {
            "heads": predict_z(model, texts, precision),
            "words": {0: words.predict([example.question for example in labelled(examples)])},
        }
        if base is not None:
            queries = encode_to_array(base, base.encode, texts, precision)
            predicted["ridge"] = {
                dim: RidgeCV(alphas=ALPHAS).fit(inputs[:, :dim], targets).predict(queries[:, :dim])
                for dim in predicted["heads"]
            }
        scores, constants = constant_scores(train_numbers, numbers, scaler)
        results[task] = {
            "n": len(numbers),
            "seen": seen_answers(examples, train if seen is None else seen),
            "constant": scores,
            "constants": constants,
        }
        for system, by_dim in predicted.items():
            results[task][system] = {dim: number_scores(z, numbers, scaler) for dim, z in by_dim.items()}
    return results
