"""The figures about numbers as metrics of Hugging Face `evaluate`.

``evaluate.load("eval/metrics/finance_numbers.py", "sign_accuracy")``. The other names in this folder are links to this
file: ``evaluate.load("eval/metrics/sign_accuracy.py")`` needs no second argument.
"""

import datasets
import evaluate
import numpy as np

from finmatryoshka.eval.numeric import METRICS

NAMES = {
    "numeric_huber": "huber",
    "median_relative_error": "median_relative_error",
    "sign_accuracy": "sign_accuracy",
    "magnitude_accuracy": "magnitude_accuracy",
    "numeric_spearman": "spearman",
}


class FinanceNumbers(evaluate.Metric):
    """Inputs: ``predictions`` and ``references``, floats: z units for ``numeric_huber``, else the answers' own.

    Output: ``{name: float}``. Raises ``ValueError`` for a name that is none of `NAMES`.
    """

    def _info(self):
        # The file's name, where it was loaded by one of the links.
        name = type(self).__module__.rpartition(".")[2] if self.config_name == "default" else self.config_name
        if name not in NAMES:
            raise ValueError(f"finance_numbers: no metric {name!r}; name one as second argument: {', '.join(NAMES)}")
        self.figure = name
        value = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=f"{METRICS[NAMES[name]].title}: {METRICS[NAMES[name]].score.__doc__}",
            citation="",
            inputs_description=type(self).__doc__,
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions, references):
        score = METRICS[NAMES[self.figure]].score
        return {self.figure: score(np.asarray(predictions), np.asarray(references))}
