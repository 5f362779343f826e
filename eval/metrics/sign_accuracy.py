"""`evaluate.load("eval/metrics/sign_accuracy.py")`: Share of predictions with the reference's sign."""

import datasets
import evaluate
import numpy as np

from finmatryoshka.eval.numeric import sign_accuracy


class SignAccuracy(evaluate.Metric):
    """Inputs: ``predictions`` and ``references``, floats. Output: ``{"sign_accuracy": float}``."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        )
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=type(self).__doc__, features=features
        )

    def _compute(self, predictions, references):
        return {"sign_accuracy": sign_accuracy(np.asarray(predictions), np.asarray(references))}
