"""Fields as files and repackagings spell them: lists and tables stored as text, cells that are numbers or nothing."""

import ast
import json
from typing import Any

from .schema import RecordError


def text(value: object, field: str) -> str:
    """A field that must be text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise RecordError(field)
    return value


def parsed(value: object) -> Any:
    """A list or mapping that a CSV or Parquet file keeps as text (JSON, or as Python writes it); others as they are."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def mapping(value: object, field: str) -> dict:
    value = parsed(value)
    if not isinstance(value, dict):
        raise RecordError(f"{field} is no mapping")
    return value


def mappings(value: object, field: str) -> list[dict]:
    """A list of mappings; nothing is an empty list."""
    value = parsed(value)
    if value is not None and not isinstance(value, list):
        raise RecordError(f"{field} is no list")
    return [mapping(item, field) for item in value or []]


def texts(value: object, field: str) -> list[str]:
    """A list of texts: one text alone is a list of one, nothing is an empty list."""
    value = parsed(value)
    if isinstance(value, str):
        return [value] if value.strip() else []
    if value is not None and not isinstance(value, (list, tuple)):
        raise RecordError(f"{field} is no list of texts")
    return [cell(item, field) for item in value or [] if item is not None]


def table(value: object, field: str = "table") -> list[list[str]]:
    """A table as rows of text cells: numbers as they print, nothing as "". What is text already stays as it is."""
    value = parsed(value)
    if value is None or value == "":
        return []
    if not isinstance(value, (list, tuple)) or not all(isinstance(row, (list, tuple)) for row in value):
        raise RecordError(f"{field} is no list of rows")
    return [[cell(item, field) for item in row] for row in value]


def cell(value: object, field: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple, dict)):
        raise RecordError(f"{field} holds {type(value).__name__} where a text belongs")
    return "" if value is None else str(value)


def year(value: object) -> int | None:
    """A year of four digits, also where a file made it a float or a text; None for anything else."""
    written = str(value).strip().removesuffix(".0")
    return int(written) if len(written) == 4 and written.isascii() and written.isdecimal() else None
