"""Words and phrases of a question: which they are, what they find, and an index that lacks the phrases."""

from typing import cast

import numpy as np
import pyarrow as pa
import pytest

from finmatryoshka.corpus import fulltext
from finmatryoshka.corpus import table as table_module
from finmatryoshka.corpus.embedding import Embedder
from finmatryoshka.corpus.index import IndexPlan, index_pages
from finmatryoshka.corpus.pages import page_row
from finmatryoshka.corpus.recall import KnownVectors
from finmatryoshka.corpus.schema import PAGE_SCHEMA, CorpusError, Identity
from finmatryoshka.corpus.search import CorpusSearch
from finmatryoshka.corpus.table import build_indices, write_rows
from finmatryoshka.corpus.vectors import with_vectors
from finmatryoshka.data.loading import load_source
from finmatryoshka.data.schema import Page


def corpus_of(path: str, texts: list[str]) -> CorpusSearch:
    """A table of ``texts`` with the ids 0, 1, ... and no model behind it."""
    identity = Identity("known vectors", "0" * 16, 8, "float32", 0, {})
    pages = pa.Table.from_pylist([page_row(Page(str(i), text)) for i, text in enumerate(texts)], PAGE_SCHEMA)
    vectors = np.eye(8, dtype=np.float32)[: len(texts)]
    build_indices(path, write_rows(path, None, with_vectors(pages, vectors, identity.table_schema(), "float32")))
    return CorpusSearch(path, embedder=cast(Embedder, KnownVectors(identity)))


def test_phrases_are_neighbouring_words_with_what_stands_between_them():
    assert fulltext.neighbours("The cost of net sales, cost of net sales?") == [
        "cost of net", "net sales", "sales cost",
    ]  # fmt: skip
    assert fulltext.neighbours("PepsiCo's Form 10-K") == ["pepsico s form", "form 10"]
    assert fulltext.neighbours("revenue") == fulltext.neighbours("of the") == []


@pytest.mark.parametrize("question", ["net sales", "the cost of sales", "NET SALES of 2015"])
def test_a_page_that_has_the_words_side_by_side_comes_first(tmp_path, question):
    apart, beside = "sales 2015 cost net", question
    corpus = corpus_of(str(tmp_path / "t.lance"), [apart, beside, "taxes paid in 2014"])
    ids, scores = corpus.rank(question, 3, mode="text")
    assert ids == ["1", "0"] and scores[0] > 1.5 * scores[1]
    ids, _ = corpus.rank(question, 3, weight=1.0, query_vector=np.eye(8, dtype=np.float32)[2])
    assert ids == ["1", "0", "2"]
    assert corpus.rank(question, 3, mode="text", where="id != '1'")[0] == ["0"]


def test_a_question_without_a_phrase_is_its_words(tmp_path):
    corpus = corpus_of(str(tmp_path / "t.lance"), ["net sales", "taxes paid"])
    assert corpus.rank("taxes", 2, mode="text")[0] == ["1"]
    assert corpus.rank("of the", 2, mode="text") == ([], [])


def test_a_pasted_page_asks_for_its_words_and_its_first_phrases():
    words = [f"w{i}" for i in range(20_000)]
    clauses = [clause.query for _, clause in fulltext.text_query(" ".join(words)).queries]
    assert clauses == [" ".join(words), *(f"w{i} w{i + 1}" for i in range(fulltext.MOST_PHRASES))]


def test_an_index_without_phrases_is_refused_and_built_anew(finqa_files, tiny_backbones, tmp_path, monkeypatch):
    from lancedb.index import FTS

    path, model = str(tmp_path / "t.lance"), tiny_backbones["bert"]
    plan = IndexPlan([finqa_files["eval"]], path, model, 32, progress=False)
    monkeypatch.setattr(table_module, "text_index", lambda: FTS(stem=False))
    index_pages(plan)
    with pytest.raises(CorpusError, match=r"t\.lance: its index is .* run the index command again"):
        CorpusSearch(path)
    monkeypatch.undo()
    report = index_pages(plan)
    question = load_source(plan.files[0]).examples[0].question
    assert report.written == 0 and CorpusSearch(path).rank(question, 1, mode="text")[0]
