"""How analysts word their questions: labelled questions with the names and years of their table taken out."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import product

from ..schema import Example
from .slots import ASKING, OPERATIONS, SLOT, Wording, operation_of
from .tables import PageTable, content_words, names_something, read_table, spoken

# A word that fewer questions share, or those of fewer companies, belongs to a page and not to a wording.
MIN_QUESTIONS, MIN_COMPANIES = 6, 3
# Words that ask for an explanation, or for more than the table's figures.
_EXPLAINING = set(
    "calculated caused components comprise consist constitution due expected included include information excluded "
    "provide provided table there this under used why would if based two three four five six considered".split()
)
# Between one of these and a name something is missing: "the amount {row0}", "{row0} ratio".
_NEEDS_OF = set(
    "amount amounts change difference growth part percent percentage period portion proportion range rate ratio sum "
    "value values balance".split()
)
# One of these joins two line items.
_JOINING = set(
    "and as between compared comprised difference percent percentage portion proportion ratio related represent "
    "represented sum than".split()
)
_NOT_AFTER = _NEEDS_OF | {"average", "net", "total", "cumulative", "respective", "the"} - {"change"}
_MONTHS = set("january february march april may june july august september october november december".split())
_NAME_SLOT = re.compile(r"\{(row|total|column)(\d)\}")


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
    found_in = [mark(example, table) for example in examples if (table := tables[example.page.page_id])]
    marked = [item for item in found_in if item]
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for item in marked:
        for word in set(Wording(item.text).words):
            seen[word][item.company] += 1
    common = {
        word
        for word, companies in seen.items()
        if companies.total() >= min_questions and len(companies) >= min_companies
    }
    operations: dict[str, Counter[str]] = defaultdict(Counter)
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
    counts: Counter[str] = Counter()
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
        text, example.page.company or example.page.page_id, operation_of(Wording(text), named, table, example.number)
    )


def _numbered(words: list[str], named: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The slots of names numbered in the order in which the question says them."""
    counts: Counter[str] = Counter()
    renamed = {}
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
