"""Questions about a shaped page from templates of our own: line items, years, amounts, and their answers."""

import math
import random
import re
from dataclasses import dataclass

from ..finqa import linearise_row
from ..numbers import parse_number
from ..schema import Page, numeric_text
from .layout import DASH, YEAR, ShapedPage


@dataclass
class SyntheticPair:
    """A question and the page it was made from; ``anchor`` is where on the page its evidence starts (characters),
    ``fact`` the rows it asks about ("" for a sentence) and ``number`` the answer in the page's unit (NaN: none)."""

    question: str
    page: Page
    anchor: int
    fact: str = ""
    number: float = math.nan

    @property
    def numeric_text(self) -> str:
        """What the numeric heads read."""
        return numeric_text(self.question, self.fact)


# Wording and what it asks: a and b are the item's values of the earlier and the later year.
_OVER_TIME = (
    ("what was the percentage change in {item} from {prior} to {year}?", lambda a, b: (b - a) / abs(a)),
    ("what is the percent change in {item} between {prior} and {year}?", lambda a, b: (b - a) / abs(a)),
    ("by what percentage did {item} increase from {prior} to {year}?", lambda a, b: (b - a) / abs(a)),
    ("what was the growth rate of {item} in {year}?", lambda a, b: (b - a) / abs(a)),
    ("what was the net change in {item} from {prior} to {year} , in {unit}?", lambda a, b: b - a),
    ("how much did {item} change between {prior} and {year}?", lambda a, b: b - a),
    ("what was the average {item} from {prior} to {year}?", lambda a, b: (a + b) / 2),
    ("what is the total {item} for {prior} and {year} combined?", lambda a, b: a + b),
)
# Likewise within one year: a is the item's value, b the other row's.
_WITHINYEAR = (
    ("what percentage of {other} was {item} in {year}?", lambda a, b: a / b),
    ("what portion of {other} is related to {item}?", lambda a, b: a / b),
    ("what was the ratio of {item} to {other} in {year}?", lambda a, b: a / b),
    ("in {year} , what percent of {other} did {item} represent?", lambda a, b: a / b),
    ("what is the sum of {item} and {other} in {year} , in {unit}?", lambda a, b: a + b),
    ("how much larger was {item} than {other} as of {year}?", lambda a, b: a - b),
    ("as of december 31 , {year} what was the difference between {item} and {other}?", lambda a, b: a - b),
)
_SENTENCE = (
    "what was {phrase}?",
    "what is {phrase}?",
    "how much was {phrase}?",
    "what percent of {phrase}?",
    "considering {phrase} , what was the total?",
)
_DULL = set("total other the of and in to a for net less more than at on as by 1 2 3 4 5 ( ) , - $".split())


def table_question(shaped: ShapedPage, rng: random.Random) -> tuple[str, str, float] | None:
    """A FinQA-like question about one or two rows of the page's table, those rows as facts, and the answer (NaN: not
    computable); None where the rows name too little."""
    table, years = shaped.table, shaped.years
    named = [i for i, row in enumerate(table) if i and _names_something(row[0])]
    if len(named) < 2:
        return None
    if not years:
        return None
    row, other = rng.sample(named, 2)
    year = rng.choice(years)
    priors = [y for y in years if y < year]
    words = {
        "item": table[row][0],
        "year": year,
        "unit": next((u for u in ("thousands", "billions") if u in shaped.page.text), "millions"),
    }
    if priors and rng.random() < 0.55:
        prior, (wording, answer) = rng.choice(priors), rng.choice(_OVER_TIME)
        rows, values = [row], (_value(table, row, prior), _value(table, row, year))
        words["prior"] = prior
    else:
        total = next((i for i in reversed(named) if "total" in table[i][0] and i != row), other)
        other = total if rng.random() < 0.5 else other
        wording, answer = rng.choice(_WITHINYEAR)
        rows, values = [row, other], (_value(table, row, year), _value(table, other, year))
        words["other"] = table[other][0]
    try:
        number = float(answer(*values))
    except ZeroDivisionError:
        number = math.nan
    return wording.format(**words), " ".join(linearise_row(table, i) for i in rows), number


def _names_something(name: str) -> bool:
    return 3 < len(name) < 80 and bool(re.search("[a-z]{3}", name)) and bool(set(name.split()) - _DULL)


def _value(table: list[list[str]], row: int, year: str) -> float:
    """What a row has under a year's column; NaN without such a column or figure."""
    column = next((i for i, cell in enumerate(table[0]) if year in cell), None)
    if column is None or column >= len(table[row]) or table[row][column] == DASH:
        return math.nan
    return parse_number(table[row][column])


def sentence_question(text: str, rng: random.Random) -> tuple[str, int] | None:
    """A question from a sentence with an amount: its words around the amount, without it; and where it stands."""
    sentences = [m for m in re.finditer(r"[^.\[\]]{60,300} \.", text) if re.search(r"[$%]|\d{2,}", m[0])]
    if not sentences:
        return None
    match = rng.choice(sentences)
    words = [
        w
        for w in match[0].split()
        if w not in ("$", "(", ")", ".", ",") and not re.fullmatch(r"[\d.]+%?", w) or YEAR.fullmatch(w)
    ]
    if len(words) < 8:
        return None
    length = rng.randrange(6, 14)
    start = rng.randrange(max(1, len(words) - length))
    return rng.choice(_SENTENCE).format(phrase=" ".join(words[start : start + length])), match.start()


def ask(shaped: ShapedPage, rng: random.Random) -> SyntheticPair | None:
    """Three of four questions about the table, the others (and those of a table that names nothing) about a sentence."""
    if rng.random() < 0.75:
        made = table_question(shaped, rng)
        if made:
            return SyntheticPair(made[0], shaped.page, shaped.anchor, made[1], made[2])
    made = sentence_question(shaped.page.text, rng)
    return SyntheticPair(made[0], shaped.page, made[1]) if made else None
