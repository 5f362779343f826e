"""The examples run as they stand, on a folder of real size (256/128/64 dimensions)."""

import runpy
import sys
from pathlib import Path

import pytest

from finmatryoshka import train_st
from finmatryoshka.sentence_transformers_config.check import check_doors

from conftest import ROOT


@pytest.fixture(scope="module")
def folder(finqa_files, tmp_path_factory) -> str:
    """A packaged-encoder folder after one training step: the dimensions that the examples name."""
    out = str(tmp_path_factory.mktemp("examples") / "model")
    flags = ["--backbone", "minilm", "--data", finqa_files["train"], "--eval_data", finqa_files["eval"],
             "--max_seq_length", "48", "--max_steps", "1", "--per_device_train_batch_size", "4",
             "--projection_init", "identity", "--output_dir", out]  # fmt: skip
    assert train_st.main(flags) == 0
    return out


@pytest.mark.parametrize(
    "script, expected",
    [
        ("search_filings.py", "page_"), ("duplicate_questions.py", "|"), ("predict_number.py", "64 dimensions"),
        ("finetune_further.py", "written: "), ("store_64_bytes.py", "64 a page"),
    ],
)  # fmt: skip
def test_example(script, expected, folder, finqa_files, tmp_path, monkeypatch, capsys):
    path = str(ROOT / "examples" / script)
    further = {"finetune_further.py": ["new"], "search_filings.py": [finqa_files["train"]]}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [path, folder, *further.get(script, [])])
    runpy.run_path(path, run_name="__main__")
    assert expected in capsys.readouterr().out
    if script == "finetune_further.py":
        assert check_doors(Path("new")) == []


def test_the_examples_listed_are_the_examples_tested():
    listed = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert listed == {
        "search_filings.py",
        "duplicate_questions.py",
        "predict_number.py",
        "finetune_further.py",
        "store_64_bytes.py",
    }
