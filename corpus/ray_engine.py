"""Embedding on many machines: Ray Data's actors read chunks of pages and return them with their vectors.

The pages go out in windows, one Ray Data pipeline each, so that the driver never holds more than a window; the actors
load the model once a window. Ray starts a killed worker again and gives its chunk to another. One process writes the
table.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from .embedding import Embedder
from .pages import batched
from .schema import PAGE_SCHEMA, CorpusError
from .vectors import as_matrix

WINDOW_CHUNKS = 160  # 20,480 pages


class _Worker:
    """One actor: a chunk of pages in, the same pages with ``vector`` (float32) out."""

    def __init__(self, *model: Any):
        self.embedder = Embedder(*model)

    def __call__(self, pages: pa.Table) -> pa.Table:
        vectors = self.embedder.encode_pages(pages["text"].to_pylist())
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self.embedder.dim)
        return pages.append_column("vector", column)


def start(address: str, **options) -> None:
    """``ray.init`` without Ray's own lines: what it logs of an error is in the error that it raises."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")
    import ray

    ray.init(address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False, **options)


def embed_with_ray(
    chunks: Iterator[pa.Table], model: tuple, workers: int, address: str | None = None
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """(pages, (n, dim) unit vectors) of every chunk, in the order in which ``workers`` actors finish.

    Args:
        model: What the actors' `Embedder`s are made of.
        address: Of a running cluster (``host:port``, ``auto``); None starts Ray on this machine.

    Raises:
        CorpusError: Ray is not installed, no cluster answers, a worker raised (an error of Python is not tried again),
            or was killed more often than Ray gives it another try.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError:
        raise CorpusError("Ray is not installed; pip install 'finmatryoshka[corpus]'") from None
    started = not ray.is_initialized()
    try:
        if started:
            start(address or "local")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False
        context.raise_original_map_exception = True
        for window in batched(chunks, WINDOW_CHUNKS):
            vectors = ray.data.from_arrow(list(window)).map_batches(
                _Worker,
                fn_constructor_args=model,
                batch_format="pyarrow",
                batch_size=None,
                num_cpus=1,
                num_gpus=1 if ray.cluster_resources().get("GPU") else 0,
                compute=ray.data.ActorPoolStrategy(size=workers),
            )
            batches: Iterable[Any] = vectors.iter_batches(batch_size=None, batch_format="pyarrow")
            for batch in batches:
                yield batch.select(PAGE_SCHEMA.names), as_matrix(batch["vector"])
    except (RayError, ConnectionError) as error:
        raise CorpusError(f"Ray: {_reason(error)}; what was committed is whole, run the same command again") from error
    finally:
        if started and ray.is_initialized():
            ray.shutdown()


def _reason(error: Exception) -> str:
    """What a worker raised, in one line: ours as it reads, others with their class.

    Ray hands on the exception of a chunk as ``cause``; of one in a worker's start there is only the traceback, which
    ends in the line that names it.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        message = str(cause).partition("Failed to apply UDF transform after")[0]  # Ray Data's count of its attempts
        named = [f"{type(cause).__name__}: {' '.join(message.split())}"]
    else:
        named = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", str(error), re.MULTILINE)
    reason = (named or str(error).strip().splitlines() or [type(error).__name__])[-1]
    return re.sub(r"^(?:\w+\.)*(?:CorpusError|BackboneError): ", "", reason)
