"""`evaluate.load("eval/metrics/numeric_spearman.py")`: Spearman's rank correlation; 0 where one side is constant."""

import datasets
import evaluate
import numpy as np

from finmatryoshka.eval.numeric import spearman


class NumericSpearman(evaluate.Metric):
    """Inputs: ``predictions`` and ``references``, floats. Output: ``{"numeric_spearman": float}``."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        )
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=type(self).__doc__, features=features
        )

    def _compute(self, predictions, references):
        return {"numeric_spearman": spearman(np.asarray(predictions), np.asarray(references))}
