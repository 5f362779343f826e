"""FinanceBench's schema (Islam et al. 2023): questions with the text of their evidence."""

from .numbers import parse_number
from .schema import Example, Page, text_id


def parse_financebench(record: dict):
    evidence = [part["evidence_text"] for part in record["evidence"]]
    if not evidence:
        raise KeyError("evidence")
    document = record.get("doc_name", "")
    for text in evidence:
        page = Page(text_id(document + text), text, record.get("company", ""))
        yield Example(record["question"], page, text, parse_number(record.get("answer")))
