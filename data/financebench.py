"""FinanceBench's schema (Islam et al. 2023): questions with the text of their evidence."""

from . import fields
from .numbers import parse_number
from .schema import Example, Page, RecordError, text_id


def parse_financebench(record: dict):
    """One example a passage. Raises `RecordError` naming the field that is missing or of a wrong kind."""
    question = fields.text(record.get("question"), "question")
    parts = fields.parsed(record.get("evidence"))
    passages = [parts] if isinstance(parts, (str, dict)) else parts
    if not passages or not isinstance(passages, list):
        raise RecordError("evidence")
    document, company = (fields.cell(record.get(name), name) for name in ("doc_name", "company"))
    for part in passages:
        text = fields.text(part.get("evidence_text") if isinstance(part, dict) else part, "evidence")
        page = Page(text_id(document + text), text, company)
        yield Example(question, page, text, parse_number(record.get("answer")))
