"""Cost over size: what a text costs by its tokens, and what a corpus costs by its pages."""

import statistics
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

from ..data.schema import DataError
from .encoding import encode_by_length
from .stopwatch import interleave
from .tables import Table

LENGTHS = (64, 128, 256, 512, 1024)
PAGE_COUNTS = (100, 1000, 5000, 20000)
# Tokens of a page where pages are counted: the shortest, so that 20,000 take minutes.
COUNTED_TOKENS = 64
# Characters that are sure to hold a token, of words and of what a tokenizer leaves out.
_CHARACTERS = 20


def filled(pages: list[str], count: int, tokens: int) -> list[str]:
    """``count`` different texts of at least ``tokens`` and not many more, which would have to be read all the same:
    each a page with those that follow it."""
    if not pages:
        raise DataError("no pages to measure on; give a source with pages")
    most = tokens * _CHARACTERS
    texts = [" ".join(islice(cycle(pages), start, start + 12))[:most] for start in range(min(count, len(pages)))]
    return [f"{i // len(texts)} {text}" for i, text in zip(range(count), cycle(texts))]


def encoding_over_length(model: Any, pages: list[str], lengths: list[int], count: int, repeats: int) -> list[dict]:
    """Rows of ``tokens`` a text and its ``milliseconds`` (median, least, most of ``repeats`` that take turns), of
    ``count`` texts, in the precision that suits the device. Lengths that the model cannot read are left out."""
    longest = model.max_seq_length
    if not any(length <= longest for length in lengths):
        raise DataError(f"lengths {lengths}: the model reads {longest} tokens; give --lengths up to that")

    def at(length: int) -> Callable:
        texts = filled(pages, count, length)

        def call():
            model.max_seq_length = length
            encode_by_length(model, model.encode_document, texts, "auto")

        return call

    seconds = interleave({str(n): at(n) for n in lengths if n <= longest}, repeats)
    model.max_seq_length = longest
    return [length_row(int(tokens), [time / count for time in times]) for tokens, times in seconds.items()]


def length_row(tokens: int, seconds: list[float]) -> dict:
    """What a text of so many tokens cost in each repeat."""
    times = [1000 * time for time in seconds]
    return {"tokens": tokens, "milliseconds": (statistics.median(times), min(times), max(times))}


def encoding_over_pages(model: Any, pages: list[str], counts: list[int]) -> list[dict]:
    """Rows of ``pages`` and the ``seconds`` that they took once, at `COUNTED_TOKENS` a page."""
    longest, model.max_seq_length = model.max_seq_length, COUNTED_TOKENS
    rows = []
    for count in counts:
        texts = filled(pages, count, COUNTED_TOKENS)
        call = {"all": lambda texts=texts: encode_by_length(model, model.encode_document, texts, "auto")}
        rows.append({"pages": count, "seconds": interleave(call, 1, warm_up=False)["all"][0]})
    model.max_seq_length = longest
    return rows


def size_tables(what: str, results: dict) -> list[Table]:
    """The tables of ``over_length`` and ``over_pages``: cost, and cost over that of the smallest, each by size."""
    first, *_ = results["over_length"]
    by_length = [
        [
            str(row["tokens"]), "{:.2f} ({:.2f}–{:.2f})".format(*row["milliseconds"]),
            f"×{row['milliseconds'][0] / first['milliseconds'][0]:.2f}",
            f"{1000 * row['milliseconds'][0] / row['tokens']:.1f}",
        ]
        for row in results["over_length"]
    ]  # fmt: skip
    smallest, *_ = results["over_pages"]
    by_pages = [
        [
            f"{row['pages']:,}", f"{row['seconds']:.2f}", f"×{row['seconds'] / smallest['seconds']:.2f}",
            f"{1000 * row['seconds'] / row['pages']:.2f}",
        ]
        for row in results["over_pages"]
    ]  # fmt: skip
    note = "attention alone grows with the square of the tokens: where a token costs more, it is attention"
    return [
        Table(f"{what} over length", ["tokens", "ms a text", "over the first", "µs a token"], by_length, note),
        Table(f"{what} over pages", ["pages", "seconds", "over the first", "ms a page"], by_pages),
    ]
