"""Numbers of financial answers: one parser, one unit, one reversible scale.

The unit. A percentage is a fraction (``"14.6%"`` is 0.146), as FinQA's ``exe_ans`` has it. Money and counts stay in the
unit of the page they were read from: a page "in thousands" answers 94 for $94,000, because that is what its table says
and what a reader of the page would write. What is no number (yes/no, spans, blanks) is NaN, never 0.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

SCALE_WORDS = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}

# A figure with optional sign, currency, thousands separators, exponent; accountants write negatives in brackets.
_FIGURE = re.compile(
    r"(?P<open>\()?\s*(?P<sign>[-−–+])?\s*[$€£¥]?\s*(?P<sign2>[-−–])?\s*\(?\s*"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<exp>[eE][+-]?\d+)?"
    r"\s*(?P<percent>%)?(?P<close>\s*\))?\s*(?P<percent2>%|percent\b)?\s*(?P<scale>hundred|thousand|million|billion|trillion)?",
    re.IGNORECASE,
)


def parse_number(text: object) -> float:
    """The number that an answer names, or NaN if it names none.

    Percentages become fractions, scale words multiply (``"$ 94 million"`` is 94e6), brackets without a sign mean a
    negative (``"( 1,234 )"``), and FinQA's doubled negatives (``"-32 ( 32 )"``) are read once.

    >>> parse_number("-32 ( 32 )"), parse_number("14.6%"), parse_number("( 1,234 )")
    (-32.0, 0.146, -1234.0)
    >>> parse_number("yes")
    nan
    """
    if isinstance(text, bool) or text is None:
        return math.nan
    if isinstance(text, (int, float, np.number)):
        return float(text) if math.isfinite(text) else math.nan
    if isinstance(text, (list, tuple)):
        return parse_number(text[0]) if len(text) == 1 else math.nan
    if not isinstance(text, str):
        return math.nan
    text = text.replace("\\n", " ").strip()
    match = _FIGURE.search(text)
    # Words before the figure make it a sentence or a name ("level 3"), not a numeric answer.
    if match is None or re.search(r"[A-Za-z]", text[: match.start("digits")].replace("USD", "").replace("US", "")):
        return math.nan
    figures = match["digits"].replace(",", "") + (match["exp"] or "")
    value = float(figures)
    before = text[: match.start("digits")]
    # A bracket that opens before the figure and is no part of a doubled "-32 ( 32 )".
    if match["sign"] in ("-", "−", "–") or match["sign2"] or "(" in before:
        value = -value
    if match["percent"] or match["percent2"]:
        # Shift the point in the text: 14.6 / 100 is not the float nearest to 0.146.
        mantissa, _, exponent = figures.lower().partition("e")
        value = math.copysign(float(f"{mantissa}e{int(exponent or 0) - 2}"), value)
    if match["scale"]:
        value *= SCALE_WORDS[match["scale"].lower()]
    return value if math.isfinite(value) else math.nan


def agree(a: float, b: float) -> bool:
    """Whether two readings of one answer differ by rounding only (two significant digits)."""
    return math.isclose(a, b, rel_tol=0.02, abs_tol=0.006)


def in_page_unit(answer: object) -> float:
    """`parse_number` without the scale word: a spelled-out "million" repeats the page's unit, which labels keep to."""
    if isinstance(answer, (list, tuple)):
        return in_page_unit(answer[0]) if len(answer) == 1 else math.nan
    return parse_number(
        re.sub("|".join(SCALE_WORDS), "", answer, flags=re.IGNORECASE) if isinstance(answer, str) else answer
    )


@dataclass(frozen=True)
class SignedLogScaler:
    """z = (sign(x)·log(1+|x|) − mean) / std, with mean and std of the training labels, and back.

    ``mean`` and ``std`` (natural log units) live in the model's config, so that predictions map back to numbers.
    """

    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def fit(cls, numbers) -> "SignedLogScaler":
        """Fit on the finite ones of ``numbers``; raises ``ValueError`` when there is none."""
        numbers = np.asarray(numbers, dtype=np.float64)
        logs = signed_log(numbers[np.isfinite(numbers)])
        if not len(logs):
            raise ValueError("no training record has a numeric answer: nothing to fit the numeric scale on")
        std = float(logs.std())
        return cls(float(logs.mean()), std if std > 1e-8 else 1.0)

    def transform(self, numbers) -> np.ndarray:
        return (signed_log(numbers) - self.mean) / self.std

    def inverse(self, z) -> np.ndarray:
        logs = np.asarray(z, dtype=np.float64) * self.std + self.mean
        return np.sign(logs) * np.expm1(np.abs(logs))


def signed_log(numbers) -> np.ndarray:
    """sign(x)·log(1+|x|), which keeps zero, the sign and the order of magnitude."""
    numbers = np.asarray(numbers, dtype=np.float64)
    return np.sign(numbers) * np.log1p(np.abs(numbers))
