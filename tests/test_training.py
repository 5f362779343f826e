"""train_st.py as a user runs it: it learns, resumes bit for bit, runs on two processes, and refuses bad input in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from finmatryoshka import train_st
from finmatryoshka.training import run
from finmatryoshka.training.averaging import average_weights, starting_weights
from finmatryoshka.training.checkpoints import last_complete_checkpoint

from conftest import ROOT


def weights(folder) -> dict[str, torch.Tensor]:
    folder = Path(folder)
    return load_file(folder / "model.safetensors") | load_file(folder / "heads.safetensors")


def assert_same_weights(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_report_stands_beside_the_trivial_answers(trained_folders):
    record = json.loads((Path(trained_folders["bert"]) / "training.json").read_text())
    retrieval = (
        record["report"]["retrieval"]["eval"]
        if "eval" in record["report"]["retrieval"]
        else next(iter(record["report"]["retrieval"].values()))
    )
    assert retrieval["base"].keys() == retrieval["model"].keys() == {"32", "16", "8"}
    assert (
        all(part["constant"]["huber"] > 0 for part in record["report"]["numbers"].values())
        and record["training"]["seed"] == 7
    )
    assert all(len(digest) == 64 for digest in record["sources_sha256"].values())


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(train_flags, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train_st.main(train_flags(output_dir=tmp_path / name, seed=seed, skip_evaluation=True)) == 0
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert any(
        not torch.equal(x, y) for x, y in zip(weights(tmp_path / "a").values(), weights(tmp_path / "c").values())
    )
    assert not list(tmp_path.glob("*.run"))  # nothing half-written stays behind


def test_killed_run_resumes_to_the_same_bits(train_flags, tmp_path):
    common = {"max_steps": 24, "save_strategy": "steps", "save_steps": 4, "skip_evaluation": True}
    assert train_st.main(train_flags(output_dir=tmp_path / "whole", **common)) == 0
    command = [sys.executable, str(ROOT / "train_st.py"), *train_flags(output_dir=tmp_path / "cut", **common)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    deadline = time.time() + 120
    while (
        last_complete_checkpoint(str(tmp_path / "cut.run")) is None
        and process.poll() is None
        and time.time() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (tmp_path / "cut").exists()
    # as if the next checkpoint had been cut off in mid-save
    half = tmp_path / "cut.run" / "checkpoint-99"
    shutil.copytree(last_complete_checkpoint(str(tmp_path / "cut.run")), half)
    (half / "trainer_state.json").unlink()
    flags = train_flags(output_dir=tmp_path / "cut", resume_from_checkpoint="true", **common)
    assert train_st.main(flags) == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_best_step_comes_back_with_its_heads(train_flags, tmp_path):
    """Training lowers the loss, and here the highest counts as best: the first checkpoint wins, and the final heads are its heads."""
    flags = train_flags(
        output_dir=tmp_path / "best", max_steps=6, learning_rate=3e-3, numeric_learning_rate=3e-3, save_strategy="steps", save_steps=2,
        eval_strategy="steps", eval_steps=2, load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=True,
        keep_checkpoints=True, skip_evaluation=True,
    )  # fmt: skip
    assert train_st.main(flags) == 0
    state = json.loads((tmp_path / "best.run" / "checkpoint-6" / "trainer_state.json").read_text())
    best, last = Path(state["best_model_checkpoint"]), tmp_path / "best.run" / "checkpoint-6"
    assert best.name != last.name
    assert_same_weights(tmp_path / "best", best)
    assert any(not torch.equal(x, y) for x, y in zip(weights(best).values(), weights(last).values()))


def test_yaml_file_and_flags_that_override_it(train_flags, tmp_path):
    flags = train_flags(output_dir=tmp_path / "y", max_steps=1, skip_evaluation=True)
    names, values = [flag.removeprefix("--") for flag in flags if flag.startswith("--")], {}
    for flag in flags:
        if flag.startswith("--"):
            values[flag[2:]] = []
        else:
            values[list(values)[-1]].append(flag)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({k: v[0] if len(v) == 1 else v for k, v in values.items()}))
    _, _, args = run.parse_arguments([str(tmp_path / "r.yaml"), "--seed", "99"])
    assert args.seed == 99 and args.max_steps == 1 and len(names) == len(values)
    assert train_st.main([str(tmp_path / "r.yaml")]) == 0 and (tmp_path / "y" / "config.json").is_file()


def test_all_of_the_recipes_parts_run_together(train_flags, tmp_path, finqa_files, tiny_backbones, monkeypatch):
    monkeypatch.setattr(
        "finmatryoshka.training.hard_negatives.RELATIVE_MARGIN", 0.0
    )  # to a tiny untrained model all pages are alike
    pages = tmp_path / "pages.jsonl"
    line = "   December 31,   2017   2016\nNet sales   $   16   $   67\nOperating leases   10   64\nGoodwill and brands   2   23\n   Total assets   $   28   $   154\n"
    records = [
        {
            "text": f"{c} notes {i} to the statements of depot {i}\n{line}We reported {i}2 million of sales to depots in {c}.\n",
            "company": c,
            "document": f"{c}_2017",
            "page": i,
        }
        for c in ("ACME", "ZETA")
        for i in range(8)
    ]
    pages.write_text("\n".join(map(json.dumps, records)))
    flags = train_flags(
        "nomic_bert",
        output_dir=tmp_path / "m", synthesize=pages, synthetic_pairs=12, fact_pairs=20, page_words=30, mini_batch_size=2,
        per_device_train_batch_size=4, average_with_base=0.5, max_steps=6,
        fresh_pairs=3, refit_projection=True, refit_heads=True, hard_negatives=True, siblings=0.5, keep_tokens=0.7,
        without_punctuation=True, teacher=tiny_backbones["bert"], teacher_weight=0.5,
    )  # fmt: skip
    assert train_st.main(flags) == 0
    record = json.loads((tmp_path / "m" / "training.json").read_text())
    assert str(pages) in record["data"]["synthesize"]


def test_a_run_of_no_steps_averages_folders(train_flags, trained_folders, tmp_path, capsys):
    assert train_st.main(train_flags(output_dir=tmp_path / "other", seed=8, skip_evaluation=True)) == 0
    flags = {"backbone": trained_folders["bert"], "max_steps": -1, "num_train_epochs": 0, "skip_evaluation": True}
    assert train_st.main(train_flags(**flags, output_dir=tmp_path / "mean", average_with=tmp_path / "other")) == 0
    a, b, mean = weights(trained_folders["bert"]), weights(tmp_path / "other"), weights(tmp_path / "mean")
    for name in mean:
        torch.testing.assert_close(mean[name], (a[name] + b[name]) / 2, msg=name)
    assert any(not torch.equal(a[name], b[name]) for name in mean)
    capsys.readouterr()
    assert (
        train_st.main(train_flags(**flags, output_dir=tmp_path / "no", average_with=trained_folders["nomic_bert"])) == 2
    )
    assert "give a folder trained from the same backbone" in capsys.readouterr().err


def test_a_share_of_the_start_is_averaged_in_once_and_the_heads_keep_what_they_learned(trained_folders):
    model = SentenceTransformer(trained_folders["bert"], trust_remote_code=True)[0].auto_model
    start = starting_weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    average_weights(model, [start], 0.25)
    for name, tensor in model.state_dict().items():
        if "numeric_heads" in name:
            assert name not in start
        elif tensor.is_floating_point():
            torch.testing.assert_close(tensor, start[name] + 0.75, msg=name)


def test_two_processes_give_the_same_kind_of_result(train_flags, tmp_path):
    flags = train_flags(output_dir=tmp_path / "two", per_device_train_batch_size=4)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", str(ROOT / "train_st.py"), *flags]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Numeric heads on") == 1  # one process reports
    record = json.loads((tmp_path / "two" / "training.json").read_text())
    assert record["report"]["retrieval"]
    assert set(weights(tmp_path / "two"))


BAD = [
    ({"data": "nowhere.json"}, "nowhere.json: no such file"),
    ({"data": "{tmp}/broken.json"}, "is no JSON or JSONL"),
    ({"data": "{tmp}/schema.json"}, "expected FinQA"),
    ({"data": "{tmp}/empty_question.json"}, "mend them or pass --skip-invalid"),
    ({"data": "{eval}"}, "nothing left to train on"),
    ({"data": "nobody/no-such-dataset"}, "neither a local file nor loadable from the Hub"),
    ({"matryoshka_dims": [8, 16]}, "must strictly decrease"),
    ({"matryoshka_dims": [16, 16]}, "must strictly decrease"),
    ({"matryoshka_dims": [128, 64]}, "exceeds the backbone's width of 64"),
    ({"backbone": "{tmp}/unweighted"}, "has a config but no weights"),
    ({"backbone": "nobody/no-such-model"}, "neither a local folder nor loadable from the Hub"),
    ({"output_dir": "{tmp}/full"}, "is not empty; name another folder or pass --overwrite"),
    ({"resume_from_checkpoint": "true"}, "holds no complete checkpoint"),
    ({"precision": "fp16"}, "fp16 needs a GPU"),
    ({"precision": "fp8"}, "--precision fp8"),
    ({"projection_init": "noise"}, "'pca' or 'identity'"),
    ({"average_with": "{tmp}/nowhere"}, "nowhere: no such folder"),
    ({"average_with": "minilm"}, "minilm: no model trained here at dimensions 32, 16, 8"),
]


@pytest.mark.parametrize("change, message", BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input_is_one_line_before_any_training(
    change, message, train_flags, finqa_files, tiny_backbones, tmp_path, capsys
):
    if change.get("precision") == "fp16" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "schema.json").write_text('[{"a": 1}]')
    (tmp_path / "empty_question.json").write_text(
        '[{"pre_text": ["a"], "post_text": [], "table": [], "qa": {"question": ""}}]'
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("mine")
    (tmp_path / "unweighted").mkdir()
    shutil.copy(Path(tiny_backbones["bert"]) / "config.json", tmp_path / "unweighted")
    fill = lambda value: value.format(tmp=tmp_path, eval=finqa_files["eval"]) if isinstance(value, str) else value  # noqa: E731
    before = sorted(tmp_path.rglob("*"))
    assert train_st.main(train_flags(**{"output_dir": tmp_path / "out"} | {k: fill(v) for k, v in change.items()})) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0]
    assert sorted(tmp_path.rglob("*")) == before
