"""Records of local files: JSON, JSON Lines, CSV and Parquet, gzipped or not, and folders that `datasets` saved."""

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet
from datasets import Dataset, DatasetDict, load_from_disk

from .schema import DataError

# A missing file with one of these endings is a missing file, not the name of a Hub dataset.
SUFFIXES = (
    ".json", ".jsonl", ".ndjson", ".gz", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".zip", ".zst", ".bz2", ".xz",
    ".xlsx", ".pdf", ".html", ".xml", ".yaml", ".yml", ".feather", ".pkl",
)  # fmt: skip


def read_records(source: str, split: str = "train") -> list[dict]:
    """The raw records of a local file or of a folder that `datasets` saved; ``split`` picks where there are several.

    Raises:
        DataError: in one line, when it cannot be read or has no such split.
    """
    path = Path(source)
    try:
        if path.is_dir():
            return _saved_folder(path, source, split)
        suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        if suffix == ".parquet":
            return pyarrow.parquet.read_table(path).to_pylist()
        if suffix in (".csv", ".tsv"):
            return _table_of_text(path, "\t" if suffix == ".tsv" else ",")
        return _json_records(_text_of(path), source, split)
    except UnicodeDecodeError:
        raise DataError(f"{source}: is not UTF-8 text; give JSON, JSON Lines, CSV or Parquet") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{source}: is no whole gzip file ({_one_line(error)}); copy or download it again") from None
    except (pyarrow.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{source}: is no whole {suffix[1:].upper()} file ({_one_line(error)})") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or _one_line(error)})") from None


def _text_of(path: Path) -> str:
    opened = gzip.open if path.suffix == ".gz" else open
    # newline="" leaves carriage returns alone; utf-8-sig drops a byte order mark.
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        return file.read()


def _table_of_text(path: Path, separator: str) -> list[dict]:
    frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    return frame.to_dict("records")


def _json_records(text: str, source: str, split: str) -> list[dict]:
    """A list, an object a line, one object over several lines, or a mapping from splits to lists."""
    # A line separator (U+2028) inside a string is valid JSON: lines end at a newline alone.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        return []
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        # Which line is to blame depends on what was meant: one of the first two whole means an object a line.
        if len(lines) > 1 and any(_is_whole(line) for _, line in lines[:2]):
            return [_decoded(line, source, number) for number, line in lines]
        content = _decoded(text, source)
    if isinstance(content, list):
        return content
    return content[_chosen(list(content), source, split)] if _is_splits(content) else [content]


def _is_whole(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _decoded(text: str, source: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {line or error.lineno}, column {error.colno}"
        raise DataError(f"{source}: is no JSON or JSON Lines ({place}: {error.msg}); mend that line") from None
    except (ValueError, RecursionError) as error:  # an integer of 5,000 digits, brackets 1,000 deep
        place = f"line {line}: " if line else ""
        raise DataError(f"{source}: holds JSON that cannot be read ({place}{_one_line(error)})") from None


def _is_splits(content: object) -> bool:
    """Whether an object maps splits to lists of records, which no record of ours looks like."""
    return (
        isinstance(content, dict)
        and any(content.values())
        and all(isinstance(part, list) and all(isinstance(item, dict) for item in part) for part in content.values())
    )


def _chosen(splits: list[str], source: str, split: str) -> str:
    if split in splits:
        return split
    if len(splits) == 1:
        return splits[0]
    raise DataError(f"{source}: has no split {split!r} but {', '.join(splits)}; name one as {source}:{splits[0]}")


def _saved_folder(path: Path, source: str, split: str) -> list[dict]:
    try:
        saved = load_from_disk(str(path))
    except FileNotFoundError:
        raise DataError(f"{source}: is a folder that `datasets` did not save; name the files in it") from None
    if isinstance(saved, DatasetDict):
        saved = saved[_chosen(list(saved), source, split)]
    return list(saved) if isinstance(saved, Dataset) else []


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def is_local(source: str) -> bool:
    """Whether a source names a file or folder, there or missing, and not a Hub dataset (``org/name``)."""
    name = os.path.expanduser(source)
    bare = split_of(name)[0]
    return (
        os.path.exists(bare)
        or bare.lower().endswith(SUFFIXES)
        or bare.startswith((".", "/", "\\"))
        or (bare.count("/") > 1 and "@" not in bare and "#" not in bare)
    )


def split_of(source: str) -> tuple[str, str | None]:
    """``path:split`` apart, where there is no file of that whole name."""
    path, colon, split = source.rpartition(":")
    return (
        (path, split)
        if colon and "/" not in split and "\\" not in split and not os.path.exists(source)
        else (source, None)
    )
