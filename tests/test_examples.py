"""The examples run as they stand, on the released model."""

import runpy
import sys

import pytest

from finmatryoshka.sentence_transformers_config.check import check_doors

from conftest import RELEASED, ROOT


def run(script: str, monkeypatch, capsys, *arguments: str) -> str:
    """What an example prints in the repository's root."""
    path = str(ROOT / "examples" / script)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    runpy.run_path(path, run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "script, expected",
    [
        ("search_filings.py", "COSTCO_2015_10K/16"), ("duplicate_questions.py", "|"),
        ("predict_number.py", "64 dimensions"), ("store_64_bytes.py", "64 a page"),
    ],
)  # fmt: skip
def test_example(script, expected, monkeypatch, capsys):
    assert expected in run(script, monkeypatch, capsys)


def test_a_folder_that_was_trained_further_opens_every_door(tmp_path, monkeypatch, capsys):
    assert "written: " in run("finetune_further.py", monkeypatch, capsys, str(RELEASED), str(tmp_path / "new"))
    assert check_doors(tmp_path / "new") == []


def test_the_examples_listed_are_the_examples_tested():
    listed = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert listed == {
        "search_filings.py",
        "duplicate_questions.py",
        "predict_number.py",
        "finetune_further.py",
        "store_64_bytes.py",
    }
