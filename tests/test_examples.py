"""The examples run as they stand, on the released model."""

import os
import subprocess
import sys

import pytest

from finmatryoshka.sentence_transformers_config.check import check_doors

from conftest import RELEASED, ROOT


def run(script: str, *arguments: str) -> str:
    """What an example prints in the repository's root."""
    command = [sys.executable, str(ROOT / "examples" / script), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    "script, expected",
    [
        ("search_filings.py", "COSTCO_2015_10K/16"), ("duplicate_questions.py", "|"),
        ("predict_number.py", "64 dimensions"), ("store_64_bytes.py", "64 a page"),
    ],
)  # fmt: skip
def test_example(script, expected):
    assert expected in run(script)


def test_a_folder_that_was_trained_further_opens_every_door(tmp_path):
    assert "written: " in run("finetune_further.py", str(RELEASED), str(tmp_path / "new"))
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
