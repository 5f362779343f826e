"""Training questions from unlabelled filing pages: tables read from layout text, questions from templates of our own.

Filings come as layout text; FinQA's pages are tokenised lower-case sentences around one table. `as_finqa_page` turns the one
into the other, so that what is trained on looks like what is searched. `synthetic_pairs` then asks about line items, years
and amounts, keeps the questions whose page BM25 finds (the others name nothing distinctive), and groups neighbouring pages
of a company so that a batch holds each other's hard negatives.
"""

import math
import random
import re
from collections import defaultdict
from dataclasses import dataclass

from .data import Page, numeric_text
from .numbers import parse_number
from .sample import linearise_row

_COLUMNS = re.compile(r"\s{3,}|\t")
_AMOUNT = re.compile(r"^\(?[-–—]?[$€£]?\s*\(?\d[\d,]*(?:\.\d+)?\)?\s*%?\)?$")
_YEAR = re.compile(r"\b(?:199\d|20[0-3]\d)\b")
_MIN_ROWS = 3
_DASH = "2014"  # how FinQA's tables write a dash: its code point, U+2014


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
    def numeric(self) -> str:
        """What the numeric heads read."""
        return numeric_text(self.question, self.fact)


# --- layout text → FinQA's shape ----------------------------------------------------------------------------------------


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
        return _DASH
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
    return ["", *cells] if cells and all(_YEAR.fullmatch(cell) for cell in cells) else cells


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
    while header_start > 0 and start - header_start < 3 and rows[header_start - 1] and len(lines[header_start - 1]) < 130:
        header_start -= 1
        if _YEAR.search(lines[header_start]):
            break
    width = max(len(row) for row in rows[start:end])
    years = _YEAR.findall(" ".join(lines[header_start:start]))
    header = [""] + (years[: width - 1] if len(years) >= width - 1 else years)
    table = [header + [""] * (width - len(header))]
    for row in rows[start:end]:
        if row:
            cells = [_cell(cell) for cell in row[:width]]
            # Amounts are right-aligned: a row with fewer belongs under the last columns.
            table.append([cells[0], *([""] * (width - len(cells))), *cells[1:]])
    if not any(table[0]) and _YEAR.search(" ".join(table[1])):
        table.pop(0)  # the years stand in the first row itself
    before = finqa_tokens(" ".join(lines[:start]))
    after = finqa_tokens(" ".join(lines[end:]))
    shaped = Page(page.page_id, before + str(table) + after, page.company, page.year)
    # Read off the layout text: in FinQA's shape a dash is written "2014" too.
    columns = sorted(set(_YEAR.findall(" ".join([*lines[header_start:start], lines[start]]))))
    return ShapedPage(shaped, table, len(before), columns or _usual_years(page.text))


# --- questions ----------------------------------------------------------------------------------------------------------

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
_WITHIN_YEAR = (
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
    words = {"item": table[row][0], "year": year, "unit": next((u for u in ("thousands", "billions") if u in shaped.page.text), "millions")}
    if priors and rng.random() < 0.55:
        prior, (wording, answer) = rng.choice(priors), rng.choice(_OVER_TIME)
        rows, values = [row], (_value(table, row, prior), _value(table, row, year))
        words["prior"] = prior
    else:
        total = next((i for i in reversed(named) if "total" in table[i][0] and i != row), other)
        other = total if rng.random() < 0.5 else other
        wording, answer = rng.choice(_WITHIN_YEAR)
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
    if column is None or column >= len(table[row]) or table[row][column] == _DASH:
        return math.nan
    return parse_number(table[row][column])


def _usual_years(text: str) -> list[str]:
    """The years that a page names more than once, at most the last three."""
    named = _YEAR.findall(text)
    return sorted({year for year in named if named.count(year) > 1})[-3:]


def sentence_question(text: str, rng: random.Random) -> tuple[str, int] | None:
    """A question from a sentence with an amount: its words around the amount, without it; and where it stands."""
    sentences = [m for m in re.finditer(r"[^.\[\]]{60,300} \.", text) if re.search(r"[$%]|\d{2,}", m[0])]
    if not sentences:
        return None
    match = rng.choice(sentences)
    words = [w for w in match[0].split() if w not in ("$", "(", ")", ".", ",") and not re.fullmatch(r"[\d.]+%?", w) or _YEAR.fullmatch(w)]
    if len(words) < 8:
        return None
    length = rng.randrange(6, 14)
    start = rng.randrange(max(1, len(words) - length))
    return rng.choice(_SENTENCE).format(phrase=" ".join(words[start : start + length])), match.start()


def synthetic_pairs(pages: list[Page], count: int, seed: int = 13, keep_rank: int = 5, company_share: float = 0.15) -> list[SyntheticPair]:
    """Up to ``count`` (question, page) pairs from filing ``pages``, neighbouring pages of a company next to each other.

    A question is kept when BM25 ranks its page among the first ``keep_rank`` of all pages, so that it names what sets its
    page apart; ``company_share`` of the questions name the company where the page's text does.
    """
    rng = random.Random(seed)
    shaped = [result for result in map(as_finqa_page, pages) if result]
    rng.shuffle(shaped)
    candidates = []
    for item in shaped:
        company = item.page.company.lower()
        for _ in range(2):
            pair = _ask(item, rng)
            if pair is None:
                continue
            if company and company in item.page.text and rng.random() < company_share:
                pair.question = pair.question.rstrip("?") + f" for {company}?"
            candidates.append(pair)
        if len(candidates) > 2.5 * count:
            break
    kept = _found_by_bm25(candidates, [item.page for item in shaped], keep_rank)
    return _siblings_together(kept, rng)[:count]


def _ask(shaped: ShapedPage, rng: random.Random) -> SyntheticPair | None:
    """Three of four questions about the table, the others (and those of a table that names nothing) about a sentence."""
    if rng.random() < 0.75:
        made = table_question(shaped, rng)
        if made:
            return SyntheticPair(made[0], shaped.page, shaped.anchor, made[1], made[2])
    made = sentence_question(shaped.page.text, rng)
    return SyntheticPair(made[0], shaped.page, made[1]) if made else None


def _found_by_bm25(pairs: list[SyntheticPair], pages: list[Page], keep_rank: int) -> list[SyntheticPair]:
    import bm25s

    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize([page.text for page in pages], stopwords="en", show_progress=False), show_progress=False)
    queries = bm25s.tokenize([pair.question for pair in pairs], stopwords="en", show_progress=False)
    found, _ = retriever.retrieve(queries, k=min(keep_rank, len(pages)), show_progress=False)
    ids = [page.page_id for page in pages]
    return [pair for pair, hits in zip(pairs, found) if pair.page.page_id in {ids[i] for i in hits}]


def _siblings_together(pairs: list[SyntheticPair], rng: random.Random, size: int = 8) -> list[SyntheticPair]:
    """Runs of up to ``size`` pairs of one company whose questions share words, the runs in random order."""
    by_company = defaultdict(list)
    for pair in pairs:
        by_company[pair.page.company].append(pair)
    runs = []
    for members in by_company.values():
        # Pages with like line items, years apart, sort next to each other by their question's rarest words.
        members.sort(key=lambda pair: sorted(set(re.findall("[a-z]{5,}", pair.question)), key=lambda w: (-len(w), w))[:2])
        runs += [members[i : i + size] for i in range(0, len(members), size)]
    rng.shuffle(runs)
    return [pair for run in runs for pair in run]


# --- windows and batches ------------------------------------------------------------------------------------------------


def window(text: str, words: int | None, anchor: int, rng: random.Random) -> str:
    """About ``words`` words of ``text`` that hold what stands at character ``anchor``; None for all of it."""
    if not words:
        return text
    spans = [match.start() for match in re.finditer(r"\S+", text)]
    if len(spans) <= words:
        return text
    at = sum(1 for start in spans if start < anchor)
    first = rng.randrange(max(0, at - words // 2), at + 1)
    first = min(first, len(spans) - words)
    last = spans[first + words] if first + words < len(spans) else len(text)
    return text[spans[first] : last].strip()


def batches_without_repeats(keys: list[tuple[str, ...]], batch_size: int) -> list[int]:
    """An order of row numbers, close to the given one, in which no batch of ``batch_size`` holds a key twice.

    ``keys`` are those of each row: the id of its page, and of its negative where it has one.
    """
    order, waiting = [], list(range(len(keys)))
    while waiting:
        batch, seen, rest = [], set(), []
        for i in waiting:
            if len(batch) < batch_size and seen.isdisjoint(keys[i]):
                batch.append(i)
                seen.update(keys[i])
            else:
                rest.append(i)
            if len(batch) == batch_size and len(rest) > 4 * batch_size:
                break
        taken = set(batch)
        waiting = [i for i in waiting[: len(batch) + len(rest)] if i not in taken] + waiting[len(batch) + len(rest) :]
        order += batch
    return order
