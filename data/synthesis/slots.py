"""A wording with slots for what a table names, filled and answered: its figures and what is done with them."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from ..decontamination import words_of
from ..numbers import agree
from .tables import PageTable

SLOT = re.compile(r"\{(row|total|column|year|company)(\d)\}")

# Words of asking: they fit any page, and may stand beside a slot. All others are the page's subject.
ASKING = set(
    "a add among amount amounts an and are as at average balance be been between both by change compared comprised considering "
    "contributed cumulative decline decrease did difference do does during each end ended fiscal for from greater growth "
    "has have higher highest how in increase is it its larger largest less lowest many much net of on or over part percent "
    "percentage period portion proportion range rate ratio related relation represent represented respective respectively "
    "sum than that the to total up value values was were what when where which with year years ( ) , / %".split()
)
# What a question about one or two figures asks, in the order in which its wording names them.
OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "(b-a)/a": lambda a, b: (b - a) / abs(a),
    "(a-b)/b": lambda a, b: (a - b) / abs(b),
    "a/b": lambda a, b: a / b,
    "b/a": lambda a, b: b / a,
    "a+b": lambda a, b: a + b,
    "mean": lambda a, b: (a + b) / 2,
    "b-a": lambda a, b: b - a,
    "a-b": lambda a, b: a - b,
    "a": lambda a, b: a,
}


@dataclass
class Wording:
    """A question with slots: ``{row0}`` a line item, ``{total0}`` one named a total, ``{column0}`` a column,
    ``{year0}`` the newest year of the table, ``{year1}`` the one before, ``{company0}`` the company; ``count``
    questions were worded so, and ``operation`` (a key of `OPERATIONS`) gives their answers, "" where it is not
    known."""

    text: str
    count: int = 1
    operation: str = ""

    @property
    def slots(self) -> list[str]:
        """The slots in the order in which they are named."""
        return list(dict.fromkeys(match[0] for match in SLOT.finditer(self.text)))

    @property
    def words(self) -> list[str]:
        """The words beside the slots."""
        return [word for word in self.text.split() if not SLOT.fullmatch(word)]

    @property
    def subject(self) -> set[str]:
        """The words that are none of asking: what a page has to hold that is asked so."""
        parts = {part for word in self.words if word not in ASKING for part in words_of(word)}
        return parts - {"s", "company"}


def figures(wording: Wording, named: dict[str, str], table: PageTable) -> list[float]:
    """The figures that a filled wording names, items by places, in its order."""
    items = [
        named[slot]
        for slot in wording.slots
        if named[slot] in table.items and SLOT.fullmatch(slot)[1] in ("row", "total")
    ]
    return [table.figure(item, place) for item, place in product(items, places(wording, named, table))]


def places(wording: Wording, named: dict[str, str], table: PageTable) -> list[int | None]:
    """Where the years and columns that a filled wording names stand in the table; its only column where it names
    none."""
    kinds = {slot: SLOT.fullmatch(slot)[1] for slot in wording.slots}
    found = [table.years.get(named[slot]) for slot in kinds if kinds[slot] == "year"]
    found += [table.columns.get(named[slot]) for slot in kinds if kinds[slot] == "column"]
    if not found and not table.by_column and len(table.table[0]) == 2:
        return [1]
    return found


def operation_of(wording: Wording, named: dict[str, str], table: PageTable, number: float) -> str:
    """The operation on the named figures that gives the labelled ``number``; "other" where none does, "" where the
    figures or the number are not known."""
    values = figures(wording, named, table)
    if math.isnan(number) or len(values) not in (1, 2) or any(map(math.isnan, values)):
        return ""
    ranks = [int(match[2]) for match in SLOT.finditer(wording.text) if match[1] == "year"]
    names = ["a"] if len(values) == 1 else [name for name in OPERATIONS if name != "a"]
    found = next((name for name in names if agree(calculate(name, values), number)), "other")
    # "the average from 2015 to 2018" is of all the years between.
    return "other" if found in ("mean", "a+b") and ranks and max(ranks) - min(ranks) > 1 else found


def calculate(operation: str, values: list[float]) -> float:
    """An operation's result on one or two figures; NaN where it has none."""
    if not operation or len(values) != (1 if operation == "a" else 2):
        return math.nan
    try:
        return float(OPERATIONS[operation](values[0], values[-1]))
    except ZeroDivisionError:
        return math.nan
