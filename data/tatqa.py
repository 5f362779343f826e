"""TAT-QA's schema (Zhu et al. 2021): a table with its paragraphs, and questions on both."""

import re

from .finqa import linearise_row
from .numbers import in_page_unit
from .schema import Example, Page, text_id


def parse_tatqa(record: dict):
    table = record["table"]["table"]
    flat = _one_header(table)
    paragraphs = {str(part["order"]): part["text"] for part in record["paragraphs"]}
    text = str(table) + " ".join(paragraphs.values())
    page = Page(record["table"].get("uid") or text_id(str(table)), text, table=flat)
    yield page
    for qa in record["questions"]:
        facts = [paragraphs[order] for order in map(str, qa.get("rel_paragraphs") or []) if order in paragraphs]
        if "table" in qa.get("answer_from", ""):
            facts = [linearise_row(flat, row) for row in _relevant_rows(qa, flat)] + facts
        yield Example(
            qa["question"], page, " ".join(facts) or page.text, tatqa_number(qa.get("answer"), qa.get("scale", ""))
        )


def _one_header(table: list[list[str]]) -> list[list[str]]:
    """The table with its stacked header rows (those without a name in the first cell) joined into one."""
    depth = next((i for i, row in enumerate(table) if i and str(row[0]).strip()), 1)
    return [[" ".join(filter(None, map(str.strip, column))) for column in zip(*table[:depth])], *table[depth:]]


def _relevant_rows(qa: dict, table: list[list[str]]) -> list[int]:
    """Rows that hold a figure of the derivation or the answer, or failing that a word of the question."""
    answer = qa.get("answer")
    wanted = f"{qa.get('derivation', '')} {answer if isinstance(answer, (list, str)) else ''}"
    figures = set(re.findall(r"\d[\d,.]*\d|\d", wanted))
    rows = [
        i for i, row in enumerate(table) if i and any(figures & set(re.findall(r"\d[\d,.]*\d|\d", c)) for c in row[1:])
    ]
    if not rows:
        words = set(re.findall(r"[a-z]{4,}", qa["question"].lower()))
        rows = [i for i, row in enumerate(table) if i and words & set(re.findall(r"[a-z]{4,}", str(row[0]).lower()))]
    return rows[:6]


def tatqa_number(answer: object, scale: str = "") -> float:
    """The numeric label of a TAT-QA question: ``answer`` in the page's unit, percentages (``scale``) as fractions."""
    value = in_page_unit(answer)
    if scale == "percent" and "%" not in str(answer):
        value /= 100
    return value
