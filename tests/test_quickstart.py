"""The quickstart's recipe trains from the packaged encoder; its table shows what the released model scores there."""

import io
import json

import pytest
from rich.console import Console

from finmatryoshka import train_st
from finmatryoshka.sentence_transformers_config.check import check_doors
from finmatryoshka.training.report import print_report

from conftest import RELEASED, ROOT


@pytest.mark.slow
def test_the_quickstart_leaves_a_folder_and_shows_the_released_model_beside_it(finqa_files, tmp_path):
    flags = ["--max_steps", "2", "--per_device_train_batch_size", "8", "--eval_data", finqa_files["eval"],
             "--projection_init", "identity", "--beside", str(RELEASED),
             "--output_dir", str(tmp_path / "model")]  # fmt: skip
    assert train_st.main([str(ROOT / "recipes" / "quickstart.yaml"), *flags]) == 0
    assert check_doors(tmp_path / "model") == []
    report = json.loads((tmp_path / "model" / "training.json").read_text())["report"]
    (part,) = report["retrieval"].values()
    released = part["beside"][str(RELEASED)]
    assert released["tokens"] == 1024 and list(released["ndcg"]) == list(part["model"]) == ["256", "128", "64"]
    print_report(report, console := Console(width=120, file=io.StringIO()))
    assert "finmatryoshka-minilm at 1024" in console.file.getvalue()
    assert f"{released['ndcg']['64']:.4f}" in console.file.getvalue()


def test_a_model_beside_that_is_not_there_is_said_before_any_work(train_flags, tmp_path, capsys):
    flags = train_flags(output_dir=tmp_path / "model", beside="./nowhere")
    assert train_st.main(flags) == 2
    assert "./nowhere: no such folder" in capsys.readouterr().err and not list(tmp_path.iterdir())
