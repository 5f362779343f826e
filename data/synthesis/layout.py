"""A filing's layout text into FinQA's shape: tokenised lower-case sentences around one table."""

import re
from dataclasses import dataclass
from itertools import accumulate

from ..schema import Page

_COLUMNS = re.compile(r"\s{3,}|\t")
_AMOUNT = re.compile(r"^\(?[-–—]?[$€£]?\s*\(?\d[\d,]*(?:\.\d+)?\)?\s*%?\)?$")
YEAR = re.compile(r"\b(?:199\d|20[0-3]\d)\b")
_MIN_ROWS = 3
DASH = "2014"  # how FinQA's tables write a dash: its code point, U+2014


def finqa_tokens(text: str) -> str:
    """Lower case, punctuation apart, thousands separators gone, as FinQA's sentences are written."""
    text = text.lower().replace("’", "2019").replace("“", "201c").replace("”", "201d")
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"([$€£])\s*(?=\d)", r"\1 ", text)
    text = re.sub(r"\s*([,;:()])\s*", r" \1 ", text)
    text = re.sub(r"\.(?=\s|$)", " .", text)
    return re.sub(r"\s+", " ", text).strip()


def _cell(text: str) -> str:
    """A table cell as FinQA writes it: "(1,234)" is "-1234 ( 1234 )", "4.5%" is "4.5% ( 4.5 % )", a dash is "2014"."""
    text = text.strip().lower()
    if text in ("—", "–", "-"):
        return DASH
    amount = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    bracketed = re.fullmatch(r"([$€£]?)\s*\(\s*([\d.]+)\s*\)?\s*(%?)\)?", amount)
    if bracketed:
        sign, digits, percent = bracketed.groups()
        return f"{sign} -{digits}{percent} ( {digits}{' ' + percent if percent else ''} )".strip()
    percentage = re.fullmatch(r"([\d.]+)\s*%", amount)
    if percentage:
        return f"{percentage[1]}% ( {percentage[1]} % )"
    return re.sub(r"^([$€£])\s*", r"\1 ", amount) if _AMOUNT.match(text) else finqa_tokens(text)


def _split_row(line: str) -> list[str]:
    """A layout line's cells; a lone currency sign joins the amount after it."""
    cells: list[str] = []
    for cell in filter(None, map(str.strip, _COLUMNS.split(line.strip()))):
        for part in re.split(r"(?<=\d)\s+(?=[$(])|(?<=\))\s+(?=[$(])", cell):
            if cells and cells[-1] in ("$", "€", "£"):
                cells[-1] += " " + part
            else:
                cells.append(part)
    # A row of years heads the columns and has no name of its own.
    return ["", *cells] if cells and all(YEAR.fullmatch(cell) for cell in cells) else cells


@dataclass
class ShapedPage:
    """A filing page in FinQA's shape: its text, its largest table, the years it is about, and at which character each
    row of the table begins, in that text (``starts``) and in the layout text (``raw_starts``)."""

    page: Page
    table: list[list[str]]
    years: list[str]
    starts: list[int]
    raw_starts: list[int]


def as_finqa_page(page: Page) -> ShapedPage | None:
    """A filing page in FinQA's shape; None for a page without a table."""
    lines = page.text.splitlines()
    rows = [_split_row(line) for line in lines]
    header_start, start, end = _largest_table(lines, rows)
    if start == end:
        return None
    width = max(len(row) for row in rows[start:end])
    years = YEAR.findall(" ".join(lines[header_start:start]))
    header = ["", *(years[: width - 1] if len(years) >= width - 1 else years)]
    table, row_lines = [header + [""] * (width - len(header))], [header_start]
    for line, name, cells in _named_rows(rows, start, end):
        # Amounts are right-aligned: a row with fewer belongs under the last columns.
        table.append([_cell(name), *([""] * (width - 1 - len(cells))), *map(_cell, cells[: width - 1])])
        row_lines.append(line)
    if not any(table[0]) and YEAR.search(lines[row_lines[1]]):
        del table[0], row_lines[0]  # the years stand in the first row itself
    before, after = finqa_tokens(" ".join(lines[:start])), finqa_tokens(" ".join(lines[end:]))
    shaped = Page(page.page_id, before + str(table) + after, page.company, page.year)
    # Read off the layout text: in FinQA's shape a dash is written "2014" too.
    columns = sorted(set(YEAR.findall(" ".join([*lines[header_start:start], lines[start]]))))
    starts = list(accumulate((len(f"{row}, ") for row in table), initial=len(before) + 1))[:-1]
    line_starts = list(accumulate(map(len, page.text.splitlines(keepends=True)), initial=0))
    return ShapedPage(shaped, table, columns or usual_years(page.text), starts, [line_starts[i] for i in row_lines])


def _largest_table(lines: list[str], rows: list[list[str]]) -> tuple[int, int, int]:
    """The lines of the table with most rows of amounts: where its header starts, its rows start and end (start = end:
    there is none). Up to two lines without amounts may stand between two rows."""
    is_row = [len(row) >= 2 and any(_AMOUNT.match(cell) for cell in row[1:]) for row in rows]
    best, start, gap = (0, 0, 0), None, 0
    for i, flag in enumerate([*is_row, False, False, False, False]):
        if flag:
            start, gap = (i if start is None else start), 0
        elif start is not None:
            gap += 1
            if gap > 2 or i >= len(is_row):
                best = max(best, (sum(is_row[start : i - gap + 1]), start, i - gap + 1))
                start = None
    count, start, end = best
    if count < _MIN_ROWS:
        return 0, 0, 0
    header_start = start
    while (
        header_start > 0 and start - header_start < 3 and rows[header_start - 1] and len(lines[header_start - 1]) < 130
    ):
        header_start -= 1
        if YEAR.search(lines[header_start]):
            break
    return header_start, start, end


def _named_rows(rows: list[list[str]], start: int, end: int):
    """(line, name, cells) of each table row; a name that goes on in lower case on the next line is put together."""

    def goes_on(line: int) -> bool:
        """Whether a line's name goes on where the line before stopped, one of the two having no amounts."""
        row, above = rows[line], rows[line - 1]
        lone = row and above and min(len(row), len(above)) == 1 < max(len(row), len(above))
        return line > start and bool(lone) and row[0][:1].islower() and not above[0].endswith((":", "."))

    line = start
    while line < end:
        last = line
        while last + 1 < end and goes_on(last + 1):
            last += 1
        parts = rows[line : last + 1]
        if any(parts):
            amounts = max(parts, key=len)
            yield line, " ".join(row[0] for row in parts), amounts[1:]
        line = last + 1


def usual_years(text: str) -> list[str]:
    """The years that a page names more than once, at most the last three."""
    named = YEAR.findall(text)
    return sorted({year for year in named if named.count(year) > 1})[-3:]
