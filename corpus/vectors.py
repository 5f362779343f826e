"""Unit vectors as a table stores them, and back."""

import numpy as np
import pyarrow as pa

from ..eval.quantization import unit
from .schema import PREFIX_DIM


def stored(vectors: np.ndarray, storage: str) -> np.ndarray:
    """(n, dim) unit vectors as float32, float16 or int8.

    int8 scales each vector by its own largest number: no ranges to calibrate and keep, and the cosine does not see it.
    """
    if storage == "int8":
        return np.round(vectors / np.abs(vectors).max(axis=1, keepdims=True).clip(1e-12) * 127).astype(np.int8)
    return vectors.astype(storage)


def with_vectors(pages: pa.Table, vectors: np.ndarray, schema: pa.Schema, storage: str) -> pa.Table:
    """Rows to write: ``pages`` with (n, dim) unit ``vectors`` in the columns of ``schema``."""
    columns = {name: pages[name].combine_chunks() for name in pages.column_names}
    columns["vector"] = _column(stored(vectors, storage))
    if "prefix" in schema.names:
        columns["prefix"] = _column(unit(vectors[:, :PREFIX_DIM]).astype(np.float16))
    return pa.table(columns, schema=schema)


def _column(array: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).reshape(-1)), array.shape[1])


def as_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A table's vectors as (n, dim) float32 rows of length 1."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), -1) for chunk in column.chunks]
    return unit(np.concatenate(parts)) if parts else np.zeros((0, column.type.list_size), dtype=np.float32)
