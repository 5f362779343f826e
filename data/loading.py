"""From a Hub dataset id, a local file or folder, or the generated sample to a `Source`; the schema is detected."""

import hashlib
import json
import logging
import os

from .corpus import parse_corpus
from .files import file_sha256
from .financebench import parse_financebench
from .finqa import parse_evidence, parse_finqa
from .hub import HubSource, hub_records
from .reading import is_local, read_records, split_of
from .sample import generate_finqa
from .schema import DataError, Example, Page, RecordError, Source, text_id
from .tatqa import parse_tatqa

EMBEDDED_SAMPLE = "sample"
_PARSERS = {
    "finqa": parse_finqa, "finqa_flat": parse_finqa, "finqa_evidence": parse_evidence, "tatqa": parse_tatqa,
    "financebench": parse_financebench, "corpus": parse_corpus,
}  # fmt: skip
_log = logging.getLogger(__name__)


def load_source(source: str, split: str = "train", skip_invalid: bool = False) -> Source:
    """Load a Hub dataset, a local file or folder, or ``"sample"`` (the embedded one; ``split`` picks its companies).

    Args:
        source: ``org/name#configuration@revision:split`` on the Hub (all but the name optional), a local path
            (``:split`` behind it where it holds several), or ``"sample"``.
        split: The split where ``source`` names none and has several.
        skip_invalid: Leave out (and count) records without a question or a page instead of failing.

    Raises:
        DataError: unreadable, of no known schema, unreachable, or with invalid records while ``skip_invalid`` is off.
    """
    if source == EMBEDDED_SAMPLE:
        records = generate_finqa(20, first_company=400) if split != "train" else generate_finqa()
        return parse_records(records, source, _digest(records), skip_invalid)
    if not is_local(source):
        records = hub_records(source, split)
        # Two splits of one dataset are two sources.
        name = source if HubSource.of(source).split or split == "train" else f"{source}:{split}"
        return parse_records(records, name, _digest(records), skip_invalid)
    path, named = split_of(os.path.expanduser(source))
    if not os.path.exists(path):
        raise DataError(f"{source}: no such file")
    records = read_records(path, named or split)
    digest = file_sha256(path) if os.path.isfile(path) else _digest(records)
    return parse_records(records, source, digest, skip_invalid)


def _digest(records: list[dict]) -> str:
    return hashlib.sha256(json.dumps(records, sort_keys=True, default=str).encode()).hexdigest()


def detect_schema(record: dict) -> str | None:
    """``finqa`` | ``finqa_flat`` | ``finqa_evidence`` | ``tatqa`` | ``financebench`` | ``corpus``, or None."""
    keys = set(record) if isinstance(record, dict) else set()
    # ConvFinQA's records have two questions (qa_0, qa_1) or a conversation (annotation) in place of the one.
    if keys & {"qa", "qa_0", "annotation"} and keys & {"pre_text", "table"}:
        return "finqa"
    if {"questions", "paragraphs", "table"} <= keys:
        return "tatqa"
    if {"question", "table"} <= keys and keys & {"pre_text", "post_text"}:
        return "finqa_flat"  # one level, as Hub viewers need it
    if {"question", "facts", "table"} <= keys:
        return "finqa_evidence"
    if {"question", "evidence"} <= keys:
        return "financebench"
    return "corpus" if "text" in keys else None


def parse_records(records: list[dict], name: str, digest: str = "", skip_invalid: bool = False) -> Source:
    """Turn raw records of one schema into a `Source`; see `load_source` for what is raised."""
    schema = detect_schema(records[0]) if records else None
    if schema is None:
        raise DataError(
            f"{name}: {_looks_like(records)}; expected FinQA (pre_text, table, post_text, qa), TAT-QA (table, "
            "paragraphs, questions), FinanceBench (question, evidence) or a corpus (text)"
        )
    result, invalid, apart = Source(name, schema, [], {}, digest), [], set()
    for position, record in enumerate(records):
        try:
            if not isinstance(record, dict):
                raise RecordError(f"{type(record).__name__} in place of a record")
            items = list(_PARSERS[schema](record))
        except RecordError as error:
            invalid.append((_record_name(record, position), str(error)))
            continue
        for item in items:
            page = item if isinstance(item, Page) else item.page
            known = result.pages.setdefault(page.page_id, page)
            if known.text != page.text:
                # One id for two texts ("annual_report.pdf"): the second is a page of its own.
                page.page_id = f"{page.page_id.split('#')[0]}#{text_id(page.text)[:8]}"
                apart.add(page.page_id)
                known = result.pages.setdefault(page.page_id, page)
            if isinstance(item, Example):
                item.page = known
                result.examples.append(item)
    if invalid and not skip_invalid:
        first, reason = invalid[0]
        raise DataError(
            f"{name}: {len(invalid)} of {len(records)} records lack a question or a page, the first is {first} "
            f"({reason}); mend them or pass --skip-invalid"
        )
    if apart:
        _log.warning("%s: %d pages have the id of a page with another text: each is kept as its own", name, len(apart))
    result.skipped = len(invalid)
    return result


def _looks_like(records: list) -> str:
    if not records:
        return "no records"
    first = records[0]
    return f"fields {', '.join(sorted(map(str, first))[:8])}" if isinstance(first, dict) else "records without fields"


def _record_name(record: object, position: int) -> str:
    identity = record.get("id") or record.get("uid") if isinstance(record, dict) else None
    return f"record {position}" + (f" ({identity})" if identity else "")
