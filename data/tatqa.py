"""TAT-QA's schema (Zhu et al. 2021): a table with its paragraphs, and questions on both."""

import re
from itertools import zip_longest

from . import fields
from .finqa import linearise_row
from .numbers import in_page_unit
from .schema import Example, Page, RecordError, text_id

_FIGURE = re.compile(r"[0-9][0-9,.]*[0-9]|[0-9]")


def parse_tatqa(record: dict):
    """The page, then one example a question. Raises `RecordError` naming the field that is missing or wrong."""
    boxed = fields.mapping(record.get("table"), "table")
    table = fields.table(boxed.get("table"))
    paragraphs = {
        str(part.get("order")): fields.cell(part.get("text"), "paragraphs")
        for part in fields.mappings(record.get("paragraphs"), "paragraphs")
    }
    if not table and not any(paragraphs.values()):
        raise RecordError("page")
    flat = _one_header(table)
    identity = fields.cell(boxed.get("uid"), "table") or text_id(str(table))
    page = Page(identity, str(table) + " ".join(paragraphs.values()), table=flat)
    yield page
    for qa in fields.mappings(record.get("questions"), "questions"):
        question = fields.text(qa.get("question"), "question")
        orders = fields.texts(qa.get("rel_paragraphs"), "rel_paragraphs")
        facts = [paragraphs[order] for order in orders if order in paragraphs]
        if "table" in fields.cell(qa.get("answer_from"), "answer_from"):
            facts = [linearise_row(flat, row) for row in _relevant_rows(qa, flat)] + facts
        number = tatqa_number(qa.get("answer"), fields.cell(qa.get("scale"), "scale"))
        yield Example(question, page, " ".join(facts) or page.text, number, evidence_known=bool(facts))


def _one_header(table: list[list[str]]) -> list[list[str]]:
    """The table with its stacked header rows (those without a name in the first cell) joined into one."""
    depth = next((i for i, row in enumerate(table) if i and row and row[0].strip()), 1)
    columns = zip_longest(*table[:depth], fillvalue="")
    return [[" ".join(filter(None, map(str.strip, column))) for column in columns], *table[depth:]]


def _relevant_rows(qa: dict, table: list[list[str]]) -> list[int]:
    """Rows that hold a figure of the derivation or the answer, or failing that a word of the question."""
    answer = qa.get("answer")
    wanted = f"{qa.get('derivation') or ''} {answer if isinstance(answer, (list, str)) else ''}"
    figures = set(_FIGURE.findall(wanted))
    rows = [i for i, row in enumerate(table) if i and any(figures & set(_FIGURE.findall(cell)) for cell in row[1:])]
    if not rows:
        words = set(re.findall(r"[a-z]{4,}", qa["question"].lower()))
        rows = [i for i, row in enumerate(table) if i and row and words & set(re.findall(r"[a-z]{4,}", row[0].lower()))]
    return rows[:6]


def tatqa_number(answer: object, scale: str = "") -> float:
    """The numeric label of a TAT-QA question: ``answer`` in the page's unit, percentages (``scale``) as fractions."""
    value = in_page_unit(answer)
    # The answer can carry the sign that the scale repeats.
    if scale == "percent" and not re.search(r"%|per\s*cent", str(answer).lower()):
        value /= 100
    return value
