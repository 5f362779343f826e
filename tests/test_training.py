"""train_st.py as a user runs it: it learns, resumes bit for bit, runs on two processes, and refuses bad input in one
line."""

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
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from finmatryoshka import FinMatryoshkaModel, train_st
from finmatryoshka.data.splits import load_data
from finmatryoshka.sentence_transformers_config.card import training_section
from finmatryoshka.training import run
from finmatryoshka.training.averaging import aligned, average_weights, encoder_weights
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


@pytest.mark.slow
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
    # as if the next checkpoints had been cut off in mid-save: before the last file, and in the midst of it
    complete = Path(last_complete_checkpoint(str(tmp_path / "cut.run")))
    state = (complete / "trainer_state.json").read_text()
    for name, written in (("checkpoint-98", None), ("checkpoint-99", ""), ("checkpoint-100", state[:-9])):
        half = tmp_path / "cut.run" / name
        shutil.copytree(complete, half)
        (half / "trainer_state.json").unlink()
        if written is not None:
            (half / "trainer_state.json").write_text(written)
    assert last_complete_checkpoint(str(tmp_path / "cut.run")) == str(complete)
    flags = train_flags(output_dir=tmp_path / "cut", resume_from_checkpoint="true", **common)
    assert train_st.main(flags) == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_best_step_comes_back_with_its_heads(train_flags, tmp_path):
    """Training lowers the loss, and here the highest counts as best: the first checkpoint wins, and the final heads are
    its heads."""
    flags = train_flags(
        output_dir=tmp_path / "best", max_steps=6, learning_rate=3e-3, numeric_learning_rate=3e-3,
        save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
        metric_for_best_model="loss", greater_is_better=True, keep_checkpoints=True, skip_evaluation=True,
    )  # fmt: skip
    assert train_st.main(flags) == 0
    state = json.loads((tmp_path / "best.run" / "checkpoint-6" / "trainer_state.json").read_text())
    best, last = Path(state["best_model_checkpoint"]), tmp_path / "best.run" / "checkpoint-6"
    assert best.name != last.name
    assert_same_weights(tmp_path / "best", best)
    assert any(not torch.equal(x, y) for x, y in zip(weights(best).values(), weights(last).values()))


def test_all_of_the_recipes_parts_run_together(train_flags, tmp_path, finqa_files, tiny_backbones, monkeypatch):
    monkeypatch.setattr(
        "finmatryoshka.training.hard_negatives.RELATIVE_MARGIN", 0.0
    )  # to a tiny untrained model all pages are alike
    pages = tmp_path / "pages.jsonl"
    line = (
        "   December 31,   2017   2016\nNet sales   $   16   $   67\nOperating leases   10   64\n"
        "Goodwill and brands   2   23\n   Total assets   $   28   $   154\n"
    )
    records = [
        {
            "text": f"{c} notes {i} to the statements of depot {i}\n{line}"
            f"We reported {i}2 million of sales to depots in {c}.\n",
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
        output_dir=tmp_path / "m", synthesize=pages, synthetic_pairs=12, fact_pairs=20, page_words=30,
        mini_batch_size=2, per_device_train_batch_size=4, max_steps=6, fresh_pairs=3, siblings=0.5, keep_tokens=0.7,
        strip_punctuation=True, teacher=tiny_backbones["bert"], teacher_weight=0.5,
        anchor_weight=0.5,
    )  # fmt: skip
    names = tmp_path / "names.csv"
    names.write_text("words,display_name,concept,statement,section,ambiguous\ncash on hand,cash at bank,Cash,B,S,0\n")
    first = {"hard_negatives": True, "concept_pairs": [str(names), "4"]}
    stages = [first, {"operation": "average", "base_share": 0.5}, {"operation": "refit"}]
    (tmp_path / "r.json").write_text(json.dumps({"stages": stages}))
    assert train_st.main([str(tmp_path / "r.json"), *flags]) == 0
    record = json.loads((tmp_path / "m" / "training.json").read_text())
    assert record["operation"] == "refit" and str(pages) in record["data"]["synthesize"]
    averaged = record["previous"]
    assert averaged["operation"] == "average" and averaged["training"]["base_share"] == 0.5
    trained = averaged["averaged"][str(tmp_path / "m.run" / "stage-1")]
    assert trained["operation"] == "train" and trained["training"]["max_steps"] == 6 and "previous" not in averaged
    read = training_section(record, [])  # the card names what any stage read
    assert "pages.jsonl`: unlabelled pages" in read and "names.csv`: names of accounting concepts" in read
    assert (
        f"It learned the similarities of other models, too: `{'/'.join(Path(tiny_backbones['bert']).parts[-2:])}`."
        in read
    )


def test_averages_of_folders(train_flags, trained_folders, tmp_path, capsys):
    assert train_st.main(train_flags(output_dir=tmp_path / "other", seed=8, skip_evaluation=True)) == 0
    flags = {"operation": "average", "skip_evaluation": True}
    folders = [trained_folders["bert"], tmp_path / "other"]
    assert train_st.main(train_flags(**flags, output_dir=tmp_path / "mean", folders=folders)) == 0
    a, b, mean = weights(trained_folders["bert"]), weights(tmp_path / "other"), weights(tmp_path / "mean")
    heads = {name for name in mean if name.startswith("numeric_heads.")}
    for name in mean:
        torch.testing.assert_close(mean[name], a[name] if name in heads else (a[name] + b[name]) / 2, msg=name)
    assert heads and any(not torch.equal(a[name], b[name]) for name in mean.keys() - heads)
    first, other, mean = (
        load_file(Path(folder) / "2_Dense" / "model.safetensors")["linear.weight"]
        for folder in [*folders, tmp_path / "mean"]
    )
    like = FinMatryoshkaModel.from_pretrained(trained_folders["bert"])
    torch.testing.assert_close(mean, (first + aligned({"projection.weight": other}, like)["projection.weight"]) / 2)
    with pytest.raises(ValueError, match="fitted"):  # the heads of the first, which were fitted to other vectors
        FinMatryoshkaModel.from_pretrained(tmp_path / "mean").predict_number(["net sales"])
    capsys.readouterr()
    folders = [trained_folders["bert"], trained_folders["nomic_bert"]]
    assert train_st.main(train_flags(**flags, output_dir=tmp_path / "no", folders=folders)) == 2
    assert "give a folder trained from the same backbone" in capsys.readouterr().err
    assert not list(tmp_path.glob("no*"))


def test_a_turned_projection_ranks_alike_and_is_turned_back(trained_folders):
    model = FinMatryoshkaModel.from_pretrained(trained_folders["bert"])
    torch.manual_seed(5)
    weights, ends, texts = model.state_dict(), sorted(model.matryoshka_dims), torch.randn(5, 64)
    own = weights["projection.weight"]
    other = own + 0.01 * torch.randn(own.shape)
    for begin, end in zip([0, *ends], ends):
        other[begin:end] = torch.linalg.qr(torch.randn(end - begin, end - begin))[0] @ other[begin:end]
    back = aligned(weights | {"projection.weight": other}, model)["projection.weight"]
    for dim in ends:
        before, after = (texts @ weight[:dim].T for weight in (other, back))
        torch.testing.assert_close(before @ before.T, after @ after.T, rtol=1e-4, atol=1e-4)
    assert (back - own).norm() < 0.3 * (other - own).norm()


def test_a_share_of_the_backbone_is_averaged_in_and_what_stands_on_it_stays(tiny_backbones, trained_folders):
    model = SentenceTransformer(trained_folders["bert"], trust_remote_code=True)[0].auto_model
    start, before = (
        encoder_weights(tiny_backbones["bert"], model),
        {k: v.clone() for k, v in model.state_dict().items()},
    )
    average_weights(model, [start], 0.25)
    for name, tensor in model.state_dict().items():
        assert (name in start) == name.startswith("bert.")
        if name not in start:
            assert torch.equal(tensor, before[name])  # projection and heads
        elif tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.25 * start[name] + 0.75 * before[name], msg=name)


def test_refits_change_what_they_name_and_nothing_else(train_flags, trained_folders, tmp_path):
    flags = {"operation": "refit", "skip_evaluation": True}
    before = weights(trained_folders["bert"])
    for part in ("projection", "heads"):
        other = "heads" if part == "projection" else "projection"
        out = tmp_path / part
        assert train_st.main(train_flags(trained_folders["bert"], **flags, output_dir=out, **{other: False})) == 0
        after = weights(out)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name for name in before if name.startswith("numeric" if part == "heads" else "projection")}


@pytest.mark.slow
def test_two_processes_give_the_same_kind_of_result(train_flags, tmp_path):
    stages = [{}, {"operation": "average", "base_share": 0.5}, {}, {"operation": "refit", "projection": False}]
    (tmp_path / "r.json").write_text(json.dumps({"stages": stages}))
    flags = [tmp_path / "r.json", *train_flags(output_dir=tmp_path / "two", per_device_train_batch_size=4)]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
               "--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no",
               str(ROOT / "train_st.py"), *map(str, flags)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Numeric heads on") == 1  # one process reports
    record = json.loads((tmp_path / "two" / "training.json").read_text())
    assert record["report"]["retrieval"] and record["previous"]["previous"]["operation"] == "average"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "two"]


def test_published_figures_are_of_pages_held_out(train_flags, finqa_files, tmp_path, monkeypatch):
    """Without --eval_data a share of the training file is held out: that is measured, not the file."""
    published = []
    monkeypatch.setattr(run, "publish", lambda folder, *_, **__: published.append(Path(folder)))
    flags = train_flags(output_dir=tmp_path / "m", eval_data=None, holdout=0.3, max_steps=1, hub_model_id="org/m")
    assert train_st.main([*flags, "--push_to_hub", "true"]) == 0
    (task,) = json.loads((published[0] / "results.json").read_text())["retrieval"].values()
    data = load_data([finqa_files["train"]], holdout=0.3)
    assert task["queries"] == len({example.question for example in data.eval_examples})
    assert task["queries"] < len({example.question for example in data.train})


def test_figures_of_what_an_earlier_run_trained_on_are_not_published(
    train_flags, trained_folders, finqa_files, tmp_path, capsys
):
    flags = {"data": finqa_files["eval"], "eval_data": finqa_files["train"], "output_dir": tmp_path / "m"}
    flags |= {"push_to_hub": True, "hub_model_id": "org/m"}
    assert train_st.main(train_flags(trained_folders["bert"], **flags)) == 2
    error = capsys.readouterr().err
    assert f"{finqa_files['train']}: an earlier run trained on it" in error and not list(tmp_path.iterdir())
    average = {"operation": "average", "folders": [trained_folders["bert"]], "base_share": 0.5}
    assert train_st.main(train_flags(**flags, **average)) == 2
    assert "an earlier run trained on it" in capsys.readouterr().err


def test_training_does_not_need_what_a_search_needs():
    code = "import sys, finmatryoshka.train_st; print(*{'optuna', 'sqlalchemy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_fault_of_ours_keeps_its_traceback(train_flags, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "train", lambda *_: int("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        train_st.main(train_flags(output_dir=tmp_path / "m"))
    assert not list(tmp_path.iterdir())


BAD = [
    ({"data": "nowhere.json"}, "nowhere.json: no such file"),
    ({"data": "{tmp}/broken.json"}, "is no JSON or JSON Lines"),
    ({"data": "{tmp}/schema.json"}, "expected FinQA"),
    ({"data": "{tmp}/empty_question.json"}, "mend them or pass --skip-invalid"),
    ({"data": "{eval}"}, "nothing left to train on"),
    ({"data": "nobody/no-such-dataset"}, "neither a local file nor loadable from the Hub"),
    ({"matryoshka_dims": [8, 16]}, "must strictly decrease"),
    ({"matryoshka_dims": [16, 16]}, "must strictly decrease"),
    ({"matryoshka_dims": [128, 64]}, "exceeds the backbone's width of 64"),
    ({"backbone": "{tmp}/unweighted"}, "has a config but no weights"),
    ({"backbone": "nobody/no-such-model"}, "neither a local folder nor loadable from the Hub"),
    ({"concept_pairs": ["a.csv"]}, "must be a FILE and how many pairs of it"),
    ({"concept_pairs": ["{tmp}/broken.json", 4]}, "broken.json: no concept has two names"),
    ({"output_dir": "{tmp}/full"}, "is not empty; name another folder or pass --overwrite"),
    ({"resume_from_checkpoint": "true"}, "holds no complete checkpoint"),
    ({"resume_from_checkpoint": "{tmp}/full"}, "full: holds no complete checkpoint; pass true"),
    ({"precision": "fp16"}, "fp16 needs a GPU"),
    ({"precision": "fp8"}, "--precision fp8"),
    ({"projection_init": "noise"}, "'pca' or 'identity'"),
    (
        {"teacher": "{tmp}/nowhere", "data": "{tmp}/broken.json"},
        "nowhere: name a folder or Hub id of a SentenceTransformer",
    ),
    ({"operation": "average", "folders": ["{tmp}/nowhere", "minilm"]}, "nowhere: no such folder"),
    ({"operation": "average", "folders": ["untrained-yet", "minilm"]}, "untrained-yet: no such folder; name a folder"),
    (
        {"operation": "average", "folders": ["minilm", "minilm"]},
        "minilm: no model trained here at dimensions 32, 16, 8",
    ),
    ({"operation": "average"}, "nothing to average with; name --folders or --base_share"),
    ({"operation": "refit"}, "no model trained here at dimensions 32, 16, 8"),
    ({"passage_pairs": 4}, "--passage_pairs: there is nothing to take passages from; name filing pages"),
    ({"passage_teacher": "minilm"}, "--passage_teacher: there is nothing to teach; say how many --passage_pairs"),
    ({"anchor_weight": 2}, "--anchor_weight 2.0: must be from 0 to 1"),
    ({"operation": "merge"}, "--operation merge: must be train, average or refit"),
    ({"average_with": "minilm"}, "--average_with: is no argument any more; give `operation: average` with `folders`"),
    ({"temprature": 1}, "--temprature: no such argument; did you mean temperature?"),
    ({"seed": "x"}, "--seed: invalid int value: 'x'"),
    ({"per_device_train_batch_size": 0}, "--per_device_train_batch_size 0: must be at least 1"),
    ({"per_device_eval_batch_size": 0}, "--per_device_eval_batch_size 0: must be at least 1"),
    ({"gradient_accumulation_steps": 0}, "--gradient_accumulation_steps 0: must be at least 1"),
    ({"mini_batch_size": 0}, "--mini_batch_size 0: must be at least 1"),
    ({"temperature": 0}, "--temperature 0.0: must be above 0"),
    ({"temperature": "nan"}, "--temperature nan: must be above 0"),
    ({"learning_rate": "inf"}, "--learning_rate inf: must be 0 or more"),
    ({"num_train_epochs": -1}, "--num_train_epochs -1.0: must be 0 or more"),
    ({"num_train_epochs": 0, "max_steps": -1}, "--num_train_epochs 0: trains nothing"),
    ({"max_steps": 0}, "--max_steps 0: must be at least 1"),
    ({"max_seq_length": 4}, "--max_seq_length 4: must be at least 8 tokens"),
    ({"holdout": 1}, "--holdout 1.0: must be between 0 and 1"),
    ({"seed": -1}, "--seed -1: must be from 0 to"),
    ({"matryoshka_weights": [1, 2]}, "--matryoshka_weights: 2 for 3 dimensions; give one each"),
    ({"matryoshka_weights": [1, -1, 1]}, "--matryoshka_weights 1.0 -1.0 1.0: must be 0 or more each"),
    ({"output_dir": "."}, "--output_dir .: is or holds the current folder"),
    ({"output_dir": ".."}, "--output_dir ..: is or holds the current folder"),
    ({"output_dir": "{tmp}/broken.json"}, "broken.json: is a file; name a folder"),
    ({"output_dir": "{tmp}/broken.json/model"}, "cannot be written (Not a directory); nothing there was changed"),
    ({"save_strategy": "sometimes"}, "--save_strategy: sometimes is not"),
    ({"load_best_model_at_end": "true", "save_strategy": "steps"}, "requires the save and eval strategy to match"),
]


@pytest.mark.parametrize("change, message", BAD, ids=[message[:60] for _, message in BAD])
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

    def fill(value):
        if isinstance(value, list):
            return [fill(item) for item in value]
        return value.format(tmp=tmp_path, eval=finqa_files["eval"]) if isinstance(value, str) else value

    before = sorted(tmp_path.rglob("*"))
    assert train_st.main(train_flags(**{"output_dir": tmp_path / "out"} | {k: fill(v) for k, v in change.items()})) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0]
    assert sorted(tmp_path.rglob("*")) == before
