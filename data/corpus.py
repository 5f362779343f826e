"""Unlabelled pages: ``text`` with ``document``, ``page``, ``company`` and ``year`` where they are known."""

from . import fields
from .schema import Page, text_id


def parse_corpus(record: dict):
    """One page. Raises `RecordError` without a text."""
    text = fields.text(record.get("text"), "text")
    identity = "/".join(str(record[key]) for key in ("document", "page") if record.get(key) not in (None, ""))
    yield Page(
        identity or text_id(text), text, fields.cell(record.get("company"), "company"), fields.year(record.get("year"))
    )
