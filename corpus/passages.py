"""The sentence or table row of a page that matches a question best, by the model that ranked the page."""

import ast
import re

import numpy as np

from ..data.finqa import linearise_row
from .embedding import Embedder

_TABLE = re.compile(r"\[\[.*?\]\]", re.DOTALL)
# " . " ends a sentence of FinQA's tokenised text, ". A" one of running text; "corp. lists" ends none.
_SENTENCE_END = re.compile(r"(?<=\s[.?!;])\s+|(?<=[.?!])\s+(?=[A-Z])")
MAX_PASSAGES = 200
MIN_LETTERS = 8


def split_page(text: str) -> list[str]:
    """Sentences, the lines of layout text, and the rows of a table written as FinQA pages hold it, in words."""
    passages = []
    for table in _TABLE.findall(text):
        try:
            rows = ast.literal_eval(table)
            passages += [linearise_row(rows, i) for i in range(1, len(rows))]
        except (ValueError, SyntaxError, IndexError, TypeError):
            passages.append(table)
    for line in _TABLE.sub("\n", text).splitlines():
        passages += [" ".join(sentence.split()) for sentence in _SENTENCE_END.split(line)]
    kept = [passage for passage in dict.fromkeys(passages) if sum(map(str.isalpha, passage)) >= MIN_LETTERS]
    return kept[:MAX_PASSAGES] or [" ".join(text.split())[:200]]


def best_passages(embedder: Embedder, query: np.ndarray, texts: list[str]) -> list[str]:
    """For each page text its passage with the largest cosine to the unit vector ``query`` (dim,)."""
    pages = [split_page(text) for text in texts]
    scores = iter(embedder.encode_pages([passage for page in pages for passage in page]) @ query)
    return [max(zip((next(scores) for _ in page), page))[1] for page in pages]
