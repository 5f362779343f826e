"""The words of a page and of a question: what the full-text index holds, and how a question asks it."""

import re

from ..data.bm25 import STOPWORDS_EN

# Of a page pasted as a question the first phrases count: LanceDB's time grows with the square of their number.
MOST_PHRASES = 64
_STOPWORDS = frozenset(STOPWORDS_EN)


def text_index():
    """The words of `eval.bm25_scores` (no stemming, the same stop words), and where on a page each of them stands."""
    from lancedb.index import FTS

    return FTS(stem=False, with_position=True, custom_stop_words=list(STOPWORDS_EN))


def is_text_index(index) -> bool:
    """Whether an index in a table's list can answer `text_query`: earlier ones lack the words' positions."""
    return bool(index.index_details.get("with_position"))


def text_query(question: str):
    """BM25 of the question's words, each counted once more for every phrase in which a page has it, of the first
    `MOST_PHRASES` of `neighbours`."""
    from lancedb.query import BooleanQuery, MatchQuery, Occur, PhraseQuery

    # Their other arguments have defaults, which mypy does not see through pydantic's dataclasses.
    words = MatchQuery(question, "text")  # type: ignore[call-arg]
    phrases = [PhraseQuery(phrase, "text") for phrase in neighbours(question)[:MOST_PHRASES]]  # type: ignore[call-arg]
    return BooleanQuery([(Occur.SHOULD, query) for query in (words, *phrases)])


def neighbours(question: str) -> list[str]:
    """Each two neighbouring words, stop words and single letters left out, with what stands between them.

    "the cost of net sales" has "cost of net" and "net sales"; the index matches any one word in the place of "of".
    """
    words = re.findall(r"[^\W_]+", question.lower())
    kept = [i for i, word in enumerate(words) if len(word) > 1 and word not in _STOPWORDS]
    return list(dict.fromkeys(" ".join(words[a : b + 1]) for a, b in zip(kept, kept[1:])))
