"""Transplanted questions: wordings taken from labelled questions, filled from other pages' tables, kept where BM25
finds them."""

import json
import math
import random
from types import SimpleNamespace

import pytest
from sentence_transformers import SentenceTransformer

from finmatryoshka.data.encoders import packaged_minilm
from finmatryoshka.data.loading import load_source, parse_records
from finmatryoshka.data.sample import generate_finqa
from finmatryoshka.data.schema import Example, Page
from finmatryoshka.data.splits import load_data
from finmatryoshka.data.synthesis import __main__ as command
from finmatryoshka.data.synthesis.filter import Finder
from finmatryoshka.data.synthesis.layout import as_finqa_page
from finmatryoshka.data.synthesis.tables import plain_name, read_table, shape_filing
from finmatryoshka.data.synthesis.transplant import transplanted_pairs
from finmatryoshka.data.synthesis.wordings import mark, wordings
from finmatryoshka.eval.__main__ import main as evaluate
from finmatryoshka.eval.layouts import layout_tasks
from finmatryoshka.training.datasets import synthesized, window
from finmatryoshka.training.hard_negatives import mined_negatives

# A filing's page as layout text has it: right-aligned amounts, lone currency signs, brackets, a dash, a wrapped name.
FILING = """ITEM 8. NOTES

The following table shows our inventories, as reported, in millions.

                              December 31,    2017      2016
Finished goods                            $   1,600   $   400
Raw materials                                 (250)      200
Work in process                                  —        50
Parts held for repair by
our own depots                                  40        30
Share of revenue                              12.5%      10%

Inventories of the Alpha depot rose by $1,200 million because demand for turbines was higher than we had planned.
"""
COMPANIES, DEPOTS = (
    ("ACME", "ZETA"),
    ("harbour", "mountain", "railway", "orchard", "quarry", "airport", "foundry", "lakeside"),
)
ROWS = [["", "2012", "2011", "2010"], ["net sales", "$ 80", "$ 64", "$ 60"],
        ["cost of products sold ( 1 )", "40", "32", "30"], ["total costs and expenses", "50", "36", "33"],
        ["effective tax rate", "30% ( 30 % )", "25%", "24%"]]  # fmt: skip


def labelled(question: str, number: float = math.nan, rows=ROWS, company: str = "", page_id: str = "p") -> Example:
    page = Page(page_id, f"before {rows} after", company, table=rows)
    return Example(question, page, page.text, number)


def marked(question: str, number: float = math.nan, **changes) -> tuple[str, str] | None:
    example = labelled(question, number, **changes)
    found = mark(example, read_table(example.page))
    return found and (found.text, found.operation)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Labelled questions of six made-up companies, four wordings each."""
    questions = (
        ("what was the percentage change in net sales from 2011 to 2012?", 0.25),
        ("what percentage of total costs and expenses was cost of products sold in 2012?", 0.8),
        ("in 2011 what was the ratio of net sales to cost of products sold", 2.0),
        ("what was the average cost of products sold for 2011 and 2012?", 36.0),
    )
    return [labelled(*pair, company=f"c{i}", page_id=f"c{i}") for i in range(6) for pair in questions]


def ledger(depot: str) -> str:
    """A paragraph that no other depot's page shares a run of words with."""
    return " ".join(f"the {depot} ledger {k} closes with entry {k} of {depot}" for k in range(20))


@pytest.fixture(scope="module")
def filings(tmp_path_factory) -> str:
    """A corpus file of sixteen pages of two companies, each with words and figures of its own."""
    path = tmp_path_factory.mktemp("filings") / "pages.jsonl"
    records = [
        {
            "text": FILING.replace("Alpha", depot).replace("turbines", f"{depot} goods")
            .replace("Finished", f"{depot.title()} finished").replace("Raw", f"{depot.title()} raw")
            .replace("1,600", f"1,6{i}0").replace("ITEM 8", f"{company} {depot} ITEM {i}")
            + ledger(depot),
            "company": company, "document": f"{company}_2017", "page": i,
        }
        for company in COMPANIES for i, depot in enumerate(DEPOTS)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


def test_a_filing_page_takes_finqas_shape():
    shaped = as_finqa_page(Page("p", FILING, "ACME", 2017))
    assert shaped.years == ["2016", "2017"]
    assert shaped.table == [
        ["december 31 ,", "2017", "2016"],
        ["finished goods", "$ 1600", "$ 400"],
        ["raw materials", "-250 ( 250 )", "200"],
        ["work in process", "2014", "50"],
        ["parts held for repair by our own depots", "40", "30"],
        ["share of revenue", "12.5% ( 12.5 % )", "10% ( 10 % )"],
    ]
    for row, start, raw_start in zip(shaped.table, shaped.starts, shaped.raw_starts, strict=True):
        assert shaped.page.text[start:].startswith(str(row))
        assert FILING[raw_start:].lstrip().lower().startswith(row[0].split()[0])
    assert "rose by $ 1200 million" in shaped.page.text
    assert as_finqa_page(Page("q", "Only words stand here.\nNo table at all.", "ACME", 2017)) is None


def test_a_list_of_contents_is_not_asked_about():
    contents = "Contents\n\nAnnual report   2\nOur directors   14\nRisk factors   33\nProperties   60\n"
    assert as_finqa_page(Page("p", contents)) is not None and shape_filing(Page("p", contents), raw=True) is None
    assert shape_filing(Page("p", FILING), raw=True) is not None


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("Cost of products sold (1)", "cost of products sold"),
        ("net income ( loss ) :", "net income ( loss )"),
        ("company\u2019s own shares\u2014basic", "company's own shares - basic"),
        ("Less: current portion of debt", "current portion of debt"),
        ("total", ""), ("balance at end of year", ""), ("charges related to", ""), ("2.1 definitions", ""),
        ("6.75% notes", "6.75% notes"), ("balance at december 31 2009", ""),
    ],
)  # fmt: skip
def test_names_of_line_items(cell, name):
    assert plain_name(cell) == name


@pytest.mark.parametrize(
    ("question", "number", "text", "operation"),
    [
        ("What was the percentage change in Net sales from 2011 to 2012?", 0.25,
         "what was the percentage change in {row0} from {year1} to {year0}", "(b-a)/a"),
        # half of a name's words are enough, a footnote and a plural do not count
        ("what was the cost of product in 2010 ?", 30, "what was the {row0} in {year2}", "a"),
        # the total keeps its slot apart; slots are numbered as they are said
        ("what percent of total costs and expenses was cost of products sold in 2012", 0.8,
         "what percent of {total0} was {row0} in {year0}", "b/a"),
        ("in 2011 what was the ratio of net sales to cost of products sold", 2.0,
         "in {year1} what was the ratio of {row0} to {row1}", "a/b"),
        # the page's figures do not give the label: what is asked stays open
        ("what was the change in net sales from 2011 to 2012?", 7,
         "what was the change in {row0} from {year1} to {year0}", "other"),
        ("what was the change in net sales from 2011 to 2012?", math.nan,
         "what was the change in {row0} from {year1} to {year0}", ""),
    ],
)  # fmt: skip
def test_a_wording_is_what_is_left_of_a_question(question, number, text, operation):
    assert marked(question, number) == (text, operation)


@pytest.mark.parametrize(
    "question",
    [
        "what was the percentage change in goodwill from 2011 to 2012?",  # no line item of the table
        "what was the net sales in 2009?",  # a year that its header lacks
        "what was the consumer net sales margin in 2012?",  # a name read by half
        "why did net sales increase in 2012?",  # an explanation
        "what is the total?",
    ],
)
def test_questions_that_give_no_wording(question):
    assert marked(question) is None


def test_years_are_ranked_whichever_way_the_table_lies():
    on_its_side = [["year", "gallons used", "fuel expense"], ["2014", "3644", "$ 10592"],
                   ["2013 ( a )", "3608", "11109"], ["2012", "3512", "11194"]]  # fmt: skip
    question = "what was the change in fuel expense from 2012 to 2013?"
    assert marked(question, -85, rows=on_its_side) == ("what was the change in {row0} from {year2} to {year1}", "b-a")
    read = read_table(Page("p", str(on_its_side), table=on_its_side))
    assert list(read.years) == ["2014", "2013", "2012"] and read.figure("fuel expense", read.years["2013"]) == 11109
    twice = [["", "2012", "2011", "2012"], *ROWS[1:]]  # a year over two columns: ranked, but its figure is not known
    assert read_table(Page("p", str(twice), table=twice)).years == {"2012": None, "2011": 2}


def test_a_dash_is_no_year():
    """FinQA writes a dash "2014"."""
    page = Page("p", "Dividends\n\nPreferred   —   50\nCommon   $   1,200   $   900\nTotal   $   1,200   $   900\n")
    for raw in (True, False):
        read = shape_filing(page, raw)
        assert read.years == {} and "common" in read.items
    dashes = [["", "level 1", "level 2"], ["swaps held", "2014", "2014"], ["bonds held", "$ 5", "$ 6"]]
    assert read_table(Page("q", str(dashes), table=dashes)).years == {}


def test_a_wordings_words_are_common_to_six_questions(examples):
    rare = labelled("what was the combined net sales from 2011 to 2012?", page_id="r", company="r")
    found = wordings([*examples, rare])
    assert {(w.text, w.count, w.operation) for w in found} == {
        ("what was the percentage change in {row0} from {year1} to {year0}", 6, "(b-a)/a"),
        ("what percentage of {total0} was {row0} in {year0}", 6, "b/a"),
        ("in {year1} what was the ratio of {row0} to {row1}", 6, "a/b"),
        ("what was the average {row0} for {year1} and {year0}", 6, "mean"),
    }
    assert not any("average" in wording.text for wording in wordings(examples[:20]))  # five questions say it
    # ... of more than one company or two
    one_company = [labelled(e.question, e.number, company="one") for e in examples]
    assert not wordings(one_company)


def test_a_filled_question_names_rows_of_its_page_and_its_number_answers_it(examples, filings):
    """Against values written by hand."""
    pages = list(load_source(filings).pages.values())
    pairs = transplanted_pairs(examples, pages, 200, seed=3)
    assert len(pairs) > 60 and len({pair.question for pair in pairs}) == len(pairs)
    goods = {pair for pair in map(lambda p: p.question, pairs) if "finished goods" in pair}
    assert goods
    for pair in pairs:
        depot = pair.page.text.split("ITEM")[0].split("item")[0].split()[1]
        place = DEPOTS.index(depot)
        assert (
            depot in pair.question
            or "work in process" in pair.question
            or "parts held" in pair.question
            or "share of" in pair.question
        )
        assert pair.fact and any(word in pair.fact for word in ("goods", "materials", "process", "parts", "share"))
        assert pair.numeric_text == f"Question: {pair.question} Context: {pair.fact}"
        evidence = pair.page.text[pair.evidence_start :].lstrip("[' ").lower()
        assert evidence.split()[0] in (depot, "work", "parts", "share")
        a, b = 400.0, 1600.0 + 10 * place
        if f"percentage change in {depot} finished goods" in pair.question:
            assert pair.number == pytest.approx((b - a) / a)
        if f"average {depot} finished goods" in pair.question:
            assert pair.number == pytest.approx((a + b) / 2)
    assert any(math.isfinite(pair.number) for pair in pairs)


def test_an_increase_is_asked_about_where_the_figure_rose(filings):
    """No line item of these pages falls between two positive figures."""
    pages = list(load_source(filings).pages.values())
    asked = {}
    for word, number in (("increase", 0.25), ("decrease", -0.25)):
        question = f"what was the percentage {word} in net sales from 2011 to 2012?"
        rows = [ROWS[0], ["net sales", "$ 80" if word == "increase" else "$ 48", "$ 64", "$ 60"]]
        examples = [labelled(question, number, rows, f"c{i}", f"c{i}") for i in range(6)]
        assert wordings(examples)[0].operation == "(b-a)/a"
        asked[word] = transplanted_pairs(examples, pages, 50)
    assert asked["increase"] and all(pair.number > 0 for pair in asked["increase"])
    assert not asked["decrease"]


def test_both_shapes_and_tables_of_labelled_pages_are_asked_about(examples, filings):
    pages = [*load_source(filings).pages.values(), examples[0].page]
    ids = {page.page_id: page.text for page in pages}
    pairs = transplanted_pairs(examples, pages, 400, seed=3)
    kinds = {
        "labelled" if pair.page.table else "raw" if pair.page.text == ids[pair.page.page_id] else "shaped"
        for pair in pairs
    }
    assert kinds == {"labelled", "raw", "shaped"}
    for share, kind in ((0.0, False), (1.0, True)):
        pairs = transplanted_pairs(examples, pages[:-1], 20, seed=3, raw_share=share)
        assert pairs and all((pair.page.text == ids[pair.page.page_id]) == kind for pair in pairs)


def test_a_seed_decides(examples, filings):
    pages = list(load_source(filings).pages.values())
    once, again, other = (transplanted_pairs(examples, pages, 30, seed=seed) for seed in (5, 5, 6))
    assert repr(once) == repr(again) != repr(other) and len(once) == 30  # NaN is not NaN
    assert transplanted_pairs([], pages, 30) == [] == transplanted_pairs(examples, [Page("p", "no table")], 30)


def test_bm25_keeps_questions_that_tell_their_page():
    pages = [Page(str(i), f"sales of the {depot} depot in 2017") for i, depot in enumerate(DEPOTS)]
    finder = Finder(pages, among=2)
    assert finder.finds(["what were the quarry sales?", "what were the quarry sales?"], ["4", "3"]) == [True, False]
    assert finder.finds([], []) == []
    assert Finder(pages[:1], among=10).finds(["anything"], ["0"]) == [True]


def test_the_command_prints_questions_with_their_page(filings, finqa_files, capsys):
    command.main(["--data", finqa_files["train"], "--pages", filings, "--count", "20", "--show", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("279 questions gave") and len(lines) == 6
    assert all(line.startswith("- ") and "? — " in line for line in lines[1:])
    with pytest.raises(SystemExit):
        command.main(["--data", "missing.json"])


def test_no_evaluation_text_is_made_into_questions_and_pages_set_aside_stay_aside(filings, finqa_files, tmp_path):
    records = json.loads(open(finqa_files["eval"]).read())
    records[0]["pre_text"] = [ledger(DEPOTS[3])]
    (tmp_path / "eval.json").write_text(json.dumps(records))
    arguments = SimpleNamespace(synthesize=[filings])
    clean = load_data([finqa_files["train"]], [finqa_files["eval"]])
    data = load_data([finqa_files["train"]], [str(tmp_path / "eval.json")])
    leaked = {f"{company}_2017/3" for company in COMPANIES}
    everything = [p for aside in (False, True) for p in synthesized(clean, arguments, 200, 1, set_aside=aside)]
    kept, aside = (synthesized(data, arguments, 200, 1, set_aside=a) for a in (False, True))
    assert leaked <= {pair.page.page_id for pair in everything}
    assert kept and aside
    assert leaked.isdisjoint(pair.page.page_id for pair in [*kept, *aside])
    assert not {pair.page.page_id for pair in kept} & {pair.page.page_id for pair in aside}
    assert {example.page.page_id for example in data.train} & {pair.page.page_id for pair in kept}
    # A question that the evaluation asks is asked of no page.
    records[0]["qa"]["question"] = kept[0].question
    (tmp_path / "eval.json").write_text(json.dumps(records))
    data = load_data([finqa_files["train"]], [str(tmp_path / "eval.json")])
    assert kept[0].question not in {pair.question for pair in synthesized(data, arguments, 200, 1, set_aside=False)}


def test_a_window_holds_its_anchor():
    text = " ".join(f"w{i}" for i in range(100))
    for anchor in (0, text.index("w50"), text.index("w99")):
        for seed in range(20):
            cut = window(text, 20, anchor, random.Random(seed))
            assert cut in text and len(cut.split()) == 20
            assert text[anchor:].split()[0] in cut.split()
    assert window(text, 200, 0, random.Random(0)) == text


def test_mined_negatives_are_the_best_ranked_wrong_pages():
    model = SentenceTransformer(packaged_minilm())
    pairs = parse_records(generate_finqa(2), "x.json").examples
    mined = mined_negatives(model, pairs)
    pages = {pair.page.page_id: pair.page for pair in pairs}
    ids = list(pages)
    right = {question: {p.page.page_id for p in pairs if p.question == question} for question, _ in mined}
    similarity = model.similarity(
        model.encode_query([question for question, _ in mined]), model.encode_document([pages[i].text for i in ids])
    )
    assert len(mined) > 0.5 * len(pairs)
    for (question, page_id), scores in zip(mined, similarity.tolist()):
        bar = 0.95 * min(score for name, score in zip(ids, scores) if name in right[question])
        allowed = [score for name, score in zip(ids, scores) if name not in right[question] and score <= bar + 1e-6]
        chosen = mined[question, page_id]
        assert chosen.page_id not in right[question]
        assert scores[ids.index(chosen.page_id)] == pytest.approx(max(allowed), abs=1e-5)


def test_no_negative_at_all_is_one_line(trained_folders, finqa_files):
    model = SentenceTransformer(trained_folders["bert"])
    with pytest.raises(ValueError, match="no question has a wrong page"):
        mined_negatives(model, load_source(finqa_files["train"]).examples[:1])


def test_one_set_of_questions_over_pages_in_both_shapes(examples, filings, finqa_files, tiny_backbones, capsys):
    pages = list(load_source(filings).pages.values())
    shaped, raw = layout_tasks(examples, pages, 20, 1)
    assert shaped.queries == raw.queries and shaped.relevant == raw.relevant and 0 < len(raw.queries) <= 20
    assert raw.corpus == {page.page_id: page.text for page in pages if page.page_id in shaped.corpus}
    assert all("[[" in text for text in shaped.corpus.values()) and shaped.corpus.keys() == raw.corpus.keys()
    given = ["layouts", tiny_backbones["bert"], "--data", finqa_files["train"], "--dims", "16", "--pages"]
    assert evaluate([*given, filings, "--count", "5"]) == 0
    printed = capsys.readouterr().out
    assert "FinQA's shape" in printed and "layout text" in printed and "BM25" in printed
    assert evaluate([*given, finqa_files["eval"]]) == 2
    assert "no page has a table to ask about" in capsys.readouterr().err
