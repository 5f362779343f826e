"""Files to a searchable table: pages that are new or changed are embedded and committed chunk by chunk, then indexed.

A page is a key (its id) and a digest of its content. A commit is whole or not there, and the chunks are consecutive
pages in the input's order, so that a run that was killed goes on at its last commit and ends in the table of one run.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
from tqdm import tqdm

from .embedding import DEFAULT_MODEL, Embedder
from .pages import Skipped, batched, read_pages
from .ray_engine import embed_with_ray
from .schema import PAGE_SCHEMA, CorpusError
from .table import (
    APPROXIMATE_FROM,
    build_indices,
    connect,
    digests,
    is_indexed,
    locked,
    open_or_none,
    size_on_disk,
    write_rows,
    writing,
)
from .vectors import with_vectors

CHUNK_PAGES = 128  # a commit, and a work item of Ray


@dataclass
class IndexPlan:
    """What the index command takes; see its options."""

    files: list[str]
    output: str
    model: str = DEFAULT_MODEL
    dim: int = 128
    storage: str = "float32"
    engine: str = "local"
    batch_tokens: int | None = None
    precision: str = "auto"
    workers: int = 1
    ray_address: str | None = None
    skip_invalid: bool = False
    approximate_from: int = APPROXIMATE_FROM
    progress: bool = True


@dataclass
class IndexReport:
    """Counts of pages and seconds of one run; ``bytes`` on disk is None on an object store."""

    written: int
    unchanged: int
    skipped: int
    rows: int
    embed_seconds: float
    index_seconds: float
    bytes: int | None

    def __str__(self) -> str:
        rate = f", {self.written / self.embed_seconds:.1f} pages/s" if self.written else ""
        size = f", {self.bytes / max(1, self.rows):,.0f} bytes a page on disk" if self.bytes is not None else ""
        return (
            f"{self.rows:,} pages: {self.written:,} written in {self.embed_seconds:.1f} s{rate}; {self.unchanged:,} "
            f"unchanged, {self.skipped:,} skipped; indices built in {self.index_seconds:.1f} s{size}"
        )


def index_pages(plan: IndexPlan) -> IndexReport:
    """Fill ``plan.output`` with the pages of ``plan.files``.

    Raises:
        DataError: an input file, named.
        CorpusError: a model, a table of another model, a table in use, a disk that is full.
    """
    connect(plan.output)  # a wrong name or a missing package before any work
    embedder = Embedder(plan.model, plan.dim, plan.batch_tokens, plan.precision)
    identity = embedder.identity(plan.storage)
    schema, skipped = identity.table_schema(), Skipped()
    with locked(plan.output):
        table = open_or_none(plan.output, identity)
        known = digests(table) if table is not None else {}
        spool, pending, same = _spooled(read_pages(plan.files, plan.skip_invalid, skipped), known, plan.output)
        with spool:
            if not pending and table is None:
                raise CorpusError(f"{', '.join(plan.files)}: no pages to index")
            started = time.perf_counter()
            with tqdm(total=pending, unit="page", disable=None if plan.progress else True) as progress:
                for pages, vectors in _embedded(plan, embedder, _chunks(spool)):
                    rows = with_vectors(pages, vectors, schema, plan.storage)
                    table = write_rows(plan.output, table, rows)
                    progress.update(len(pages))
            embedded = time.perf_counter()
        if pending or not is_indexed(table, plan.approximate_from):
            build_indices(plan.output, table, plan.approximate_from)
    finished = time.perf_counter()
    return IndexReport(
        pending,
        same,
        skipped.count,
        table.count_rows(),
        embedded - started,
        finished - embedded,
        size_on_disk(plan.output),
    )


def _embedded(plan: IndexPlan, embedder: Embedder, chunks: Iterator[pa.Table]):
    """(pages, their vectors) of every chunk: in order on one machine, as they come from several."""
    if plan.engine == "ray":
        model = (plan.model, plan.dim, plan.batch_tokens, plan.precision)
        return embed_with_ray(chunks, model, plan.workers, plan.ray_address)
    return ((pages, embedder.encode_pages(pages["text"].to_pylist())) for pages in chunks)


def _spooled(pages: Iterable[dict], known: dict[str, str], output: str) -> tuple[IO[bytes], int, int]:
    """(file of the pages that ``known`` lacks, how many these are, how many it has).

    All input is read, and refused, before the first page is embedded. The pages wait in a file without a name, beside
    the table, that goes with the process. Raises `CorpusError` where the disk is full.
    """
    pending = same = 0
    with writing(output):
        file = tempfile.TemporaryFile(dir=None if "://" in output else Path(output).parent)
        try:
            with pa.ipc.new_file(file, PAGE_SCHEMA) as writer:
                for chunk in batched(_unknown(pages, known), CHUNK_PAGES):
                    rows = [row for row in chunk if row is not None]
                    same += len(chunk) - len(rows)
                    pending += len(rows)
                    if rows:
                        writer.write_batch(pa.RecordBatch.from_pylist(rows, PAGE_SCHEMA))
            file.flush()
        except BaseException:
            with suppress(OSError):  # what could not be written cannot be flushed either
                file.close()
            raise
    return file, pending, same


def _chunks(spool: IO[bytes]) -> Iterator[pa.Table]:
    reader = pa.ipc.open_file(spool)
    return (pa.Table.from_batches([reader.get_batch(i)]) for i in range(reader.num_record_batches))


def _unknown(pages: Iterable[dict], known: dict[str, str]) -> Iterator[dict | None]:
    """Each page that is new or changed, None for one that the table has."""
    for row in pages:
        yield None if known.get(row["id"]) == row["digest"] else row
