"""`evaluate.load("eval/metrics/median_relative_error.py")`: Median of |prediction - reference| / |reference| over references that are not 0."""

import datasets
import evaluate
import numpy as np

from finmatryoshka.eval.numeric import median_relative_error


class MedianRelativeError(evaluate.Metric):
    """Inputs: ``predictions`` and ``references``, floats. Output: ``{"median_relative_error": float}``."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        )
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=type(self).__doc__, features=features
        )

    def _compute(self, predictions, references):
        return {"median_relative_error": median_relative_error(np.asarray(predictions), np.asarray(references))}
