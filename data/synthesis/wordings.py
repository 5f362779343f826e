"""How analysts word their questions: labelled questions with the names and years of their table taken out."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from ..numbers import agree
from ..schema import Example
from .tables import PageTable, content_words, names_something, read_table, spoken

# A word that fewer questions share, or those of fewer companies, belongs to a page and not to a wording.
MIN_QUESTIONS, MIN_COMPANIES = 6, 3
# Words of asking: they fit any page, and may stand beside a slot. All others are the page's subject.
ASKING = set(
    "a add among amount amounts an and are as at average balance be been between both by change compared comprised considering "
    "contributed cumulative decline decrease did difference do does during each end ended fiscal for from greater growth "
    "has have higher highest how in increase is it its larger largest less lowest many much net of on or over part percent "
    "percentage period portion proportion range rate ratio related relation represent represented respective respectively "
    "sum than that the to total up value values was were what when where which with year years ( ) , / %".split()
)
# Words that ask for an explanation, or for more than the table's figures.
_EXPLAINING = set(
    "calculated caused components comprise consist constitution due expected included include information excluded provide "
    "provided table there this under used why would if based two three four five six considered".split()
)
# Between one of these and a name something is missing: "the amount {row0}", "{row0} ratio".
_NEEDS_OF = set(
    "amount amounts change difference growth part percent percentage period portion proportion range rate ratio sum value "
    "values balance".split()
)
# One of these joins two line items.
_JOINING = set(
    "and as between compared comprised difference percent percentage portion proportion ratio related represent represented "
    "sum than".split()
)
_NOT_AFTER = _NEEDS_OF | {"average", "net", "total", "cumulative", "respective", "the"} - {"change"}
_MONTHS = set("january february march april may june july august september october november december".split())
SLOT = re.compile(r"\{(row|total|column|year|company)(\d)\}")
_NAME_SLOT = re.compile(r"\{(row|total|column)(\d)\}")

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
    ``{year0}`` the newest year of the table, ``{year1}`` the one before, ``{company0}`` the company; ``count`` questions
    were worded so, and ``operation`` (a key of `OPERATIONS`) gives their answers, "" where it is not known."""

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


@dataclass
class _Marked:
    text: str
    company: str
    operation: str


def wordings(
    examples: list[Example], min_questions: int = MIN_QUESTIONS, min_companies: int = MIN_COMPANIES
) -> list[Wording]:
    """The distinct wordings of labelled questions, the commonest first.

    A wording is kept when each of its words stands in at least ``min_questions`` questions' wordings, of at least
    ``min_companies`` companies (pages, where the company is not known). Examples whose page has no table give none.
    """
    tables = {example.page.page_id: read_table(example.page) for example in examples}
    marked = [mark(example, tables[example.page.page_id]) for example in examples if tables[example.page.page_id]]
    marked = [item for item in marked if item]
    seen = defaultdict(Counter)
    for item in marked:
        for word in set(Wording(item.text).words):
            seen[word][item.company] += 1
    common = {
        word
        for word, companies in seen.items()
        if companies.total() >= min_questions and len(companies) >= min_companies
    }
    operations = defaultdict(Counter)
    for item in marked:
        if common.issuperset(Wording(item.text).words):
            operations[item.text][item.operation] += 1
    kept = [Wording(text, found.total(), _agreed(found)) for text, found in operations.items()]
    return sorted(kept, key=lambda wording: (-wording.count, wording.text))


def _agreed(operations: Counter) -> str:
    """The operation of more than half of the questions whose figures are known."""
    shown = Counter({name: count for name, count in operations.items() if name})
    name, count = shown.most_common(1)[0] if shown else ("", 0)
    return name if name in OPERATIONS and 2 * count > shown.total() else ""


def mark(example: Example, table: PageTable) -> _Marked | None:
    """An example's question with what it names of its table as slots; None where it names no line item or column."""
    words = _company_marked(question_words(example.question), example.page.company)
    keys = ["" if SLOT.fullmatch(word) else _key(word) for word in words]
    years = list(table.years)
    named = {"{company0}": example.page.company}
    for i, word in enumerate(words):
        if word in table.years:
            words[i], keys[i] = f"{{year{years.index(word)}}}", ""
            named[words[i]] = word
    candidates = [("row", name) for name in table.items] + [("column", name) for name in table.columns]
    counts = Counter()
    while True:
        runs = [
            (*longest_run(name.split(), keys), kind, name) for kind, name in candidates if name not in named.values()
        ]
        length, start, end, kind, name = max(runs, default=(0, 0, 0, "", ""), key=lambda run: run[0])
        if not length:
            break
        kind = "total" if kind == "row" and "total" in words[start:end] else kind
        slot = f"{{{kind}{counts[kind]}}}"
        counts[kind] += 1
        words[start:end], keys[start:end] = [slot], [""]
        named[slot] = name
    words, named = _numbered(words, named)
    # What is left of years, figures and half-read names belongs to the page.
    text = " ".join(words)
    if not _reads_well(words):
        return None
    days = {i + 1 for i, word in enumerate(words) if word in _MONTHS}
    rest = [word for i, word in enumerate(words) if not SLOT.fullmatch(word) and i not in days]
    if not counts or any(re.search(r"\d", word) for word in rest):
        return None
    return _Marked(
        text, example.page.company or example.page.page_id, _operation(Wording(text), named, table, example.number)
    )


def _numbered(words: list[str], named: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The slots of names numbered in the order in which the question says them."""
    counts, renamed = Counter(), {}
    for word in words:
        slot = _NAME_SLOT.fullmatch(word)
        if slot:
            renamed[word] = f"{{{slot[1]}{counts[slot[1]]}}}"
            counts[slot[1]] += 1
    return [renamed.get(word, word) for word in words], {renamed.get(slot, slot): name for slot, name in named.items()}


def _company_marked(words: list[str], company: str) -> list[str]:
    name = company.lower().replace("_", " ").split()
    for i in range(len(words) - len(name) + 1 if name else 0):
        if words[i : i + len(name)] == name:
            rest = words[i + len(name) :]
            if rest and rest[0].startswith("."):  # "corp ." or "corp .'s"
                rest = [rest[0][1:], *rest[1:]] if rest[0][1:] else rest[1:]
            return [*words[:i], "{company0}", *rest]
    return words


def _reads_well(words: list[str]) -> bool:
    """Whether a marked question is whole: no half-read name beside a slot, no explanation asked for, no stray mark."""
    names = [bool(_NAME_SLOT.fullmatch(word)) for word in words]
    for i in (i for i, name in enumerate(names) if name):
        before, after = words[i - 1] if i else "", words[i + 1] if i + 1 < len(words) else ""
        if not _fits_beside(before) or before in _NEEDS_OF or not _fits_beside(after) or after in _NOT_AFTER:
            return False
    text = re.sub("[{}]", "", " ".join(words))
    marks = re.search(r"(^|\s)\.(\s|$)|^\W|, ,|\( \)|(from|to|in|of) ,", text)
    odd = re.search(
        r"what (do|does) \S+ (\S+ )?represent|(what is|which|by) (represented|row|total\d|column)|did \S+ to", text
    )
    rows = sum(word.startswith(("{row", "{total")) for word in words)
    joined = rows < 2 or not _JOINING.isdisjoint(words)
    whole = words.count("(") == words.count(")") and sum(names) <= 2
    return whole and joined and not (marks or odd or _EXPLAINING & set(words))


def _fits_beside(word: str) -> bool:
    """Whether a word may stand beside a line item's slot; "" is the question's end."""
    return (
        not word
        or word in ASKING
        or word in ("company's", "'s", "segment")
        or bool(SLOT.fullmatch(word) and not _NAME_SLOT.fullmatch(word))
    )


def question_words(question: str) -> list[str]:
    """A question's words in FinQA's tokens, without the mark at its end."""
    return spoken(question.replace("\\n", " ").replace("?", " ")).rstrip(" .,").split()


def _key(word: str) -> str:
    """A word without a plural's s."""
    return word.rstrip("s")


def longest_run(name: list[str], keys: list[str]) -> tuple[int, int, int]:
    """(content words, start, end) of the longest run of a name's words among a question's ``keys``.

    (0, 0, 0) where it holds fewer than half of the name's content words, or none that names something.
    """
    wanted = [_key(word) for word in name]
    best = (0, 0, 0)
    if set(wanted).isdisjoint(keys):
        return best
    for i, j in product(range(len(wanted)), range(len(keys))):
        size = 0
        while i + size < len(wanted) and j + size < len(keys) and wanted[i + size] == keys[j + size] != "":
            size += 1
        while size and not content_words(name[i + size - 1 : i + size]):
            size -= 1
        if size and content_words(name[i : i + 1]) and names_something(name[i : i + size]):
            best = max(best, (len(content_words(name[i : i + size])), j, j + size), key=lambda run: run[0])
    return best if 2 * best[0] >= len(content_words(name)) else (0, 0, 0)


def figures(wording: Wording, named: dict[str, str], table: PageTable) -> list[float]:
    """The figures that a filled wording names, items by places, in its order."""
    items = [
        named[slot]
        for slot in wording.slots
        if named[slot] in table.items and SLOT.fullmatch(slot)[1] in ("row", "total")
    ]
    return [table.figure(item, place) for item, place in product(items, places(wording, named, table))]


def places(wording: Wording, named: dict[str, str], table: PageTable) -> list[int | None]:
    """Where the years and columns that a filled wording names stand in the table; its only column where it names none."""
    kinds = {slot: SLOT.fullmatch(slot)[1] for slot in wording.slots}
    found = [table.years.get(named[slot]) for slot in kinds if kinds[slot] == "year"]
    found += [table.columns.get(named[slot]) for slot in kinds if kinds[slot] == "column"]
    if not found and not table.by_column and len(table.table[0]) == 2:
        return [1]
    return found


def _operation(wording: Wording, named: dict[str, str], table: PageTable, number: float) -> str:
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
