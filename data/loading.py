"""From a Hub dataset id, a local JSON, JSONL or gzipped file, or the generated sample to a `Source`; the schema is detected."""

import gzip
import hashlib
import json
import os
from pathlib import Path

from datasets import load_dataset

from .corpus import parse_corpus
from .financebench import parse_financebench
from .finqa import parse_evidence, parse_finqa
from .sample import generate_finqa
from .schema import DataError, Example, Page, Source
from .tatqa import parse_tatqa

EMBEDDED_SAMPLE = "sample"


def read_records(source: str) -> list[dict]:
    """The raw records of a local JSON, JSONL or gzipped file. Raises `DataError` in one line."""
    path = Path(source)
    try:
        opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
        with opened as file:
            text = file.read()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise DataError(f"{source}: is not UTF-8 text; give a JSON or JSONL file") from None
    try:
        if text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise DataError(f"{source}: is no JSON or JSONL (line {error.lineno}: {error.msg})") from None


def load_source(source: str, split: str = "train", skip_invalid: bool = False) -> Source:
    """Load a Hub dataset id, a local file, or ``"sample"`` (the embedded one; ``split`` picks its companies).

    Raises:
        DataError: unreadable, of no known schema, unreachable, or with invalid records while ``skip_invalid`` is off.
    """
    if source == EMBEDDED_SAMPLE:
        records = generate_finqa(20, first_company=400) if split != "train" else generate_finqa()
        digest = hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()
    elif os.path.exists(source):
        records = read_records(source)
        digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    elif source.endswith((".json", ".jsonl", ".gz")) or source.startswith((".", "/")):
        raise DataError(f"{source}: no such file")
    else:
        records, digest = _hub_records(source, split)
    return parse_records(records, source, digest, skip_invalid)


def _hub_records(source: str, split: str) -> tuple[list[dict], str]:

    try:
        dataset = load_dataset(source, split=split)
    except Exception as error:  # the Hub client's errors have no common base
        raise DataError(
            f"{source}: neither a local file nor loadable from the Hub ({type(error).__name__}); check the name and the "
            "network, or give local files with --data"
        ) from None
    return list(dataset), dataset._fingerprint


def detect_schema(record: dict) -> str | None:
    """``finqa`` | ``finqa_flat`` | ``finqa_evidence`` | ``tatqa`` | ``financebench`` | ``corpus``, or None."""
    keys = set(record) if isinstance(record, dict) else set()
    if {"qa", "pre_text"} <= keys or {"qa", "table"} <= keys:
        return "finqa"
    if {"questions", "paragraphs", "table"} <= keys:
        return "tatqa"
    if {"question", "pre_text", "table"} <= keys:
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
        found = (
            f"fields {', '.join(sorted(records[0])[:8])}" if records and isinstance(records[0], dict) else "no records"
        )
        raise DataError(
            f"{name}: {found}; expected FinQA (pre_text, table, post_text, qa), TAT-QA (table, paragraphs, questions), "
            "FinanceBench (question, evidence) or a corpus (text)"
        )
    parse = {
        "finqa": parse_finqa, "finqa_flat": parse_finqa, "finqa_evidence": parse_evidence, "tatqa": parse_tatqa,
        "financebench": parse_financebench, "corpus": parse_corpus,
    }[schema]  # fmt: skip
    result, invalid = Source(name, schema, [], {}, digest), []
    for position, record in enumerate(records):
        try:
            for item in parse(record):
                page = item if isinstance(item, Page) else item.page
                if not page.text.strip():
                    raise KeyError("page")
                result.pages.setdefault(page.page_id, page)
                if isinstance(item, Example):
                    if not item.question.strip():
                        raise KeyError("question")
                    item.page = result.pages[page.page_id]
                    result.examples.append(item)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            invalid.append((_record_name(record, position), error.args[0] if error.args else type(error).__name__))
    if invalid and not skip_invalid:
        first, reason = invalid[0]
        raise DataError(
            f"{name}: {len(invalid)} of {len(records)} records lack a question or a page, the first is {first} "
            f"({reason}); mend them or pass --skip-invalid"
        )
    result.skipped = len(invalid)
    return result


def _record_name(record: object, position: int) -> str:
    identity = record.get("id") or record.get("uid") if isinstance(record, dict) else None
    return f"record {position}" + (f" ({identity})" if identity else "")
