"""A filing's layout text into FinQA's shape: tokenised lower-case sentences around one table."""

import re
from dataclasses import dataclass

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
    cells = []
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
    """A filing page in FinQA's shape: its text, its largest table, where that starts in the text, the years it is about."""

    page: Page
    table: list[list[str]]
    anchor: int
    years: list[str]


def as_finqa_page(page: Page) -> ShapedPage | None:
    """A filing page in FinQA's shape; None for a page without a table."""
    lines = page.text.splitlines()
    rows = [_split_row(line) for line in lines]
    is_row = [len(row) >= 2 and any(_AMOUNT.match(cell) for cell in row[1:]) for row in rows]
    best, start = (0, 0, 0), None
    gap = 0
    for i, flag in enumerate([*is_row, False, False, False, False]):
        if flag:
            start, gap = (i if start is None else start), 0
        elif start is not None:
            gap += 1
            if gap > 2 or i >= len(is_row):
                count = sum(is_row[start : i - gap + 1])
                best = max(best, (count, start, i - gap + 1))
                start = None
    count, start, end = best
    if count < _MIN_ROWS:
        return None
    header_start = start
    while (
        header_start > 0 and start - header_start < 3 and rows[header_start - 1] and len(lines[header_start - 1]) < 130
    ):
        header_start -= 1
        if YEAR.search(lines[header_start]):
            break
    width = max(len(row) for row in rows[start:end])
    years = YEAR.findall(" ".join(lines[header_start:start]))
    header = [""] + (years[: width - 1] if len(years) >= width - 1 else years)
    table = [header + [""] * (width - len(header))]
    for row in rows[start:end]:
        if row:
            cells = [_cell(cell) for cell in row[:width]]
            # Amounts are right-aligned: a row with fewer belongs under the last columns.
            table.append([cells[0], *([""] * (width - len(cells))), *cells[1:]])
    if not any(table[0]) and YEAR.search(" ".join(table[1])):
        table.pop(0)  # the years stand in the first row itself
    before = finqa_tokens(" ".join(lines[:start]))
    after = finqa_tokens(" ".join(lines[end:]))
    shaped = Page(page.page_id, before + str(table) + after, page.company, page.year)
    # Read off the layout text: in FinQA's shape a dash is written "2014" too.
    columns = sorted(set(YEAR.findall(" ".join([*lines[header_start:start], lines[start]]))))
    return ShapedPage(shaped, table, len(before), columns or usual_years(page.text))


def usual_years(text: str) -> list[str]:
    """The years that a page names more than once, at most the last three."""
    named = YEAR.findall(text)
    return sorted({year for year in named if named.count(year) > 1})[-3:]
