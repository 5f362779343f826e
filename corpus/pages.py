"""Pages from files: what the project's loaders read, Parquet, plain text and PDF, or a folder of them."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from ..data.loading import load_source, parse_records
from ..data.schema import DataError, Page
from .schema import CorpusError

_PARQUET_ROWS = 4096
_FOLDER_SUFFIXES = (".txt", ".pdf", ".json", ".jsonl", ".gz", ".parquet")
_log = logging.getLogger(__name__)


@dataclass
class Skipped:
    """What ``--skip-invalid`` left out."""

    count: int = 0

    def add(self, message: str, count: int = 1) -> None:
        _log.warning("skipped: %s", message)
        self.count += count


def read_pages(files: Iterable[str], skip_invalid: bool = False, skipped: Skipped | None = None) -> Iterator[dict]:
    """Rows of `PAGE_SCHEMA` from ``files``, folders of them, Hub ids or ``sample``, in their order.

    Two pages of one id and different content are both kept, the second as ``id#hash``; a page that comes twice is one.

    Raises:
        DataError: a file that is missing, unreadable or without text, while ``skip_invalid`` is off.
    """
    skipped = Skipped() if skipped is None else skipped
    digests: dict[str, str] = {}
    for name in _expanded(files):
        try:
            for page in _pages_of(name, skip_invalid, skipped):
                row = page_row(page)
                if digests.get(row["id"], row["digest"]) != row["digest"]:
                    row["id"] += f"#{row['digest'][:8]}"
                if row["id"] in digests:
                    continue
                digests[row["id"]] = row["digest"]
                yield row
        except DataError as error:
            if not skip_invalid:
                raise
            skipped.add(str(error))


def _expanded(files: Iterable[str]) -> Iterator[str]:
    for name in files:
        if not Path(name).is_dir():
            yield name
            continue
        found = sorted(str(path) for path in Path(name).rglob("*") if path.suffix.lower() in _FOLDER_SUFFIXES)
        if not found:
            raise DataError(f"{name}: no files with {', '.join(_FOLDER_SUFFIXES)} in this folder")
        yield from found


def _pages_of(name: str, skip_invalid: bool, skipped: Skipped) -> Iterator[Page]:
    suffix = Path(name).suffix.lower()
    if suffix in (".txt", ".pdf", ".parquet") and not Path(name).is_file():
        raise DataError(f"{name}: no such file")
    if suffix == ".txt":
        yield from _numbered(name, _text_pages(name))
    elif suffix == ".pdf":
        yield from _numbered(name, _pdf_pages(name))
    elif suffix == ".parquet":
        yield from _parquet_pages(name, skip_invalid, skipped)
    else:
        yield from _loaded(load_source(name, skip_invalid=skip_invalid), skipped)


def _loaded(source, skipped: Skipped) -> Iterator[Page]:
    if source.skipped:
        skipped.add(f"{source.name}: {source.skipped} records without a question or a page", source.skipped)
    yield from source.pages.values()


def _numbered(name: str, texts: list[str]) -> Iterator[Page]:
    """Pages ``PATH/1``, ``PATH/2`` ... of the path as it was given, without its suffix: two folders may hold files of
    one name. Blank pages keep their number and are left out."""
    if not any(text.strip() for text in texts):
        raise DataError(f"{name}: holds no text (a scan needs OCR first)")
    for number, text in enumerate(texts, start=1):
        if text.strip():
            yield Page(f"{Path(name).with_suffix('').as_posix()}/{number}", text)


def _text_pages(name: str) -> list[str]:
    try:
        return Path(name).read_text(encoding="utf-8").split("\f")
    except UnicodeDecodeError:
        raise DataError(f"{name}: is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from None


def _pdf_pages(name: str) -> list[str]:
    try:
        import pypdf
    except ImportError:
        raise CorpusError(f"{name}: PDF needs pypdf; pip install 'finmatryoshka[corpus]'") from None
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        # A NUL or half a surrogate pair out of a broken font table fits no UTF-8 column.
        return [
            (page.extract_text() or "").replace("\0", " ").encode("utf-8", "replace").decode()
            for page in pypdf.PdfReader(name).pages
        ]
    except Exception as error:  # a damaged PDF fails in pypdf by any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: is no readable PDF ({reason})") from None


def _parquet_pages(name: str, skip_invalid: bool, skipped: Skipped) -> Iterator[Page]:
    try:
        file = pyarrow.parquet.ParquetFile(name)
        if "text" not in file.schema_arrow.names:
            raise DataError(f"{name}: has no column 'text' but {', '.join(file.schema_arrow.names[:8])}")
        for batch in file.iter_batches(_PARQUET_ROWS):
            yield from _loaded(parse_records(batch.to_pylist(), name, "", skip_invalid), skipped)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name}: is no whole Parquet file ({' '.join(str(error).split())})") from None


def page_row(page: Page) -> dict:
    """``page`` as a row of `PAGE_SCHEMA`; the digest is over all its fields."""
    if not isinstance(page.text, str):
        raise DataError(f"page {page.page_id}: its text is {type(page.text).__name__}, not text")
    document, _, number = page.page_id.rpartition("/")
    row = {
        "id": page.page_id, "text": page.text, "company": page.company or "", "year": page.year,
        "document": document or page.page_id, "page": number if document else "",
    }  # fmt: skip
    return row | {"digest": hashlib.sha256(repr(sorted(row.items())).encode("utf-8", "replace")).hexdigest()[:16]}


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Consecutive lists of ``size`` items, the last one shorter (`itertools.batched` of Python 3.12)."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
