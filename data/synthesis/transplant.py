"""Questions transplanted: the wordings of labelled questions, filled with what another page's table names."""

import logging
import math
import random
import re
from collections import Counter
from dataclasses import dataclass

from ..decontamination import words_of
from ..schema import Example, Page, numeric_text
from .filter import Finder
from .slots import ASKING, SLOT, Wording, calculate, figures, places, slot_parts
from .tables import PageTable, names_something, read_table, shape_filing, without_brackets
from .wordings import wordings

logger = logging.getLogger(__name__)

COMPANY_SHARE = 0.15  # of the questions about a page that names its company
_ROUNDS = 60  # at most so many questions a page
_TRIES = 12  # wordings tried on a page before it is passed over
_JOINT = re.compile(
    r" , | - | attributable to | related to | net of | including | excluding | from | before | on | for "
)
_UP, _DOWN = re.compile(r"\b(increase|grow|growth|rise)\b"), re.compile(r"\b(decrease|decline)\b")
_SHARE = re.compile(r"\b(percent|percentage|portion|proportion)\b")
# What is measured: a wording that says it asks about a category ("the net sales in europe"), not about another measure.
_MEASURE = re.compile(
    r"\b(sales|revenues?|income|loss|losses|expenses?|margin|cash|assets|liabilities|costs?|tax|taxes|earnings|returns?|"
    r"profit|debt|shares|stock|operations|proceeds|payments|charges?|equity|growth|rate|ratio)\b"
)
_UNIT = re.compile(r"\b(thousands|millions|billions|dollars|amount|balance|value|sum)\b")


@dataclass
class SyntheticPair:
    """A question and the page it was made for; ``evidence_start`` is where on the page its evidence starts
    (characters), ``fact`` the table rows it asks about, ``number`` the answer in the page's unit (NaN: none is
    known)."""

    question: str
    page: Page
    evidence_start: int
    fact: str = ""
    number: float = math.nan
    evidence_known: bool = True

    @property
    def numeric_text(self) -> str:
        """What the numeric heads read."""
        return numeric_text(self.question, self.fact)


def is_set_aside(position: int) -> bool:
    """Whether the filing page at ``position`` of its source is of the fifth that no backbone is trained on."""
    return position % 5 == 4


def transplanted_pairs(
    examples: list[Example],
    pages: list[Page],
    count: int,
    seed: int = 13,
    found_among: int = 10,
    raw_share: float = 0.5,
) -> list[SyntheticPair]:
    """Up to ``count`` (question, page) pairs: wordings of ``examples`` filled from the tables of ``pages``, in random
    order.

    A page with a table (FinQA, TAT-QA) is taken as it is; of the filing pages ``raw_share`` keep their layout text and
    the others take FinQA's shape. A question is kept when BM25 ranks its page among the first ``found_among`` of all.
    No question is asked twice.
    """
    rng = random.Random(seed)
    worded = wordings(examples)
    read = [read_table(page) if page.table else shape_filing(page, rng.random() < raw_share) for page in pages]
    tables = [table for table in read if table]
    if not worded or not tables:
        return []
    finder = Finder([table.page for table in tables], found_among)
    vocabularies = [set(words_of(table.page.text)) for table in tables]
    # The square root lets the rare wordings speak.
    weights = [math.sqrt(wording.count) for wording in worded]
    pairs, asked, made = [], set(), 0
    for _ in range(_ROUNDS):
        candidates = []
        for i in rng.sample(range(len(tables)), len(tables)):
            pair = _ask(tables[i], vocabularies[i], rng.choices(worded, weights, k=_TRIES), rng)
            if pair and pair.question not in asked:
                asked.add(pair.question)
                candidates.append(pair)
        found = finder.finds([pair.question for pair in candidates], [pair.page.page_id for pair in candidates])
        made += len(candidates)
        pairs += [pair for pair, kept in zip(candidates, found) if kept]
        if len(pairs) >= count or not candidates:
            break
    logger.info(
        "%d wordings, %d tables: BM25 found the page of %d of %d questions", len(worded), len(tables), len(pairs), made
    )
    return rng.sample(pairs[:count], min(count, len(pairs)))


def _ask(table: PageTable, vocabulary: set[str], worded: list[Wording], rng: random.Random) -> SyntheticPair | None:
    """A question about a table in the first of the wordings that fits it, or None."""
    for wording in worded:
        named = _named(wording, table, rng) if wording.subject <= vocabulary else None
        if named and _plausible(wording, named, table):
            items = [name for name in named.values() if name in table.items]
            rows = table.evidence(items, places(wording, named, table))
            number = calculate(wording.operation, figures(wording, named, table))
            question = _fill(wording, named, table, rng)
            return SyntheticPair(question, table.page, table.starts[rows[0]], table.fact(rows), number)
    return None


def _named(wording: Wording, table: PageTable, rng: random.Random) -> dict[str, str] | None:
    """What each slot names in the table, drawn at random; years by their rank. None where the table lacks it."""
    kinds = {slot: slot_parts(slot) for slot in wording.slots}
    totals = [item for item in table.items if "total" in item.split()]
    choices = {"row": list(table.items), "total": totals, "column": list(table.columns)}
    counts = Counter(kind for kind, _ in kinds.values())
    years = list(table.years)
    if any(kind == "year" and number >= len(years) for kind, number in kinds.values()):
        return None
    if any(counts[kind] > len(choices[kind]) for kind in choices):
        return None
    drawn = {kind: _neighbours(choices[kind], counts[kind], rng) for kind in choices if counts[kind]}
    drawn["company"] = [_company_on(table.page)] if counts["company"] else []
    named = {slot: years[number] if kind == "year" else drawn[kind].pop() for slot, (kind, number) in kinds.items()}
    return named if all(named.values()) and len(set(named.values())) == len(named) else None


def _neighbours(names: list[str], count: int, rng: random.Random, within: int = 6) -> list[str]:
    """``count`` names drawn from a stretch of the table: what stands together is compared."""
    start = rng.randrange(max(1, len(names) - max(within, count) + 1)) if count > 1 else 0
    return rng.sample(names[start : start + max(within, count)] if count > 1 else names, count)


def _plausible(wording: Wording, named: dict[str, str], table: PageTable) -> bool:
    """Whether the page's figures answer the question: they are there, and it asks for what they can be."""
    values = figures(wording, named, table)
    # A year over several columns, or none, leaves the answer open: the page still holds it.
    if None not in places(wording, named, table) and any(map(math.isnan, values)):
        return False
    items = [name for name in named.values() if name in table.items]
    if any(table.is_rate(item) for item in items) and (len(items) > 1 or _UNIT.search(wording.text)):
        return False
    beside = " ".join(word for word in wording.words if word not in ASKING)
    if _MEASURE.search(beside) and any(_MEASURE.search(item) for item in items):
        return False
    number = calculate(wording.operation, values)
    if wording.operation in ("(b-a)/a", "(a-b)/b") and (min(values, default=1) <= 0 or number == 0):
        return False
    if wording.operation in ("a/b", "b/a") and _SHARE.search(wording.text) and (number <= 0 or number > 1):
        return False
    change = _change(wording, values)
    up, down = _UP.search(wording.text), _DOWN.search(wording.text)
    return not (up and not down and change < 0 or down and not up and change > 0)


def _change(wording: Wording, values: list[float]) -> float:
    """How much an item's figure rose from the earlier to the later of two years; NaN for other questions."""
    ranks = [number for kind, number in map(slot_parts, wording.slots) if kind == "year"]
    if len(ranks) != 2 or len(values) != 2:
        return math.nan
    first, second = values
    return first - second if ranks[0] < ranks[1] else second - first


def _fill(wording: Wording, named: dict[str, str], table: PageTable, rng: random.Random) -> str:
    taken = set(table.items)
    said = {
        slot: _said(name, taken, rng, "total" in slot) if name in table.items else name for slot, name in named.items()
    }
    if "total" in wording.words:
        said = {slot: name.removeprefix("total ") for slot, name in said.items()}
    text = SLOT.sub(lambda match: said[match[0]], wording.text)
    company = "" if "company0" in wording.text else _company_on(table.page)
    if company and rng.random() < COMPANY_SHARE:
        if "company's" in text:
            text = re.sub(r"(the )?company's", f"{company}'s", text, count=1)
        else:
            text = f"for {company} , {text}" if rng.random() < 0.3 else f"{text} for {company}"
    return re.sub(r"\b(\w+)( \1\b)+", r"\1", text).replace(" 's", "'s") + "?"


def _said(name: str, taken: set[str], rng: random.Random, keep_total: bool) -> str:
    """A line item as somebody says it: sometimes without brackets, cut at a joint, without "total"."""
    forms = []
    if rng.random() < 0.7:
        forms.append(without_brackets(name))
    if rng.random() < 0.3:
        forms.append(_JOINT.split(without_brackets(name))[0])
    if rng.random() < 0.3 and not keep_total:
        forms.append(re.sub(r"\btotal ", "", forms[-1] if forms else name))
    for form in reversed(forms):
        if (
            form not in taken
            and names_something(form.split())
            and (len(form.split()) > 1 or form == without_brackets(name))
        ):
            return form
    return name


def _company_on(page: Page) -> str:
    """The company's name as the page writes it, "" where it does not."""
    text = page.text.lower()
    names = [page.company.lower().replace("_", mark) for mark in (" ", "&", " & ", "")]
    return next(
        (name for name in names if len(name) > 1 and re.search(rf"(?<![\w&]){re.escape(name)}(?![\w&])", text)), ""
    )
