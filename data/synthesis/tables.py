"""What a page's table offers to a question: line items, the years and other columns over them, and their figures."""

import math
import re
from dataclasses import dataclass, field

from ..finqa import linearise_row
from ..numbers import parse_number
from ..schema import Page
from .layout import DASH, YEAR, ShapedPage, as_finqa_page, finqa_tokens

_FUNCTION_WORDS = set("a an and as at by for from in into less more no not of on or per than that the to was were with".split())  # fmt: skip
# Words that questions and tables share without naming a line item.
_DULL = _FUNCTION_WORDS | set(
    "total totals other net amount amounts average balance increase decrease increases decreases change changes percent "
    "percentage year years ended ending end beginning december january june march september million millions thousand "
    "thousands billion billions dollars date value values number all adjustments adjusted activity period periods".split()
)
# No line item's name: a section's number or a date run into words, two columns of prose read as one line.
_NO_NAME = re.compile(
    r"\d{4}| \. |^\d+\.?\d* |^\d+\.\d+| : |\b(exhibit|certificate|incorporated|herein|thereto|pages?)\b"
)
_PERCENT_FIRST = re.compile(r"^\d+(\.\d+)?%")
_FOOTNOTE = re.compile(r"\( ?(?:\w|\d+|[ivx]+) ?\)|(?<=[a-z])\d\b|\*+|†+")
_BRACKETS = re.compile(r"\s*/?\s*\( [^()]* \)\s*/?")
_OPEN_END = {*_FUNCTION_WORDS, ",", "/", "-", "and/or", "related", "attributable", "including"}


def content_words(words: list[str]) -> list[str]:
    """The words that carry meaning: with a letter and no function word."""
    return [word for word in words if re.search("[a-z]", word) and word not in _FUNCTION_WORDS]


def names_something(words: list[str]) -> bool:
    """Whether the words name a line item, more than "total", "other" or "balance at end of year" do."""
    return any(re.search("[a-z]{3}", word) and word not in _DULL for word in words)


def spoken(text: str) -> str:
    """Text in FinQA's tokens as a question says it: without quotation marks, dashes apart from words."""
    text = re.sub(r"\b201[cd](?=\w)|(?<=\w)201[cd]\b|\b201[cd]\b|[\"“”]", " ", finqa_tokens(text))
    return re.sub(r"\s+", " ", re.sub(r"\s*[—–]\s*", " - ", text.replace("2019s", "'s"))).replace(" 's", "'s").strip()


def plain_name(cell: str) -> str:
    """A cell's name as a question says it, without footnotes and trailing marks; "" where it names no line item."""
    name = re.sub(r"\s+", " ", _FOOTNOTE.sub(" ", spoken(cell))).strip(" :.,-…$*")
    name = re.sub(r"^(add|less|plus|deduct) (: )?", "", name)
    words = name.split()
    whole = (
        name.count("(") == name.count(")")
        and words
        and words[-1] not in _OPEN_END
        and words[0] not in {*_FUNCTION_WORDS, "(", "/", "&"}
    )
    stray = _NO_NAME.search(name) and not _PERCENT_FIRST.match(name)
    return name if whole and not stray and len(words) <= 14 and names_something(words) else ""


def without_brackets(name: str) -> str:
    return re.sub(r"\s+", " ", _BRACKETS.sub(" ", name)).strip(" ,")


@dataclass
class PageTable:
    """A page and its table, read for questions.

    ``items`` maps each line item's name to its row (its column, where ``by_column``: years head the rows), ``years``
    each year, the newest first, to the column (row) it heads (None where it heads several, or none), ``columns`` the
    names of other columns to theirs. ``starts`` says at which character of the page's text each row begins.
    """

    page: Page
    table: list[list[str]]
    starts: list[int]
    by_column: bool = False
    items: dict[str, int] = field(default_factory=dict)
    years: dict[str, int | None] = field(default_factory=dict)
    columns: dict[str, int] = field(default_factory=dict)

    def figure(self, item: str, place: int | None) -> float:
        """The figure of an item under a year or another column (`years`, `columns`); NaN where there is none."""
        if place is None:
            return math.nan
        row, column = (place, self.items[item]) if self.by_column else (self.items[item], place)
        cells = self.table[row]
        return parse_number(cells[column]) if column < len(cells) and cells[column] != DASH else math.nan

    def is_rate(self, item: str) -> bool:
        """Whether an item's figures are percentages or amounts per share: not to be added, nor "in millions"."""
        return "%" in item or "per share" in item or any("%" in cell for cell in self._cells(item))

    def has_figures(self, item: str) -> bool:
        return any(not math.isnan(parse_number(cell)) for cell in self._cells(item))

    def _cells(self, item: str) -> list[str]:
        at = self.items[item]
        return [row[at] for row in self.table[1:] if at < len(row)] if self.by_column else self.table[at][1:]

    def evidence(self, items: list[str], places: list[int | None]) -> list[int]:
        """The rows that a question about these items reads."""
        rows = [place for place in places if place is not None] if self.by_column else [self.items[i] for i in items]
        return sorted(set(rows)) or list(range(1, len(self.table)))

    def fact(self, rows: list[int]) -> str:
        return " ".join(linearise_row(self.table, row) for row in rows)


def read_table(page: Page) -> PageTable | None:
    """A labelled page's table; None where the page has none or no line item can be told apart."""
    if not page.table:
        return None
    table = [[str(cell) for cell in row] for row in page.table]
    starts, at = [], 0
    for row in table:
        # TAT-QA's joined header does not stand in the text: what is not found starts where the last row did.
        at = max(page.text.find(str(row), at), at)
        starts.append(at)
    return _read(PageTable(page, table, starts), [])


def shape_filing(page: Page, raw: bool) -> PageTable | None:
    """A filing page's table, the page in FinQA's shape or (``raw``) as its layout text; None without a table to ask
    about."""
    shaped: ShapedPage | None = as_finqa_page(page)
    # Without an amount over 999, a currency or a percentage it is a list of contents.
    if shaped is None or not re.search(
        r"[$€£%]|\b\d{4,}\b(?<!20\d\d)", " ".join(" ".join(row) for row in shaped.table)
    ):
        return None
    read = (
        PageTable(page, shaped.table, shaped.raw_starts) if raw else PageTable(shaped.page, shaped.table, shaped.starts)
    )
    return _read(read, shaped.years)


def _read(read: PageTable, usual_years: list[str]) -> PageTable | None:
    table = read.table
    header = next((i for i, row in enumerate(table[:3]) if _heads_years(row, first=not i)), 0)
    years = _places(enumerate(table[header][1:], 1))
    in_rows = _places((i, row[0]) for i, row in enumerate(table) if row and i)
    read.by_column = not years and len(in_rows) > 1
    names = enumerate(table[header]) if read.by_column else ((i, row[0]) for i, row in enumerate(table) if row)
    read.items = _distinct((at, cell) for at, cell in names if at and (read.by_column or at != header))
    read.items = {item: at for item, at in read.items.items() if read.has_figures(item)}
    if not read.by_column:
        read.columns = _distinct(enumerate(table[header][1:], 1))
    if years and not all(table[header][1:]) and usual_years:
        years = dict.fromkeys(years)  # layout text with columns that nothing heads: which is whose is not known
    years = years or (in_rows if read.by_column else dict.fromkeys(usual_years))
    read.years = dict(sorted(years.items(), reverse=True))
    return read if read.items else None


def _heads_years(row: list[str], first: bool) -> bool:
    """Whether a row heads columns of years: the ``first`` of a table with any, another without other figures.

    "2014" alone may be a dash (`DASH`) among figures.
    """
    figures = [cell for cell in row[1:] if re.search(r"\d", cell)]
    years = [cell for cell in figures if YEAR.search(cell)]
    if first:
        return bool(years) and (set(years) != {DASH} or years == figures)
    return years == figures and not set(years) <= {DASH}


def _places(cells) -> dict[str, int | None]:
    """Where each year stands among numbered ``cells``: None for one that stands in several."""
    places: dict[str, int | None] = {}
    for at, cell in cells:
        found = set(YEAR.findall(cell))
        if len(found) == 1:  # "2013 vs. 2012" heads a column of changes
            year = found.pop()
            places[year] = None if year in places else at
    return places


def _distinct(cells) -> dict[str, int]:
    """Numbered ``cells`` by their plain name; those of one name cannot be told apart in a question."""
    named: dict[str, list[int]] = {}
    for at, cell in cells:
        if name := plain_name(cell):
            named.setdefault(name, []).append(at)
    return {name: places[0] for name, places in named.items() if len(places) == 1}
