"""`evaluate.load("eval/metrics/numeric_huber.py")`: Mean Huber loss (delta 1) of predictions and references in z units."""

import datasets
import evaluate
import numpy as np

from finmatryoshka.eval.numeric import huber


class NumericHuber(evaluate.Metric):
    """Inputs: ``predictions`` and ``references``, floats. Output: ``{"numeric_huber": float}``."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        )
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=type(self).__doc__, features=features
        )

    def _compute(self, predictions, references):
        return {"numeric_huber": huber(np.asarray(predictions), np.asarray(references))}
