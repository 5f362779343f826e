"""How well the numeric heads answer, at every dimension, beside a constant and beside ridge on frozen base embeddings.

All in z units (signed log, standardised on the training answers) unless a name says otherwise.
"""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV

from ..data.numbers import SignedLogScaler, signed_log
from ..data.schema import Example

HUBER_DELTA = 1.0


def huber(z: np.ndarray, target: np.ndarray, delta: float = HUBER_DELTA) -> float:
    """Mean Huber loss: quadratic up to ``delta``, linear beyond (Huber 1964)."""
    error = np.abs(np.asarray(z, dtype=np.float64) - target)
    return float(np.where(error <= delta, 0.5 * error**2, delta * (error - 0.5 * delta)).mean())


def median_relative_error(predicted: np.ndarray, true: np.ndarray) -> float:
    """Median of |predicted − true| / |true| over the answers that are not 0 (in the answers' unit)."""
    nonzero = true != 0
    return float(np.median(np.abs(predicted[nonzero] - true[nonzero]) / np.abs(true[nonzero])))


def sign_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Share of answers whose sign is right."""
    return float((np.sign(predicted) == np.sign(true)).mean())


def magnitude_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Share of answers whose signed logs, sign(x)·log10(1+|x|), differ by less than 1: within a factor of ten, of 1 where small."""
    close = np.abs(signed_log(predicted) - signed_log(true)) < np.log(10)
    return float(close.mean())


def spearman(predicted: np.ndarray, true: np.ndarray) -> float:
    """Spearman's rank correlation; 0 for a constant prediction, which ranks nothing."""
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return 0.0
    return float(spearmanr(predicted, true).statistic)


METRICS = {
    "median_relative_error": median_relative_error,
    "sign_accuracy": sign_accuracy,
    "magnitude_accuracy": magnitude_accuracy,
    "spearman": spearman,
}


def number_scores(z: np.ndarray, numbers: np.ndarray, scaler: SignedLogScaler) -> dict[str, float]:
    """All figures of predictions ``z`` for true ``numbers`` (both (n,), numbers in the answers' unit)."""
    predicted = scaler.inverse(z)
    scores = {"huber": huber(z, scaler.transform(numbers))}
    return scores | {name: metric(predicted, numbers) for name, metric in METRICS.items()}


def best_constant(train_numbers: np.ndarray, scaler: SignedLogScaler) -> float:
    """The constant in z units that has the least Huber loss on the training answers."""
    z = scaler.transform(train_numbers)
    return float(minimize_scalar(lambda c: huber(np.full_like(z, c), z), bounds=(z.min() - 1e-9, z.max() + 1e-9)).x)


def labelled(examples: list[Example]) -> list[Example]:
    return [example for example in examples if np.isfinite(example.number)]


@torch.inference_mode()
def predict_z(model, texts: list[str], batch_size: int = 32) -> dict[int, np.ndarray]:
    """By dimension, (n,) predictions in z units of a FinMatryoshka SentenceTransformer or FinMatryoshkaModel."""
    heads = model[0].auto_model if hasattr(model, "modules") and hasattr(model, "encode_query") else model
    order = np.argsort([-len(text) for text in texts], kind="stable")
    parts: dict[int, list] = {dim: [] for dim in heads.matryoshka_dims}
    for output in heads._encode_batches([texts[i] for i in order], "numeric", batch_size):
        for dim, z in output.numeric.items():
            parts[dim].append(z.float().cpu().numpy())
    result = {}
    for dim, z in parts.items():
        result[dim] = np.empty(len(texts))
        result[dim][order] = np.concatenate(z)
    return result


def evaluate_numbers(
    model, train: list[Example], evaluation: dict[str, list[Example]], scaler: SignedLogScaler, base=None
) -> dict[str, dict]:
    """By task of ``evaluation``, figures by system and dimension, and ``n``, the answers they are of.

    ``heads`` of ``model``, the best ``constant`` of the training answers and, with a ``base`` SentenceTransformer, ``ridge``
    regression on its frozen truncated embeddings (alpha by cross-validation). A task without answers is left out.
    """
    train = labelled(train)
    train_numbers = np.array([example.number for example in train])
    constant = best_constant(train_numbers, scaler)
    if base is not None:
        inputs, targets = (
            base.encode([example.numeric_text for example in train], show_progress_bar=False),
            scaler.transform(train_numbers),
        )
    results = {}
    for task, examples in evaluation.items():
        numbers = np.array([example.number for example in labelled(examples)])
        if not len(numbers):
            continue
        texts = [example.numeric_text for example in labelled(examples)]
        predicted = {"heads": predict_z(model, texts)}
        if base is not None:
            queries = base.encode(texts, show_progress_bar=False)
            predicted["ridge"] = {
                dim: RidgeCV(alphas=np.logspace(-2, 3, 11)).fit(inputs[:, :dim], targets).predict(queries[:, :dim])
                for dim in predicted["heads"]
            }
        results[task] = {"n": len(numbers), "constant": number_scores(np.full(len(numbers), constant), numbers, scaler)}
        for system, by_dim in predicted.items():
            results[task][system] = {dim: number_scores(z, numbers, scaler) for dim, z in by_dim.items()}
    return results
