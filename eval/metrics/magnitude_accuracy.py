"""`evaluate.load("eval/metrics/magnitude_accuracy.py")`: Share of predictions within a factor of ten of the reference, sign included."""

import datasets
import evaluate
import numpy as np

from finmatryoshka.eval.numeric import magnitude_accuracy


class MagnitudeAccuracy(evaluate.Metric):
    """Inputs: ``predictions`` and ``references``, floats. Output: ``{"magnitude_accuracy": float}``."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        )
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=type(self).__doc__, features=features
        )

    def _compute(self, predictions, references):
        return {"magnitude_accuracy": magnitude_accuracy(np.asarray(predictions), np.asarray(references))}
