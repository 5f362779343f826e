"""A LanceDB table of pages: opened, locked while written, written by key, indexed, read."""

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from .fulltext import is_text_index, text_index
from .schema import CorpusError, Identity

APPROXIMATE_FROM = 50_000  # rows from which an approximate index pays: below, an exact scan takes milliseconds


def connect(path: str):
    """(connection, table name) of ``FOLDER/NAME.lance``; FOLDER may be any address that LanceDB opens (s3://...)."""
    try:
        import lancedb
    except ImportError:
        raise CorpusError("LanceDB is not installed; pip install 'finmatryoshka[corpus]'") from None
    folder, _, name = str(path).rstrip("/").rpartition("/")
    if not name.endswith(".lance") or name == ".lance":
        raise CorpusError(f"{path}: a corpus is named like corpus.lance")
    return lancedb.connect(folder or "."), name.removesuffix(".lance")


def open_corpus(path: str):
    """(table, `Identity`). Raises `CorpusError` where there is no table or one that `index` did not write."""
    table = _table(path)
    if table is None:
        raise CorpusError(f"{path}: no such table; make it with the index command")
    return table, Identity.of_schema(table.schema, path)


def _table(path: str):
    """None where there is none, or a first write that did not reach its end."""
    connection, name = connect(path)
    try:
        return connection.open_table(name)
    except (ValueError, OSError, RuntimeError) as error:
        if "not found" in str(error).lower():
            return None
        raise CorpusError(f"{path}: cannot be opened ({one_line(error)})") from None


def open_or_none(path: str, identity: Identity):
    """The table to go on with, None where there is none yet; another model's is refused by `Identity.check`."""
    table = _table(path)
    if table is not None:
        Identity.of_schema(table.schema, path).check(identity, path)
    return table


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Holds a local table for one writer; the lock goes with the process, however it ends. Object stores have none."""
    if "://" in str(path):
        yield
        return
    lock = Path(path).with_name(f".{Path(path).name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "w")
    except OSError as error:
        raise CorpusError(f"{path}: cannot be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CorpusError(f"{path}: another index command is writing it; wait until it ends") from None
        try:
            yield
        finally:
            os.unlink(lock)


def write_rows(path: str, table, rows: pa.Table):
    """Insert or replace ``rows`` by id in one commit, making the table first where it is None; returns the table."""
    with writing(path):
        if table is None:
            connection, name = connect(path)
            return connection.create_table(name, rows)
        table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)
        return table


@contextmanager
def writing(path: str) -> Iterator[None]:
    """What LanceDB says about a write that failed (a full disk, no permission), as one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise CorpusError(
            f"{path}: cannot be written ({one_line(error)}); what was committed is whole: make room or mend it, "
            "and run the same command again"
        ) from None


def digests(table) -> dict[str, str]:
    """Digest by id of every page in the table: about 150 bytes of memory each."""
    rows = table.search().select(["id", "digest"]).limit(table.count_rows()).to_arrow()
    return dict(zip(rows["id"].to_pylist(), rows["digest"].to_pylist()))


def build_indices(path: str, table, approximate_from: int = APPROXIMATE_FROM) -> None:
    """Compact the table and build its indices anew: full text always, the approximate ones from ``approximate_from``
    rows.

    Anew, so that a table filled in ten runs answers as one filled in one. `IvfSq` keeps int8 copies of the vectors.
    The full-text index goes first and comes last: a table that has it is finished (`is_indexed`). Earlier versions go,
    as they take the space again: a search that was open meanwhile is to be opened again.
    """
    from lancedb.index import FTS, Bitmap, BTree, IvfSq

    Config = FTS | BTree | Bitmap | IvfSq
    near = IvfSq(distance_type="cosine")
    kinds: dict[str, Config] = {
        "id": BTree(), "digest": BTree(), "company": Bitmap(), "year": BTree(), "vector": near, "prefix": near,
    }  # fmt: skip
    configs = {name: kinds[name] for name in _approximate_columns(table, approximate_from)}
    configs["text"] = text_index()
    with writing(path):
        for index in _indices(table, "text"):
            table.drop_index(index.name)
        table.optimize()
        for name, config in configs.items():
            table.create_index(name, config=config, replace=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="optimize.cleanup_older_than=0")  # we hold the writer's lock
            table.optimize(cleanup_older_than=timedelta(0))


def _approximate_columns(table, approximate_from: int) -> list[str]:
    """Columns that have an index beside the text's, in a table of at least ``approximate_from`` rows."""
    if table.count_rows() < approximate_from:
        return []
    vectors = [name for name in ("vector", "prefix") if name in table.schema.names]
    floats = [name for name in vectors if not pa.types.is_int8(table.schema.field(name).type.value_type)]
    return ["id", "digest", "company", "year", *floats]


def _indices(table, column: str) -> list:
    return [index for index in table.list_indices() if index.columns == [column]]


def is_indexed(table, approximate_from: int | None = None) -> bool:
    """Whether the full-text index, the last to be built, covers every row: False after a run that did not reach its
    end, and of an earlier kind of index; with ``approximate_from``, whether `build_indices` would build no others."""
    found = _indices(table, "text")
    whole = bool(found) and is_text_index(found[0]) and table.index_stats(found[0].name).num_unindexed_rows == 0
    others = [] if approximate_from is None else _approximate_columns(table, approximate_from)
    return whole and all(has_index(table, column) for column in others)


def size_on_disk(path: str) -> int | None:
    """Bytes of a table; None of one on an object store."""
    return None if "://" in path else sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def has_index(table, column: str) -> bool:
    return bool(_indices(table, column))


def one_line(error: BaseException) -> str:
    """What LanceDB says, without the source lines of its own build."""
    return " ".join(str(error).split(", /root/")[0].split()) or type(error).__name__
