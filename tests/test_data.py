"""data/: the generated sample, schemas, splitting, contamination, and errors in one line."""

import gzip
import json
import math
import re
from collections import defaultdict

import pytest

from finmatryoshka.data.decontamination import Decontamination, shingles
from finmatryoshka.data.finqa import execute_program, page_text
from finmatryoshka.data.loading import load_source, parse_records
from finmatryoshka.data.sample import generate_finqa
from finmatryoshka.data.schema import DataError
from finmatryoshka.data.splits import half_of, load_data


def test_sample_programs_give_the_answers_and_gold_rows_exist():
    for record in generate_finqa(10):
        qa, table = record["qa"], record["table"]
        result = execute_program(qa["program"], table)
        assert result == qa["exe_ans"] or result == pytest.approx(qa["exe_ans"], abs=1e-4)
        assert qa["gold_inds"] and all(int(name.split("_")[1]) < len(table) for name in qa["gold_inds"])


def test_sample_is_seeded_and_its_sides_share_no_company_and_no_text():
    assert generate_finqa(5) == generate_finqa(5) != generate_finqa(5, seed=14)
    data = load_data(["sample"])
    assert not {e.page.company for e in data.train} & {e.page.company for e in data.eval_examples}
    assert data.dropped == {"question": 0, "page": 0, "text": 0, "duplicate": 0}


def test_neighbouring_years_differ_in_figures_only():
    pages = [r for r in generate_finqa(1, years=2, topics_per_company=1) if r["id"].endswith("-1")]
    first, second = (re.sub(r"[\d.]+", "#", page_text(page)) for page in pages)
    assert first == second and page_text(pages[0]) != page_text(pages[1])


def test_a_sample_question_is_labelled_on_every_page_that_answers_it():
    """A report holds its year and the one before; a change in a year is told by that year's report alone."""
    tables, asked = {}, defaultdict(set)
    for record in generate_finqa(4):
        tables[record["filename"]] = record["table"]
        asked[record["qa"]["question"]].add(record["filename"])
    for question, pages in asked.items():
        company, _, topic = next(iter(pages)).split("/")
        years = set(re.findall(r"\b20\d\d\b", question))
        if question.startswith("by how much"):
            years.add(str(int(*years) - 1))
        reports = {page for page in tables if page.startswith(f"{company}/") and page.endswith(f"/{topic}")}
        assert pages == {page for page in reports if years <= set(tables[page][0])}


def test_finqa_schema():
    record = generate_finqa(1)[0]
    source = parse_records([record], "x.json")
    (example,) = source.examples
    assert source.schema == "finqa"
    assert example.page.text == " ".join(record["pre_text"]) + str(record["table"]) + " ".join(record["post_text"])
    assert example.fact == " ".join(record["qa"]["gold_inds"].values())
    assert example.numeric_text == f"Question: {record['qa']['question']} Context: {example.fact}"
    assert example.gold == list(record["qa"]["gold_inds"])
    assert example.facts["text_0"] == record["pre_text"][0]
    assert f"text_{len(record['pre_text'])}" in example.facts and f"table_{len(record['table']) - 1}" in example.facts
    assert example.page.year and example.page.company


def test_flat_finqa_schema_of_the_hub_reads_like_the_nested_one():
    record = generate_finqa(1)[0]
    flat = {k: v for k, v in record.items() if k != "qa"} | {
        "question": record["qa"]["question"], "answer": record["qa"]["answer"], "final_result": record["qa"]["exe_ans"],
        "gold_evidence": list(record["qa"]["gold_inds"].values()),
    }  # fmt: skip
    (a,), (b,) = parse_records([record], "n").examples, parse_records([flat], "f").examples
    assert (a.question, a.page, a.fact, a.number) == (b.question, b.page, b.fact, b.number)


def test_evidence_schema_executes_its_program():
    record = {
        "question": "q?",
        "facts": ["a fact"],
        "table": [["", "2009"], ["x", "637"]],
        "program": "divide(637, const_5)",
    }
    (example,) = parse_records([record], "x").examples
    assert example.number == pytest.approx(127.4) and example.fact == "a fact"
    assert example.page.text == "a fact" + str(record["table"])


def test_tatqa_schema(tatqa_contexts):
    source = parse_records(tatqa_contexts, "t.json")
    change, percent, span = source.examples
    assert source.schema == "tatqa" and len(source.pages) == 1
    assert change.number == -12.6 and percent.number == pytest.approx(-0.2222) and math.isnan(span.number)
    assert "the Other of Years ended 2019 is 44.1" in change.fact and span.fact == "Most contracts are fixed-price."


def test_financebench_and_corpus_schemas(tmp_path):
    bench = parse_records([{"question": "q?", "answer": "$ 5.0", "evidence": [{"evidence_text": "page one"}]}], "b")
    assert (
        bench.schema == "financebench" and bench.examples[0].page.text == "page one" and bench.examples[0].number == 5
    )
    path = tmp_path / "pages.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps({"text": "a page", "document": "X_2015", "page": 3, "company": "X", "year": 2015}) + "\n")
    source = load_source(str(path))
    assert source.schema == "corpus" and not source.examples
    assert source.pages["X_2015/3"].year == 2015


def test_evaluation_never_reaches_training_by_question_page_or_text(tmp_path):
    records = generate_finqa(3)
    held = [r for r in records if r["filename"] == records[0]["filename"]]
    same_page = records[0] | {"id": "other", "filename": "ELSE/2001/page_1.pdf"}
    same_page = same_page | {"qa": same_page["qa"] | {"question": "another question about the same text?"}}
    far = next(r for r in records if r["filename"].split("/")[0] != records[0]["filename"].split("/")[0])
    same_question = far | {"qa": far["qa"] | {"question": held[0]["qa"]["question"].upper()}}
    others = [r for r in records if r["filename"].split("/")[0] != records[0]["filename"].split("/")[0]]
    (tmp_path / "train.json").write_text(json.dumps([*held, same_page, same_question, *others]))
    (tmp_path / "eval.json").write_text(json.dumps(held))
    data = load_data([str(tmp_path / "train.json")], [str(tmp_path / "eval.json")])
    assert len(data.train) == len(others)
    assert sum(data.dropped.values()) == len(held) + 2
    runs = set().union(*(shingles(e.page.text) for e in data.eval_examples))
    assert all(runs.isdisjoint(shingles(e.page.text) | shingles(e.numeric_text)) for e in data.train)


def test_separation_sees_part_of_a_page():
    page = parse_records(generate_finqa(1)[:1], "x").examples
    decontamination = Decontamination.of(page)
    words = page[0].page.text.split()
    assert decontamination.leaks("Something else first. " + " ".join(words[10:40]))
    assert not decontamination.leaks("nothing of the kind is written here and nothing at all is shared with that page")


def test_a_page_stays_out_by_the_share_of_its_runs_not_by_one_shared_sentence():
    boilerplate = (
        "forward looking statements involve risks and uncertainties that could cause results to differ materially "
        "from ours"
    )
    own = " ".join(f"word{i}" for i in range(100))
    (example,) = parse_records([{"question": "q?", "evidence": [boilerplate + " and 1,200 more"]}], "x").examples
    decontamination = Decontamination.of([example])
    assert 0 < decontamination.shared(f"{own} {boilerplate}") < 0.2 and not decontamination.leaks(
        f"{own} {boilerplate}"
    )
    assert decontamination.leaks(f"{boilerplate} word0 word1") and decontamination.leaks(f"{boilerplate} and 1200 more")
    assert decontamination.shared("too short") == 0.0 == Decontamination.of([]).shared(boilerplate)


def test_what_is_kept_apart_is_computed_once(finqa_files):
    data = load_data([finqa_files["train"]], [finqa_files["eval"]])
    assert data.decontamination is data.decontamination


def test_sources_that_share_an_id_keep_both_pages(tmp_path, finqa_files):
    for name in ("first", "second"):
        (tmp_path / f"{name}.jsonl").write_text(
            json.dumps({"text": f"the {name} page", "document": "annual_report.pdf"})
        )
    corpus = [str(tmp_path / f"{name}.jsonl") for name in ("first", "second")]
    pages = {
        page.text: page.page_id for page in load_data([finqa_files["train"]], [finqa_files["eval"]], corpus).corpus
    }
    assert pages["the first page"] == "annual_report.pdf" != pages["the second page"]


def test_the_halves_of_an_evaluation_set_stay_what_they_are():
    expected = {"a": "choosing", "b": "choosing", "t1": "choosing", "x": "reported", "V/2008/page_17.pdf": "choosing"}
    assert {page_id: half_of(page_id) for page_id in expected} == expected


def test_local_files_hold_out_companies_beside_a_source_that_has_sides_of_its_own(finqa_files):
    data = load_data(["sample", finqa_files["train"]], holdout=0.4)
    sample, local = data.evaluation.values()
    assert sample.name == "sample" and local.examples
    assert not {e.page.company for e in local.examples} & {e.page.company for e in data.train}


def test_local_files_without_eval_data_hold_out_whole_companies(finqa_files):
    data = load_data([finqa_files["train"]], holdout=0.4)
    assert data.train and data.eval_examples
    assert not {e.page.company for e in data.train} & {e.page.company for e in data.eval_examples}


@pytest.mark.parametrize(
    "content, message",
    [
        ("not json", r"x\.json: is no JSON"),
        (json.dumps([{"a": 1}]), r"x\.json: fields a; expected FinQA"),
        ("[]", r"x\.json: no records"),
        (json.dumps([generate_finqa(1)[0], {"id": "bad", "qa": {}, "pre_text": [], "table": []}]),
         r"1 of 2 records .* record 1 \(bad\).*--skip-invalid"),
    ],
)  # fmt: skip
def test_bad_files_are_one_clear_line(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        load_source(str(tmp_path / "x.json"))
    assert "\n" not in str(error.value)


def test_skip_invalid_counts_what_it_leaves_out():
    good = generate_finqa(1)[0]
    source = parse_records(
        [good, good | {"qa": {"question": " "}}, good | {"pre_text": [], "post_text": [], "table": []}],
        "x",
        skip_invalid=True,
    )
    assert source.skipped == 2 and len(source.examples) == 1


def test_missing_file_and_unreachable_hub(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_source(str(tmp_path / "none.json"))
    with pytest.raises(DataError, match="neither a local file nor loadable from the Hub"):
        load_source("nobody/nothing-of-this-name")


def test_nothing_left_to_train_on(finqa_files):
    with pytest.raises(DataError, match="nothing left to train on"):
        load_data([finqa_files["eval"]], [finqa_files["eval"]])
