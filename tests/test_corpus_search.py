"""Questions to pages: the right one first, filters before ranking, the approximate search beside the exact,
duplicates."""

import json
from argparse import Namespace
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest

from finmatryoshka.corpus import embedding, measure, recall
from finmatryoshka.corpus import search as search_module
from finmatryoshka.corpus.__main__ import main
from finmatryoshka.corpus.duplicates import like_questions
from finmatryoshka.corpus.embedding import Embedder
from finmatryoshka.corpus.index import IndexPlan, index_pages
from finmatryoshka.corpus.pages import page_row
from finmatryoshka.corpus.passages import best_passages, split_page
from finmatryoshka.corpus.schema import PAGE_SCHEMA, CorpusError
from finmatryoshka.corpus.search import CorpusSearch
from finmatryoshka.data.loading import load_source
from finmatryoshka.data.schema import Page
from finmatryoshka.eval.quantization import unit


@pytest.fixture(scope="module")
def packaged(finqa_files, tmp_path_factory) -> CorpusSearch:
    """The generated evaluation pages by the packaged encoder."""
    path = str(tmp_path_factory.mktemp("corpus") / "sample.lance")
    index_pages(IndexPlan([finqa_files["eval"]], path, "minilm", progress=False))
    return CorpusSearch(path)


@pytest.fixture(scope="module")
def million(tmp_path_factory) -> tuple[CorpusSearch, np.ndarray]:
    """A synthetic table of 3,000 pages with approximate indices, and vectors to ask it with."""
    path = str(tmp_path_factory.mktemp("synthetic") / "synthetic.lance")
    patch = pytest.MonkeyPatch()
    build = measure.build_indices
    patch.setattr(measure, "build_indices", lambda path, table: build(path, table, approximate_from=1000))
    try:
        return measure.synthetic_table(Namespace(table=path, rows=3000, dim=128, queries=20, seed=3))
    finally:
        patch.undo()


@pytest.fixture
def by_candidates(monkeypatch):
    """Small tables are searched exactly; here they are not."""
    monkeypatch.setattr(search_module, "EXACT_ROWS", 0)


@pytest.fixture
def questions(finqa_files):
    return load_source(finqa_files["eval"]).examples


def found_among(corpus: CorpusSearch, examples, top: int, filtered: bool = False) -> float:
    """Share of the distinct questions that have a page that answers them among the first ``top`` in hybrid mode."""
    answers = defaultdict(list)
    for example in examples:
        answers[example.question].append(example.page)
    asked = list(answers)
    found = []
    for question, vector in zip(asked, corpus.embedder.encode_queries(asked)):
        page = answers[question][0]
        where = f"company = '{page.company}' AND year = {page.year}" if filtered else None
        ids, _ = corpus.rank(question, top, where=where, query_vector=vector)
        found.append(any(page.page_id in ids for page in answers[question]))
    return np.mean(found)


def test_the_untrained_encoder_finds_the_company_and_with_a_filter_the_page(packaged, questions):
    """The sample's neighbouring years differ in figures only: without training the right page is among three, not
    first."""
    assert found_among(packaged, questions, 3) >= 0.95
    assert found_among(packaged, questions, 1, filtered=True) >= 0.9


def test_the_default_model_is_the_packages_wherever_one_stands(tiny_backbones, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embedding, "_PACKAGE", tmp_path / "package")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["index", "sample", "--output", "a.lance"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: models/finmatryoshka-minilm: ") and "--model" in error and error.count("\n") == 1
    assert list(tmp_path.glob("here/*")) == []
    (tmp_path / "package" / "models").mkdir(parents=True)
    (tmp_path / "package" / "models" / "finmatryoshka-minilm").symlink_to(tiny_backbones["bert"])
    assert Embedder(dim=32).identity("float32").model == "models/finmatryoshka-minilm"


@pytest.mark.slow
def test_the_default_model_finds_the_right_page(tmp_path):
    """First, of all pages of the sample as ``index sample`` reads it, for at least 95% of its questions."""
    path = str(tmp_path / "sample.lance")
    index_pages(IndexPlan(["sample"], path, progress=False))
    assert found_among(CorpusSearch(path), load_source("sample").examples, 1) >= 0.95


def test_modes_score_as_the_evaluation_does(finqa_files):
    """The vectors exactly; the words nearly, as a phrase of LanceDB is not quite a pair of words in bm25s."""
    figures = {name: scores.ndcg for name, scores in measure.quality(finqa_files["eval"], "minilm", 64).items()}
    assert figures["corpus hybrid"] == pytest.approx(figures["eval hybrid"], abs=0.02)
    assert figures["corpus vector"] == pytest.approx(figures["eval vector"], abs=1e-3)
    assert figures["corpus text"] == pytest.approx(figures["eval text (bm25s)"], abs=0.02)
    assert figures["corpus vector"] < figures["corpus hybrid"]


def test_options_that_exclude_each_other_and_weights_out_of_range_are_refused(packaged):
    with pytest.raises(CorpusError, match="--prefix .* and --exact .* give one"):
        packaged.rank("net sales", prefix=True, exact=True)
    with pytest.raises(CorpusError, match="weight 3: .* from 0 to 1"):
        packaged.rank("net sales", weight=3)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_a_filter_applies_before_ranking(packaged, questions, mode):
    year = questions[0].page.year
    ids, _ = packaged.rank("net sales of any company", 100, mode=mode, where=f"year = {year}")
    inside = {e.page.page_id for e in questions if e.page.year == year}
    assert set(ids) <= inside
    if mode != "text":
        assert set(ids) == inside
    assert packaged.rank("net sales", 5, mode=mode, where="year = 1900") == ([], [])


def test_hybrid_is_the_weighted_sum_of_the_cosine_and_the_share_of_the_best_words(packaged, questions):
    question = questions[0].question
    count = packaged.table.count_rows()
    scores = {mode: dict(zip(*packaged.rank(question, count, mode=mode))) for mode in ("vector", "text", "hybrid")}
    ids = sorted(scores["vector"])
    vector, text, hybrid = (np.array([scores[mode].get(i, 0.0) for i in ids]) for mode in ("vector", "text", "hybrid"))
    np.testing.assert_allclose(hybrid, 0.7 * vector + 0.3 * text / text.max(), atol=1e-5)
    assert packaged.rank(question, count, weight=0.0)[0] == packaged.rank(question, count, mode="vector")[0]
    # without a word that a page holds, the vectors decide
    assert packaged.rank("zzyzx", count)[0] == packaged.rank("zzyzx", count, mode="vector")[0]
    fused = packaged.rank(question, count, fusion="reciprocal_ranks")[1]
    assert 1 / 61 < fused[0] <= 2 / 61


def test_vectors_kept_in_memory_are_those_of_the_filter_and_of_the_table_as_it_is(tmp_path):
    corpus, vectors = measure.synthetic_table(
        Namespace(table=str(tmp_path / "made.lance"), rows=200, dim=64, queries=1, seed=3)
    )

    def rank(asked: CorpusSearch, where: str | None) -> list[str]:
        return asked.rank("w1 w2", 200, query_vector=vectors[0], where=where)[0]

    for where in (None, "year = 2003", None, "year = 2004"):
        assert rank(corpus, where) == rank(CorpusSearch(corpus.path, embedder=corpus.embedder), where)
    ids = rank(corpus, None)
    corpus.table.delete(f"id = '{ids[0]}'")
    assert sorted(rank(corpus, None)) == sorted(ids[1:])


def test_json_lines_and_the_table_carry_the_best_row(packaged, questions, capsys):
    question = questions[0].question
    assert main(["search", packaged.path, question, "--top", "2", "--json"]) == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [hit["rank"] for hit in hits] == [1, 2] and hits[0]["score"] > hits[1]["score"]
    pages = {example.page.page_id: example.page for example in questions}
    assert hits[0]["company"] == questions[0].page.company
    assert hits[0]["passage"] in split_page(pages[hits[0]["id"]].text)
    assert main(["search", packaged.path, question, "--top", "1"]) == 0
    assert "best match" in capsys.readouterr().out
    assert main(["search", packaged.path, question, "--where", "year = 1900"]) == 0
    assert capsys.readouterr().out == "no pages found\n"


@pytest.mark.parametrize("where", ["yeer = 3", "year =", "year = 'x'", "id = 'a' OR"])
@pytest.mark.parametrize("mode", ["hybrid", "text"])
def test_an_invalid_filter_is_one_line(packaged, where, mode, capsys):
    assert main(["search", packaged.path, "net sales", "--where", where, "--mode", mode]) == 2
    error = capsys.readouterr().err
    assert where in error and error.count("\n") == 1 and "cargo" not in error


def test_an_empty_question_is_one_line(packaged, capsys):
    assert main(["search", packaged.path, "  "]) == 2
    assert "empty" in capsys.readouterr().err


def test_a_page_splits_into_sentences_lines_and_rows():
    page = (
        "sales rose in 2015 . the corp. lists income ."
        "[['', '2015'], ['net sales', '5829'], ['taxes', '$ 12']]end of page ."
    )
    assert split_page(page) == [
        "the net sales of 2015 is 5829 ;", "the taxes of 2015 is $ 12 ;", "sales rose in 2015 .",
        "the corp. lists income .", "end of page .",
    ]  # fmt: skip
    assert split_page("   Net sales      $ 5,829\n   Cost of sales  3,100")[0] == "Net sales $ 5,829"
    assert split_page("12 13") == ["12 13"]


def test_the_best_passage_is_the_one_that_says_it(packaged):
    query = packaged.embedder.encode_queries(["how much interest did we pay?"])[0]
    page = "The weather was good.\nInterest expense was 120 in 2015.\nWe have 12 offices in Europe."
    assert best_passages(packaged.embedder, query, [page]) == ["Interest expense was 120 in 2015."]


@pytest.mark.parametrize("options", [{}, {"prefix": True}])
def test_the_approximate_search_finds_what_the_exact_one_does(million, options, by_candidates, monkeypatch):
    monkeypatch.setattr(search_module, "KEPT", 0)  # else the exact search of so few pages is no LanceDB's
    corpus, vectors = million
    exact = [corpus.rank("w1", 10, "vector", exact=True, query_vector=vector) for vector in vectors]
    found = [corpus.rank("w1", 10, "vector", query_vector=vector, **options) for vector in vectors]
    recall = np.mean([len(set(a[0]) & set(b[0])) / 10 for a, b in zip(exact, found)])
    assert recall >= 0.9
    for (ids, scores), (exact_ids, exact_scores) in zip(found, exact):
        known = dict(zip(exact_ids, exact_scores))
        assert all(score == pytest.approx(known[i], abs=1e-6) for i, score in zip(ids, scores) if i in known)


def test_hybrid_over_candidates_scores_them_as_hybrid_over_all_does(million, by_candidates):
    corpus, vectors = million
    overlaps = []
    for i, vector in enumerate(vectors):
        query = f"w{7 * i} w{7 * i + 1}"
        exact = dict(zip(*corpus.rank(query, 3000, query_vector=vector, exact=True)))
        found = dict(zip(*corpus.rank(query, 10, query_vector=vector)))
        assert found == pytest.approx({i: exact[i] for i in found}, abs=1e-6)
        overlaps.append(len(found.keys() & set([*exact][:10])) / 10)
    assert np.mean(overlaps) >= 0.9
    ids, _ = corpus.rank("w1 w2", 10, query_vector=vectors[0], where="company = 'company 7'")
    assert ids and all(int(i.split("/")[1]) % 500 == 7 for i in ids)


def test_duplicates_are_pairs_above_the_threshold(tiny_backbones, tmp_path, capsys):
    texts = ["net sales were 5829 in 2015", "net sales were 5829 in 2015 .", "zebra quagga ()[]$%"]
    file = tmp_path / "pages.jsonl"
    file.write_text("\n".join(json.dumps({"document": "a", "page": i, "text": t}) for i, t in enumerate(texts)))
    output = str(tmp_path / "pages.lance")
    assert main(["index", str(file), "--output", output, "--model", tiny_backbones["bert"], "--dim", "64"]) == 0
    capsys.readouterr()
    assert main(["duplicates", output, "--threshold", "0.99"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("a/0  a/1") and out[-1].startswith("1 pairs")


def test_like_questions_stand_together(packaged, tmp_path, capsys):
    asked = [
        "what was the interest expense in 2015?",
        "how many offices are there?",
        "what were interest expenses in 2015?",
    ]
    (group,) = like_questions(asked, packaged.embedder, 0.9)
    assert sorted(group) == sorted([asked[0], asked[2]])
    file = tmp_path / "asked.txt"
    file.write_text("\n".join(asked))
    assert main(["questions", str(file), "--model", "minilm"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 groups")


def test_batches_hold_about_as_many_tokens_each(tiny_backbones):
    embedder = Embedder(tiny_backbones["bert"], 16, batch_tokens=12, precision="fp32")
    texts, sizes, encode = ["a b c", "a", "a b c d e f g h " * 20, "b"], [], embedder.model.encode_document

    def counted(batch, **options):
        sizes.append(len(batch))
        return encode(batch, **options)

    embedder.model.encode_document = counted
    vectors = embedder.encode_pages(texts)
    assert sizes == [1, 2, 1]  # one too long for any batch; 5 and 3 tokens; 3
    np.testing.assert_allclose(vectors[1], embedder.encode_pages(["a"])[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_recall_counts_what_storage_and_candidates_lose():
    rng = np.random.default_rng(5)
    vectors = unit(rng.standard_normal((300, 128)))
    pages = [page_row(Page(f"a/{i}", f"page {i}")) for i in range(300)]
    queries = unit(vectors[:8] + rng.standard_normal((8, 128)) / 8)
    table = pa.Table.from_pylist(pages, PAGE_SCHEMA)
    figures = recall.recall_of_storage(table, vectors, ["a question"] * 8, queries, [64, 128], [15, 300])
    rows = {(row["dim"], row["storage"], row["search"]): row for row in figures}
    found = {key: row["recall"] for key, row in rows.items()}
    assert found[64, "float32", "exact"] == found[128, "float32", "exact"] == 1
    assert (64, "float32", "prefix, 15") not in rows and (128, "int8", "index, 15") not in rows
    for storage in ("float32", "float16", "int8"):
        assert found[128, storage, "exact"] >= 0.95
        assert found[128, storage, "prefix, 300"] == found[128, storage, "exact"]
        assert found[128, storage, "prefix, 15"] < 0.9  # random vectors: half their numbers name other neighbours
    assert rows[128, "int8", "exact"]["bytes"] < rows[128, "float32", "exact"]["bytes"]


def test_recall_of_an_indexed_table(finqa_files, tiny_backbones, tmp_path, capsys):
    file, path = finqa_files["eval"], str(tmp_path / "a.lance")
    index_pages(IndexPlan([file], path, tiny_backbones["bert"], 32, progress=False))
    command = ["measure", "recall", path, "--questions", file, "--queries", "3", "--dims"]
    assert main([*command, "16", "32"]) == 0
    printed = capsys.readouterr().out
    assert "16 float32  exact            1.000" in printed and "32 int8     exact" in printed
    assert main([*command, "32", "64"]) == 2
    assert "holds float32 vectors of 32 dimensions" in capsys.readouterr().err


def test_the_difference_of_two_tables_is_printed(finqa_files, tiny_backbones, tmp_path, capsys):
    one, same, other = (str(tmp_path / f"{name}.lance") for name in ("one", "same", "other"))
    for path, file in ((one, "eval"), (same, "eval"), (other, "train")):
        index_pages(IndexPlan([finqa_files[file]], path, tiny_backbones["bert"], 32, progress=False))
    capsys.readouterr()
    assert main(["measure", "difference", one, same]) == 0
    assert capsys.readouterr().out.startswith("36 pages in both")
    assert main(["measure", "difference", one, other]) == 2
    assert "do not hold the same pages" in capsys.readouterr().err
