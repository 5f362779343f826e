"""Unlabelled pages: ``text`` with ``document``, ``page``, ``company`` and ``year`` where they are known."""

from .schema import Page, text_id


def parse_corpus(record: dict):
    identity = "/".join(str(record[key]) for key in ("document", "page") if key in record)
    year = record.get("year")
    yield Page(
        identity or text_id(record["text"]), record["text"], record.get("company", ""), int(year) if year else None
    )
