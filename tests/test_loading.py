"""data/loading.py and data/reading.py: files as people keep them load or are named in one line."""

import csv
import gzip
import json
import logging
import math

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finmatryoshka.data.finqa import linearise_row
from finmatryoshka.data.loading import load_source, parse_records
from finmatryoshka.data.sample import generate_finqa
from finmatryoshka.data.schema import DataError
from finmatryoshka.data.splits import load_data

RECORDS = generate_finqa(2, questions_per_page=1)
FLAT = [
    {key: value for key, value in record.items() if key != "qa"}
    | {"question": record["qa"]["question"], "answer": str(record["qa"]["answer"]),
       "gold_evidence": list(record["qa"]["gold_inds"].values())}
    for record in RECORDS
]  # fmt: skip


def as_csv(path):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FLAT[0])
        writer.writeheader()
        writer.writerows({k: v if isinstance(v, str) else json.dumps(v) for k, v in record.items()} for record in FLAT)


WRITERS = {
    "a.json": lambda path: path.write_text(json.dumps(FLAT)),
    "bom.json": lambda path: path.write_text("\ufeff" + json.dumps(FLAT), encoding="utf-8"),
    "a.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, FLAT)) + "\n"),
    "windows.jsonl": lambda path: path.write_bytes("\r\n".join(map(json.dumps, FLAT)).encode()),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress("\n".join(map(json.dumps, FLAT)).encode())),
    "train.json": lambda path: path.write_text(json.dumps({"train": FLAT})),
    "both.json": lambda path: path.write_text(json.dumps({"validation": FLAT[:1], "train": FLAT}, indent=1)),
    "a.csv": as_csv,
    "a.parquet": lambda path: Dataset.from_list(FLAT).to_parquet(path),
    "saved": lambda path: Dataset.from_list(FLAT).save_to_disk(path),
    "saved-splits": lambda path: DatasetDict(
        {"train": Dataset.from_list(FLAT), "test": Dataset.from_list(FLAT[:1])}
    ).save_to_disk(path),
}  # fmt: skip


def told(source):
    return [(e.question, e.page, e.fact, e.gold, e.facts) for e in source.examples]


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_reads_alike(tmp_path, name):
    WRITERS[name](tmp_path / name)
    source = load_source(str(tmp_path / name))
    assert told(source) == told(parse_records(RECORDS, "x")) and all(e.gold for e in source.examples)
    assert len(source.sha256) == 64


def test_parquet_gives_every_record_the_ids_of_all_records(tmp_path):
    records = [record | {"qa": record["qa"] | {"exe_ans": str(record["qa"]["exe_ans"])}} for record in RECORDS]
    Dataset.from_list(records).to_parquet(tmp_path / "a.parquet")
    examples = load_source(str(tmp_path / "a.parquet")).examples
    assert [set(example.gold) for example in examples] == [set(record["qa"]["gold_inds"]) for record in RECORDS]
    assert len({len(example.gold) for example in examples}) == 2


def test_a_split_of_a_local_source_is_named_behind_a_colon(tmp_path):
    for name in ("both.json", "saved-splits"):
        WRITERS[name](tmp_path / name)
    assert len(load_source(f"{tmp_path / 'both.json'}:validation").examples) == 1
    assert len(load_source(f"{tmp_path / 'saved-splits'}:test").examples) == 1
    with pytest.raises(DataError, match=r"has no split 'validation' but train, test; name one as .*:train"):
        load_source(str(tmp_path / "saved-splits"), "validation")


def test_one_pretty_printed_object_and_a_line_separator_inside_a_text(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(RECORDS[0], indent=2))
    assert len(load_source(str(tmp_path / "one.json")).examples) == 1
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in ("a page\u2028of two lines", "another\x85page")]
    (tmp_path / "pages.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pages = load_source(str(tmp_path / "pages.jsonl")).pages.values()
    assert [page.text for page in pages] == ["a page\u2028of two lines", "another\x85page"]


BROKEN = {
    "line.jsonl": (b'{"text": "a"}\n{"text": "b"}\n{"text": "c"\n{"text": "d"}\n', "line 3, column 13"),
    "first.jsonl": (b'{"text": "a"\n{"text": "b"}\n', "line 1"),
    "huge.jsonl": (b'{"text": "a"}\n{"text": ' + b"9" * 5000 + b"}", "line 2: .*digits"),
    "deep.json": (b"[" * 100000, "holds JSON that cannot be read"),
    "cut.jsonl.gz": (gzip.compress(json.dumps(FLAT).encode())[:-20], "no whole gzip file"),
    "plain.json.gz": (b'[{"text": "a"}]', "no whole gzip file"),
    "latin.json": ('[{"text": "é"}]'.encode("latin-1"), "not UTF-8"),
    "cut.parquet": (b"PAR1", "no whole PARQUET file"),
    "empty.csv": (b"", "no whole CSV file"),
    "empty.jsonl": (b"\n", "no records"),
    "strings.json": (b'["a", "b"]', "records without fields"),
    "numbers.jsonl": (b'{"text": "a"}\n5\n', "record 1 .int in place of a record"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_source(str(tmp_path / name))
    assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["none.parquet", "none.csv", "a/none.jsonl.gz", "none.tsv", "data/finqa/none", "~/none", "x.zip",
             "none.json:train"],
)  # fmt: skip
def test_a_missing_file_is_a_missing_file(name):
    with pytest.raises(DataError, match="no such file"):
        load_source(name)


def test_a_folder_that_datasets_did_not_save(tmp_path):
    with pytest.raises(DataError, match="is a folder that `datasets` did not save"):
        load_source(str(tmp_path))


def test_pages_with_one_id_and_different_texts_are_pages_of_their_own(caplog):
    records = [
        record | {"filename": "annual_report.pdf", "id": f"q-{i}"}
        for i, record in enumerate(generate_finqa(2))
        if i in (0, 1, 9)
    ]
    with caplog.at_level(logging.WARNING):
        source = parse_records(records, "mine.json")
    first, same, other = source.examples
    assert first.page is same.page and first.page.page_id == "annual_report.pdf"
    assert other.page.text == parse_records([records[2]], "x").examples[0].page.text != first.page.text
    assert set(source.pages) == {first.page.page_id, other.page.page_id}
    assert caplog.messages == ["mine.json: 1 pages have the id of a page with another text: each is kept as its own"]
    corpus = parse_records([{"text": "a", "page": 1}, {"text": "b", "page": 1}, {"text": "a", "page": 1}], "c")
    assert [page.text for page in corpus.pages.values()] == ["a", "b"]


def test_lists_stored_as_text():
    record, table = RECORDS[0], RECORDS[0]["table"]
    (plain,) = parse_records([record], "x").examples
    as_text = record | {
        "qa": json.dumps(record["qa"]),
        "table": repr(table),
        "pre_text": json.dumps(record["pre_text"]),
    }
    assert told(parse_records([as_text], "x")) == [(plain.question, plain.page, plain.fact, plain.gold, plain.facts)]
    (example,) = parse_records([record | {"pre_text": "one text .", "post_text": None}], "x").examples
    assert example.page.text == "one text ." + str(table) and example.facts["text_0"] == "one text ."
    for gold in ('{"table_1": "a row"}', '["a row"]', ["a row"], {"table_1": "a row", "text_9": None}):
        (example,) = parse_records([record | {"qa": record["qa"] | {"gold_inds": gold}}], "x").examples
        assert example.fact == "a row"
    for gold in ('["table_1", "text_0"]', ["table_1", "text_0"], {"table_1": "", "text_0": None, "table_2": None}):
        (example,) = parse_records([record | {"qa": record["qa"] | {"gold_inds": gold}}], "x").examples
        assert example.gold[0] == "table_1" and example.fact.startswith(linearise_row(table, 1))


def test_an_empty_cell_is_empty_and_a_number_is_written_as_it_prints(tatqa_contexts):
    record = RECORDS[0] | {"table": [[None, 2019], ["net sales", 5.5], ["costs", None]]}
    (example,) = parse_records([record], "x").examples
    assert str([["", "2019"], ["net sales", "5.5"], ["costs", ""]]) in example.page.text
    context = tatqa_contexts[0]
    table = [["", "2019", "2018"], ["Fixed price", 1452.4, None], ["Other", 44.1, 56.7], []]
    source = parse_records([context | {"table": {"uid": "t", "table": table}}], "x")
    assert "the Other of 2019 is 44.1" in source.examples[0].fact and source.examples[0].number == -12.6


def test_answers_stands_in_for_answer():
    bare = {key: value for key, value in FLAT[0].items() if key != "answer"}
    for answers, number in (("14.6%", 0.146), (["14.6%"], 0.146), (["a", "b"], math.nan)):
        (example,) = parse_records([bare | {"answers": answers}], "x").examples
        assert example.number == pytest.approx(number, nan_ok=True)


def test_convfinqa_two_questions_and_conversations():
    page = {key: RECORDS[0][key] for key in ("pre_text", "post_text", "table", "filename", "id")}
    two = page | {"qa_0": RECORDS[0]["qa"], "qa_1": RECORDS[0]["qa"] | {"question": "and then?"}, "annotation": {}}
    assert [e.question for e in parse_records([two], "x").examples] == [RECORDS[0]["qa"]["question"], "and then?"]
    turns = page | {"annotation": {"dialogue_break": ["what in 2019?", "and in 2018?"], "exe_ans_list": [5.0, 3.0]}}
    first, second = parse_records([turns], "x").examples
    assert (second.question, second.number, first.number) == ("what in 2019? and in 2018?", 3.0, 5.0)
    turn = page | {"annotation": {"cur_dial": ["what in 2019?"], "exe_ans": 5.0, "gold_ind": {"table_1": "a row"}}}
    (example,) = parse_records([turn], "x").examples
    assert (example.question, example.number, example.fact) == ("what in 2019?", 5.0, "a row")


def test_a_program_tells_the_evidence_where_none_is_named():
    record = RECORDS[0] | {
        "table": [["in millions", "2019", "2018"], ["net sales", "5829", "5735"], ["costs", "31", "7"]]
    }
    qa = {"question": "what was the change?", "program": "subtract(5829, 5735), divide(#0, 5735)", "exe_ans": 0.01639}
    (example,) = parse_records([record | {"qa": qa}], "x").examples
    assert example.gold == ["table_1"] and example.gold_derived
    assert example.fact == "in millions the net sales of 2019 is 5829 ; the net sales of 2018 is 5735 ;"
    (example,) = parse_records([record | {"qa": qa | {"program": "subtract(5829, "}}], "x").examples
    assert not example.gold and not example.gold_derived and example.fact == example.page.text


def test_a_source_without_a_number_is_not_trained_on(tmp_path, finqa_files):
    words = [record | {"qa": {"question": record["qa"]["question"], "answer": "see the page"}} for record in RECORDS]
    (tmp_path / "words.json").write_text(json.dumps(words))
    with pytest.raises(DataError, match=r"words\.json: none of \d+ answers is a number"):
        load_data([str(tmp_path / "words.json")], [finqa_files["eval"]])
    assert load_data([str(tmp_path / "words.json"), finqa_files["train"]], [finqa_files["eval"]]).train


ODD = st.sampled_from(
    [None, "", "x", "[", "{}", 5, 1.5, True, [], {}, [None], [5], [[]], [[None]], {"a": 1}, [{"a": []}], {"text_0": 5},
     "[1, [2]]"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_whatever_a_field_holds_a_record_loads_or_its_field_is_named(tatqa_contexts, data):
    """Any field of any schema replaced by something odd: a `DataError` of one line, never a traceback."""
    bench = {"question": "q?", "answer": "5", "evidence": [{"evidence_text": "page"}], "doc_name": "d", "company": "c"}
    corpus = {"text": "t", "document": "d", "page": 1, "company": "c", "year": 2015}
    facts = {"question": "q?", "facts": ["a"], "table": [["", "1"]], "program": "add(1, 2)"}
    conversation = RECORDS[0] | {"qa": None, "annotation": {"dialogue_break": ["a?"], "exe_ans_list": [1]}}
    record = data.draw(st.sampled_from([RECORDS[0], FLAT[0], tatqa_contexts[0], bench, corpus, facts, conversation]))
    record = json.loads(json.dumps(record))
    target = data.draw(st.sampled_from(places(record)))
    holder = record
    for key in target[:-1]:
        holder = holder[key]
    holder[target[-1]] = data.draw(ODD)
    try:
        parse_records([record], "x.json")
    except DataError as error:
        assert str(error).startswith("x.json: ") and "\n" not in str(error) and "object" not in str(error)


def places(value, path=()) -> list[tuple]:
    """The way to everything inside a record."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, inner in items for way in [(*path, key), *places(inner, (*path, key))]]
