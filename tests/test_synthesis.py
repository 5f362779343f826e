"""Questions made from filing pages, mined negatives and the laying out of batches: what most training steps see."""

import json
import random
from collections import Counter
from types import SimpleNamespace

import pytest
from sentence_transformers import SentenceTransformer

from finmatryoshka.data.decontamination import shingles
from finmatryoshka.data.loading import load_source, parse_records
from finmatryoshka.data.sample import generate_finqa
from finmatryoshka.data.schema import Page
from finmatryoshka.data.splits import load_data
from finmatryoshka.data.synthesis.filter import synthetic_pairs
from finmatryoshka.data.synthesis.layout import as_finqa_page
from finmatryoshka.data.synthesis.questions import table_question
from finmatryoshka.training.backbone import packaged_minilm
from finmatryoshka.training.datasets import batches_without_repeats, synthesized, window
from finmatryoshka.training.hard_negatives import mined_negatives

# A filing's page as layout text has it: right-aligned amounts, lone currency signs, brackets, a dash.
FILING = """ITEM 8. NOTES

The following table shows our inventories, as reported, in millions.

                              December 31,    2017      2016
Finished goods                            $   1,600   $   400
Raw materials                                 (250)      200
Work in process                                  —        50
Share of revenue                              12.5%      10%

Inventories of the Alpha depot rose by $1,200 million because demand for turbines was higher than we had planned.
"""
COMPANIES, DEPOTS = (
    ("ACME", "ZETA"),
    ("harbour", "mountain", "railway", "orchard", "quarry", "airport", "foundry", "lakeside"),
)


@pytest.fixture(scope="module")
def filings(tmp_path_factory) -> str:
    """A corpus file of sixteen pages of two companies, each with words and figures of its own."""
    path = tmp_path_factory.mktemp("filings") / "pages.jsonl"
    records = [
        {
            "text": FILING.replace("Alpha", depot).replace("turbines", f"{depot} goods").replace("Finished", f"{depot.title()} finished")
            .replace("1,600", f"1,{6 + i}00").replace("ITEM 8", f"{company} {depot} ITEM {i}"),
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
        ["share of revenue", "12.5% ( 12.5 % )", "10% ( 10 % )"],
    ]
    assert shaped.page.text[shaped.anchor :].startswith(str(shaped.table))
    assert "rose by $ 1200 million" in shaped.page.text
    assert as_finqa_page(Page("q", "Only words stand here.\nNo table at all.", "ACME", 2017)) is None


def test_a_table_questions_number_answers_it():
    """Every wording, against values written by hand."""
    shaped = as_finqa_page(Page("p", FILING, "ACME", 2017))
    values = {"finished goods": {"2016": 400.0, "2017": 1600.0}, "raw materials": {"2016": 200.0, "2017": -250.0}}
    seen = set()
    for seed in range(600):
        question, fact, number = table_question(shaped, random.Random(seed))
        items = [item for item in values if item in question]
        years = [year for year in ("2016", "2017") if year in question]
        if len(items) == 1 and years == ["2016", "2017"]:
            a, b = values[items[0]]["2016"], values[items[0]]["2017"]
            assert fact.count("2016") == 1 and items[0] in fact
            if "percent" in question:
                assert number == pytest.approx((b - a) / abs(a))
            elif "average" in question:
                assert number == pytest.approx((a + b) / 2)
            elif "combined" in question:
                assert number == pytest.approx(a + b)
            else:
                assert number == pytest.approx(b - a)
            seen.add(question)
        elif len(items) == 2 and len(years) == 1 and "ratio" in question:
            first, second = sorted(items, key=question.index)
            assert number == pytest.approx(values[first][years[0]] / values[second][years[0]])
            assert first in fact and second in fact
            seen.add(question)
    assert len(seen) >= 10


def test_pairs_are_seeded_ask_about_their_page_and_keep_companies_together(filings):
    pages = list(load_source(filings).pages.values())
    pairs = synthetic_pairs(pages, 12, seed=5)
    assert (
        repr(pairs) == repr(synthetic_pairs(pages, 12, seed=5)) != repr(synthetic_pairs(pages, 12, seed=6))
    )  # NaN is not NaN
    for pair in pairs:
        if pair.fact:  # a table's question names a row of that table
            assert any(
                row in pair.question
                for row in ("finished goods", "raw materials", "work in process", "share of revenue")
            )
    companies = [pair.page.company for pair in pairs]
    changes = sum(a != b for a, b in zip(companies, companies[1:]))
    assert set(companies) == set(COMPANIES) and changes <= 2


def test_no_evaluation_text_is_made_into_questions_and_pages_set_aside_stay_aside(filings, finqa_files, tmp_path):
    records = json.loads(open(finqa_files["eval"]).read())
    filing = json.loads(open(filings).read().splitlines()[3])
    # A third of the page's runs of 13 words, each of which names the depot.
    shared = "in process 50 share of revenue 12.5% 10% inventories of the railway depot rose by $ 1200 million because demand for railway goods was higher than we had planned"
    records[0]["pre_text"] = [shared]
    (tmp_path / "eval.json").write_text(json.dumps(records))
    arguments = SimpleNamespace(synthesize=[filings])
    clean = load_data([finqa_files["train"]], [finqa_files["eval"]])
    data = load_data([finqa_files["train"]], [str(tmp_path / "eval.json")])
    everything = [
        p.page.text for aside in (False, True) for p in synthesized(clean, arguments, 200, 1, set_aside=aside)
    ]
    kept, aside = (synthesized(data, arguments, 200, 1, set_aside=a) for a in (False, True))
    assert filing["company"] == "ACME" and any(shingles(shared) & shingles(text) for text in everything)
    assert kept and aside
    assert not any(shingles(shared) & shingles(pair.page.text) for pair in [*kept, *aside])
    assert not {pair.page.page_id for pair in kept} & {pair.page.page_id for pair in aside}


def test_a_window_holds_its_anchor():
    text = " ".join(f"w{i}" for i in range(100))
    for anchor in (0, text.index("w50"), text.index("w99")):
        for seed in range(20):
            cut = window(text, 20, anchor, random.Random(seed))
            assert cut in text and len(cut.split()) == 20
            assert text[anchor:].split()[0] in cut.split()
    assert window(text, 200, 0, random.Random(0)) == text


def test_no_batch_holds_a_page_twice_not_even_as_a_negative():
    rng = random.Random(3)
    keys = [tuple(rng.sample(range(40), 2)) for _ in range(150)]
    order = batches_without_repeats(keys, 8)
    assert sorted(order) == list(range(150))
    whole = [order[i : i + 8] for i in range(0, 100, 8)]  # the last ones may be short of rows that fit
    assert all(max(Counter(key for i in batch for key in keys[i]).values()) == 1 for batch in whole)


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
        bar = scores[ids.index(page_id)] * 0.95
        allowed = [score for name, score in zip(ids, scores) if name not in right[question] and score <= bar + 1e-6]
        chosen = mined[question, page_id]
        assert chosen.page_id not in right[question]
        assert scores[ids.index(chosen.page_id)] == pytest.approx(max(allowed), abs=1e-5)


def test_no_negative_at_all_is_one_line(trained_folders, finqa_files):
    model = SentenceTransformer(trained_folders["bert"])
    with pytest.raises(ValueError, match="no question has a wrong page"):
        mined_negatives(model, load_source(finqa_files["train"]).examples[:1])
