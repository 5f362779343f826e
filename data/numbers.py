"""Numbers of financial answers: one parser, one unit, one reversible scale.

The unit. A percentage is a fraction (``"14.6%"`` is 0.146), as FinQA's ``exe_ans`` has it. Money and counts stay in the
unit of the page they were read from: a page "in thousands" answers 94 for $94,000, because that is what its table says
and what a reader of the page would write. What is no number (yes/no, spans, blanks) is NaN, never 0; so is whatever the
parser does not understand to its last character. ``docs/data.md`` lists the formats.
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real

import numpy as np

# Powers of ten that a word or a letter after the figure stands for ("mm" is the accountants' million).
_SCALES = {
    "hundred": 2, "thousand": 3, "thousands": 3, "k": 3, "lakh": 5, "lakhs": 5,
    "million": 6, "millions": 6, "mm": 6, "mn": 6, "mln": 6, "mio": 6, "m": 6, "crore": 7, "crores": 7,
    "billion": 9, "billions": 9, "bn": 9, "bln": 9, "b": 9, "trillion": 12, "trillions": 12, "tn": 12, "trn": 12,
}  # fmt: skip
_PERCENT = r"%|percent|per\ cent|pct\.?|percentage\ points?|pp"
_BASIS_POINTS = r"bps?|basis\ points?"
_CODES = "usd|eur|gbp|jpy|inr|cny|rmb|chf|cad|aud|sgd|hkd"
_MONEY = rf"(?:us|au|hk|nz|[acrs])?\$|[€£¥₹₩]|{_CODES}|rs\.?"
_MONEY_AFTER = rf"[$€£¥₹₩]|{_CODES}|dollars?|euros?"
_COUNTED = r"years?|months?|weeks?|days?|hours?|shares?|units?|employees|people|times|x"
_ABOUT = r"approximately|approx\.?|about|around|~|≈"

# How digits are grouped, each by one way alone: the figure's own group says which.
_DIGITS = r"""
      (?P<plain>[0-9]+\.?|[0-9]*\.[0-9]+)                                    # 1234  12.5  .5  14.
    | (?P<comma>[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?                   # 1,234,567.89
              | [1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?)             # 12,34,567.89 (lakhs and crores)
    | (?P<point>[1-9][0-9]{0,2}(?:\.[0-9]{3})+,[0-9]+                        # 1.234,56
              | [1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}                            # 1.234.567
              | 0,[0-9]+ | [0-9]+,[0-9]{1,2}(?=\s*(?:%|percent|per\ cent|€|eur)))  # 0,75  12,5 %
    | (?P<apart>[1-9][0-9]{0,2}(?:[\u00a0\u202f\u2009'’][0-9]{3})+(?:[.,][0-9]+)?)   # 1 234 567,89 (no-break)  1'234.50
"""
_UNIT = (
    r"(?P<unit{0}>(?P<percent{0}>{percent})|(?P<bps{0}>{bps})|(?P<scale{0}>{scales})?\s*(?:{after})?\s*(?:{counted})?)"
)


def _unit(place: str) -> str:
    scales = "|".join(sorted(_SCALES, key=len, reverse=True))
    return _UNIT.format(place, percent=_PERCENT, bps=_BASIS_POINTS, scales=scales, after=_MONEY_AFTER, counted=_COUNTED)


# One figure from the first character to the last, as accountants write it: a negative in brackets (the closing one
# often lost to the next column), FinQA's doubled cells ("-32 ( 32 )", "14% (  % )"), a footnote's letter or star.
_FIGURE = re.compile(
    rf"""
    (?:(?:{_ABOUT})\s*)?
    (?P<sign>[-+])?\s*(?P<open>\()?\s*(?:(?:{_MONEY})\s*)?(?P<open2>\()?\s*(?P<sign2>[-+])?\s*(?:[$€£¥₹]\s*)?
    (?P<digits>{_DIGITS})(?P<exponent>e[-+]?[0-9]{{1,3}})?\s*{_unit("_in")}\s*
    (?P<close>\))?\s*{_unit("_out")}\s*
    (?P<doubled>\(\s*[-+]?\s*[$€£¥₹]?\s*(?P<again>[0-9.][0-9.,]*)?\s*(?P<percent_again>%)?\s*\))?\s*
    (?:\(\s*[a-z]\s*\)|\*+)?\s*\.?
    """,
    re.VERBOSE,
)
_LONGEST = 80  # characters: a longer text is prose

# Full-width forms (U+FF01 to U+FF5E) are ASCII set wide; dashes and minus signs are one sign.
_ASCII = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | {
    0x3000: " ", 0xFFE1: "£", 0xFFE5: "¥", **dict.fromkeys(map(ord, "−–‐‑‒﹣"), "-"),
}  # fmt: skip


@dataclass(frozen=True)
class _Figure:
    """What was read: signed digits with a decimal point, and the powers of ten of its percent sign and its scale
    word."""

    digits: str
    shift: int
    scale: int

    def value(self, scaled: bool = True) -> float:
        # The point is shifted in the text: 14.6 / 100 is not the float nearest to 0.146.
        mantissa, _, exponent = self.digits.partition("e")
        number = float(f"{mantissa}e{int(exponent or 0) + self.shift + (self.scale if scaled else 0)}")
        return number if math.isfinite(number) else math.nan


def _figure(text: str) -> _Figure | None:
    text = re.sub(r"[ \t\r\n]+", " ", text.replace("\\n", " ").translate(_ASCII)).strip().lower()
    match = _FIGURE.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    opened, signs = (
        [match[name] for name in ("open", "open2") if match[name]],
        (match["sign"] or "") + (match["sign2"] or ""),
    )
    if len(opened) > 1 or len(signs) > 1 or (match["close"] and not opened) or (opened and signs == "+"):
        return None
    if match["unit_in"].strip() and match["unit_out"].strip():
        return None  # "2019 €m" heads a column
    units = [name for name in ("percent", "bps", "scale") if match[f"{name}_in"] or match[f"{name}_out"]]
    unsigned = _decimal(match)
    if match["doubled"]:
        # The bracket repeats the figure or holds what damage left of it, a percent sign.
        if opened or (match["again"] is None and not match["percent_again"]):
            return None  # two figures in brackets are two
        if match["again"] is not None and match["again"].replace(",", "") != unsigned:
            return None
    percent = "percent" in units or match["percent_again"]
    if percent and units and units[0] != "percent":
        return None
    scale = _SCALES[match["scale_in"] or match["scale_out"]] if "scale" in units else 0
    negative = signs == "-" or bool(opened)
    digits = ("-" if negative else "") + unsigned + (match["exponent"] or "")
    return _Figure(digits, -2 if percent else -4 if "bps" in units else 0, scale)


def _decimal(match: re.Match) -> str:
    """The figure's digits with a decimal point and no grouping."""
    digits = match["digits"]
    if match["point"]:
        return digits.replace(".", "").replace(",", ".")
    if match["apart"]:
        return re.sub(r"[^0-9.]", "", digits.replace(",", "."))
    return digits.replace(",", "").removesuffix(".")


def parse_number(answer: object) -> float:
    """The number that an answer or a cell names, or NaN if it names none or more than is understood.

    Percentages and basis points become fractions, scale words multiply (``"$ 94 million"`` is 94e6), brackets mean a
    negative (``"( 1,234 )"``), and FinQA's doubled negatives (``"-32 ( 32 )"``) are read once.

    >>> parse_number("-32 ( 32 )"), parse_number("14.6%"), parse_number("( 1,234 )")
    (-32.0, 0.146, -1234.0)
    >>> parse_number("yes"), parse_number("1/2")
    (nan, nan)
    """
    return _number(answer, scaled=True)


def in_page_unit(answer: object) -> float:
    """`parse_number` without the scale word: a spelled-out "million" repeats the page's unit, which labels keep to."""
    return _number(answer, scaled=False)


def _number(answer: object, scaled: bool) -> float:
    if isinstance(answer, (list, tuple)):
        return _number(answer[0], scaled) if len(answer) == 1 else math.nan
    if isinstance(answer, str):
        figure = _figure(answer)
        return math.nan if figure is None else figure.value(scaled)
    if isinstance(answer, bool) or not isinstance(answer, (Real, Decimal)):
        return math.nan
    try:
        number = float(answer)
    except OverflowError:  # an integer of 400 digits
        return math.nan
    return number if math.isfinite(number) else math.nan


def agree(a: float, b: float) -> bool:
    """Whether two readings of one answer differ by rounding only (two significant digits)."""
    return math.isclose(a, b, rel_tol=0.02, abs_tol=0.006)


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
