"""Files to a table: what is read, what is refused in one line, and that a killed run ends in the table of one run."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from finmatryoshka.corpus.__main__ import main
from finmatryoshka.corpus.embedding import Embedder
from finmatryoshka.corpus.index import IndexPlan, index_pages
from finmatryoshka.corpus.pages import Skipped, read_pages
from finmatryoshka.corpus.schema import CorpusError
from finmatryoshka.corpus.table import locked, open_corpus
from finmatryoshka.data.schema import DataError

from conftest import files_of_at_most


@pytest.fixture(scope="module")
def model(tiny_backbones) -> str:
    return tiny_backbones["bert"]


@pytest.fixture
def plan(model, finqa_files, tmp_path):
    def make(*files: str, **changes) -> IndexPlan:
        values = {"output": str(tmp_path / "corpus.lance"), "model": model, "dim": 32, "progress": False} | changes
        return IndexPlan(list(files) or [finqa_files["eval"]], **values)

    return make


def rows_of(path: str) -> list[dict]:
    return open_corpus(path)[0].to_arrow().sort_by("id").to_pylist()


def write_jsonl(path, records: list[dict]) -> str:
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


def test_index_writes_every_page_with_the_models_unit_vector(plan):
    from sentence_transformers import SentenceTransformer

    report = index_pages(plan(precision="fp32"))
    rows = rows_of(plan().output)
    assert report.written == report.rows == len(rows) == 36
    assert {rows[0]["document"], rows[0]["page"]} == set(rows[0]["id"].rpartition("/")[::2])
    assert rows[0]["company"] and rows[0]["year"] > 2000
    expected = SentenceTransformer(plan().model, truncate_dim=32).encode_document(
        [row["text"] for row in rows], normalize_embeddings=True
    )
    np.testing.assert_allclose(np.array([row["vector"] for row in rows]), expected, atol=1e-5)


def test_only_new_and_changed_pages_are_embedded_again(plan, tmp_path):
    records = [{"document": "a", "page": i, "text": f"net sales were {i} millions"} for i in range(5)]
    file = write_jsonl(tmp_path / "a.jsonl", records)
    assert index_pages(plan(file)).written == 5
    records[2]["text"] = "operating income was 7"
    records.append({"document": "a", "page": 5, "text": "a page more"})
    report = index_pages(plan(write_jsonl(tmp_path / "a.jsonl", records)))
    assert (report.written, report.unchanged, report.rows) == (2, 4, 6)
    texts = {row["id"]: row["text"] for row in rows_of(plan().output)}
    assert texts["a/2"] == "operating income was 7" and texts["a/5"] == "a page more"


@pytest.mark.parametrize("storage, tolerance", [("float16", 1e-3), ("int8", 0.02)])
def test_smaller_storage_keeps_the_direction(plan, storage, tolerance):
    from finmatryoshka.corpus.vectors import as_matrix

    small, full = plan(storage=storage), plan(output=plan().output.replace("corpus.lance", "full.lance"))
    index_pages(small), index_pages(full)
    vectors = [as_matrix(open_corpus(p.output)[0].to_arrow().sort_by("id")["vector"]) for p in (small, full)]
    assert (1 - (vectors[0] * vectors[1]).sum(axis=1)).max() < tolerance


KILLED = """
import os, signal, sys
from finmatryoshka.corpus import index
index.CHUNK_PAGES = 8
commits, write, encode = 2, index.write_rows, index.Embedder.encode_pages
def write_and_die(*arguments):
    global commits
    table, commits = write(*arguments), commits - 1
    return table
def encode_or_die(self, texts):
    if commits == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(self, texts)
index.write_rows, index.Embedder.encode_pages = write_and_die, encode_or_die
index.index_pages(index.IndexPlan([sys.argv[1]], sys.argv[2], sys.argv[3], 32, progress=False))
"""


def test_killed_then_stopped_and_run_again_gives_the_table_of_one_run(plan, finqa_files, tmp_path, monkeypatch):
    killed = str(tmp_path / "killed.lance")
    command = [sys.executable, "-c", KILLED, finqa_files["eval"], killed, plan().model]
    assert subprocess.run(command, capture_output=True).returncode == -9
    assert open_corpus(killed)[0].count_rows() == 16
    monkeypatch.setattr("finmatryoshka.corpus.index.CHUNK_PAGES", 8)
    encode, chunks = Embedder.encode_pages, iter([True, False])

    def stopped_at_the_second(self, texts):
        if not next(chunks):
            raise KeyboardInterrupt
        return encode(self, texts)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Embedder, "encode_pages", stopped_at_the_second)
        index_pages(plan(output=killed))
    assert open_corpus(killed)[0].count_rows() == 24
    assert main(["search", killed, "net sales", "--model", plan().model]) == 2  # not finished: says so
    report = index_pages(plan(output=killed))
    assert (report.written, report.unchanged) == (12, 24)
    index_pages(plan())
    assert rows_of(killed) == rows_of(plan().output)
    assert main(["search", killed, "net sales", "--model", plan().model]) == 0


def test_indices_that_were_not_all_built_are_built_by_the_next_run(plan, monkeypatch):
    from lancedb.table import LanceTable

    def columns():
        return {index.columns[0] for index in open_corpus(plan().output)[0].list_indices()}

    index_pages(plan())
    assert columns() == {"text"}
    build, calls = LanceTable.create_index, iter(range(2))

    def stopped_at_the_third(self, *args, **options):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return build(self, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LanceTable, "create_index", stopped_at_the_third)
        index_pages(plan(approximate_from=1))  # no page is new, but there are indices to build
    assert main(["search", plan().output, "net sales", "--model", plan().model]) == 2  # not finished: says so
    assert index_pages(plan(approximate_from=1)).written == 0
    assert columns() == {"text", "id", "digest", "company", "year", "vector"}
    assert main(["search", plan().output, "net sales", "--model", plan().model]) == 0


def test_a_first_write_that_did_not_end_is_begun_again(plan):
    (Path(plan().output) / "data").mkdir(parents=True)
    (Path(plan().output) / "data" / "part.lance").write_bytes(b"half a page")
    assert index_pages(plan()).rows == 36


def test_files_of_one_name_in_two_folders_are_two_documents(plan, tmp_path):
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "10-K.txt").write_text(f"net sales of {folder}")
        index_pages(plan(str(tmp_path / folder)))
    assert [row["text"] for row in rows_of(plan().output)] == ["net sales of one", "net sales of other"]


def test_another_model_or_dimension_is_refused_with_both_names(plan, tiny_backbones, capsys):
    index_pages(plan())
    for changes, difference in (({"dim": 16}, "dim"), ({"model": tiny_backbones["nomic_bert"]}, "weights")):
        with pytest.raises(CorpusError, match=difference) as refused:
            index_pages(plan(**changes))
        assert plan().model in str(refused.value) and plan(**changes).model in str(refused.value)
    assert "16 dimensions" in str(pytest.raises(CorpusError, index_pages, plan(dim=16)).value)
    arguments = ["search", plan().output, "net sales", "--model", tiny_backbones["nomic_bert"]]
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and tiny_backbones["nomic_bert"] in error


def test_a_table_has_one_writer(plan):
    with locked(plan().output):
        with pytest.raises(CorpusError, match="another index command"):
            index_pages(plan())


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("empty.jsonl", '{"document": "a", "page": 1, "text": "  "}', "empty.jsonl"),
        ("number.jsonl", '{"document": "a", "page": 1, "text": 5}', "number.jsonl"),
        ("fields.jsonl", '{"title": "a"}', "fields title"),
        ("blank.txt", " \n\f ", "holds no text"),
        ("latin.txt", b"\xe4\xf6", "not UTF-8"),
        ("broken.pdf", "no PDF at all", "no readable PDF"),
        ("broken.parquet", "PAR1", "no whole Parquet file"),
    ],
)
def test_bad_files_are_one_line_and_leave_nothing(name, content, message, plan, tmp_path, capsys):
    file = tmp_path / "in" / name
    file.parent.mkdir()
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["index", str(file), "--output", plan().output, "--model", plan().model, "--dim", "32"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["index", "missing.jsonl", "--output", "a.lance", "--dim", "32"], "missing.jsonl: no such file"),
        (["index", "sample", "--output", "a"], "named like corpus.lance"),
        (["index", "sample", "--output", "a.lance", "--dim", "65"], "64 dimensions wide"),
        (["search", "none.lance", "net sales"], "none.lance: no such table"),
        (["questions", "missing.txt"], "missing.txt: cannot be read"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, message, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--model", model]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_keeps_what_was_committed(plan, finqa_files, monkeypatch, capsys):
    """A limit on the size of a file stands for a full disk: the same failed write, reported by the same path."""
    index_pages(plan())
    before = rows_of(plan().output)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: io.BytesIO())  # the disk fills up after the first check
    command = ["index", finqa_files["train"], "--output", plan().output, "--model", plan().model, "--dim", "32"]
    with files_of_at_most(3000):
        assert main(command) == 2
    assert "cannot be written" in capsys.readouterr().err.splitlines()[-1]
    assert rows_of(plan().output) == before


def test_a_disk_that_is_full_before_the_first_page_is_one_line(plan, finqa_files, capsys):
    with files_of_at_most(3000):
        assert (
            main(["index", finqa_files["train"], "--output", plan().output, "--model", plan().model, "--dim", "32"])
            == 2
        )
    error = capsys.readouterr().err
    assert f"{plan().output}: cannot be written" in error and error.count("\n") == 1


def pdf(texts: list[str]) -> bytes:
    """A PDF with one line of text on each page."""
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(len(texts)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Count {len(texts)} /Kids [{kids}] >>"]
    font = "<< /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    for i, text in enumerate(texts):
        stream = f"BT /F 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources {font} /Contents {4 + 2 * i} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    trailer = f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def test_a_folder_of_pdf_text_and_parquet_is_a_page_a_row(tmp_path):
    (tmp_path / "report.pdf").write_bytes(pdf(["Net sales were 5,829.", "Goodwill was 12."]))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing follows")
    (tmp_path / "notes.txt").write_text("first page\fsecond page")
    table = pa.table({"text": ["a", "b"], "document": ["d", "d"], "page": [1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="broken.pdf"):
        list(read_pages([str(tmp_path)]))
    skipped = Skipped()
    pages = {row["id"]: row["text"].strip() for row in read_pages([str(tmp_path)], True, skipped)}
    assert skipped.count == 1
    assert pages == {
        f"{tmp_path}/report/1": "Net sales were 5,829.", f"{tmp_path}/report/2": "Goodwill was 12.",
        f"{tmp_path}/notes/1": "first page", f"{tmp_path}/notes/2": "second page", "d/1": "a", "d/2": "b",
    }  # fmt: skip


def test_one_id_with_two_texts_is_two_pages_and_a_page_that_comes_twice_is_one(tmp_path):
    record = {"document": "a", "page": 1, "text": "net sales"}
    files = [write_jsonl(tmp_path / f"{i}.jsonl", [record | {"text": text}]) for i, text in enumerate("xyyx")]
    pages = list(read_pages(files))
    assert [row["text"] for row in pages] == ["x", "y"]
    assert pages[0]["id"] == "a/1" and pages[1]["id"].startswith("a/1#")


def test_tatqa_is_read(tatqa_file):
    assert [row["text"] for row in read_pages([tatqa_file])]
