"""python -m finmatryoshka.eval: its results, tables and pictures, compare, speed, and its errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from finmatryoshka.data.loading import load_source
from finmatryoshka.data.splits import load_data
from finmatryoshka.eval import __main__ as cli
from finmatryoshka.eval.run import EvaluationPlan, run_evaluation
from finmatryoshka.eval.significance import compare_results, paired_bootstrap
from finmatryoshka.eval.stopwatch import count_flops
from finmatryoshka.eval.tables import SCHEMA_VERSION, result_tables
from finmatryoshka.training.report import evaluation_tasks

from conftest import DIMS


def test_bootstrap_tells_a_difference_from_noise():
    rng = np.random.default_rng(1)
    a = rng.random(300)
    better, noise = np.clip(a + 0.1, 0, 1), a + rng.normal(0, 0.2, 300)
    real = paired_bootstrap(a, better, 2000)
    assert real["low"] > 0 and real["p"] < 0.01 and real["difference"] == pytest.approx((better - a).mean())
    assert paired_bootstrap(better, a, 2000)["high"] < 0
    assert paired_bootstrap(a, a + 1, 99)["p"] == pytest.approx(2 / 100)  # 99 resamples show no less
    assert paired_bootstrap(a, noise - (noise - a).mean(), 2000)["p"] > 0.5


def arguments_of(folders, files, backbones, out) -> list[str]:
    data = ["--data", files["eval"], "--corpus_data", files["train"], "--train_data", files["train"]]
    return [folders["bert"], *data, "--base", backbones["bert"], "--dims", *map(str, DIMS), "--output", str(out)]


@pytest.fixture(scope="module")
def evaluated(trained_folders, finqa_files, tiny_backbones, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "results"
    assert cli.main(arguments_of(trained_folders, finqa_files, tiny_backbones, out)) == 0
    return out


def test_one_command_writes_results_tables_and_pictures(evaluated, trained_folders, finqa_files):
    results = json.loads((evaluated / "results.json").read_text())
    name = trained_folders["bert"]
    (task,) = results["retrieval"].values()
    systems = task["systems"]
    bases = {"base at 128 tokens", "base at 64 tokens"}  # its own length, and the model's
    assert {name, "BM25", "BM25, words and pairs", *bases, "random projection", "PCA", "label-id baseline"} == set(
        systems
    )
    assert set(systems[name]) == {"32", "16", "8"}
    assert all(set(systems[base]) == {"64", "32", "16", "8"} for base in bases)
    assert set(task["fused"][name]) == {"reciprocal ranks", "z-scores", "z-scores, words and pairs"}
    assert results["fusion"]["chosen_on"] == next(iter(results["retrieval"]))
    for weights in (results["fusion"]["weights"], results["fusion"]["pairs_weights"]):
        assert set(weights[name]) == {"32", "16", "8"}
    assert results["schema_version"] == SCHEMA_VERSION
    halves = task["halves"]
    assert sum(half["queries"] for half in halves.values()) == task["queries"]
    whole = sum(half["queries"] * half["systems"][name]["8"] for half in halves.values()) / task["queries"]
    assert whole == pytest.approx(systems[name]["8"]["ndcg@10"])
    trained = len({record["filename"] for record in json.loads(Path(finqa_files["train"]).read_text())})
    assert task["training_pages"] == trained and task["pages"] > trained
    assert (
        results["models"][name]["sha256"]
        and results["seed"] == 13
        and results["machine"]
        and results["versions"]["torch"]
    )
    (numbers,) = results["numbers"][name].values()
    assert set(numbers) == {"constant", "constants", "heads", "words", "ridge", "n", "seen"} and numbers["seen"] == 0
    assert set(numbers["heads"]) == {"32", "16", "8"}
    assert set(results["facts"][name]["8"]) == {"recall@3", "recall@5", "chance@3", "chance@5"}
    assert len(results["cost"][name]) == 15 and "isotropy" in results["quality"][name]["8"]
    loss = task["label_id_baseline"]
    assert loss["loss"] > 0.9 * loss["constant"]  # the earlier recipe learns nothing: the reason this project exists
    pngs = {path.stem for path in evaluated.glob("*.png")}
    assert pngs == {
        "quality_over_dimension",
        "ndcg_over_bytes",
        "similarity_maps",
        "concept_similarities",
        "predicted_against_true",
    }
    assert pngs == {path.stem for path in evaluated.glob("*.svg")}
    tables = (evaluated / "tables.md").read_text()
    assert "| base at 64 tokens | 8 |" in tables and "best constant of each metric" in tables
    assert f"{task['pages']} pages, {trained} of them training pages" in tables


def test_same_evaluation_twice_gives_the_same_bytes(evaluated, trained_folders, finqa_files, tiny_backbones, tmp_path):
    assert cli.main(arguments_of(trained_folders, finqa_files, tiny_backbones, tmp_path / "again")) == 0
    for path in evaluated.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_compare_reads_two_results_files(evaluated, trained_folders, finqa_files, tmp_path, capsys):
    other = tmp_path / "other"
    data = ["--data", finqa_files["eval"], "--corpus_data", finqa_files["train"], "--dims", "32", "8"]
    beside = ["--sections", "retrieval", "--beside", trained_folders["bert"]]
    assert cli.main([trained_folders["nomic_bert"], *data, *beside, "--output", str(other)]) == 0
    capsys.readouterr()
    assert cli.main(["compare", str(evaluated / "results.json"), str(other / "results.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("95% [" in line and "p = " in line for line in lines)
    a, b = (json.loads((path / "results.json").read_text()) for path in (evaluated, other))
    rows = compare_results([a], [b])
    assert (
        cli.main(["compare", str(evaluated / "results.json"), f"{other / 'results.json'},{evaluated / 'results.json'}"])
        == 0
    )
    assert f"{rows[0]['a']:.4f} -> {(rows[0]['a'] + rows[0]['b']) / 2:.4f}, " in capsys.readouterr().out
    seeds = compare_results([a], [b, a])  # a question's mean over both
    assert [row["difference"] for row in seeds] == pytest.approx([row["difference"] / 2 for row in rows])
    (name,), (task,) = b["models"], b["retrieval"].values()
    assert rows[0]["b"] == pytest.approx(task["systems"][name]["32"]["ndcg@10"])
    # the model beside is a row of the tables, scored as when it was the model under test
    (before,) = a["retrieval"].values()
    beside = trained_folders["bert"]
    assert (
        task["systems"][beside] == {dim: before["systems"][beside][dim] for dim in ("32", "8")}
        and beside not in b["models"]
    )
    assert cli.main(["compare", str(tmp_path / "none.json"), str(other / "results.json")]) == 2
    capsys.readouterr()
    assert cli.main(["compare", "a.json,", "b.json"]) == 2
    assert "error: compare a.json, b.json: give two results files" in capsys.readouterr().err


def test_a_strangers_model_evaluates_and_a_narrow_one_says_so(tiny_backbones, finqa_files, tmp_path, capsys):
    common = ["--data", finqa_files["eval"], "--sections", "retrieval", "quality"]
    stranger = tiny_backbones["bert"]
    assert cli.main([stranger, *common, "--dims", "64", "8"]) == 0
    assert "Page retrieval" in capsys.readouterr().out
    assert cli.main([stranger, *common, "--dims", "128", "8", "--output", str(tmp_path / "o")]) == 2
    assert "is 64 wide, dimension 128 asked for" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()  # whole or not at all
    assert cli.main([stranger, *common, "--dims", "128", "8", "--narrow", "skip"]) == 0
    assert cli.main(["./no-such-model", *common]) == 2
    capsys.readouterr()
    assert cli.main([stranger, *common, "--dims", "8", "--beside", "./nobody"]) == 2
    assert "./nobody: no such folder" in capsys.readouterr().err
    assert cli.main([stranger, "--data", str(tmp_path / "none.json")]) == 2
    assert cli.main([stranger, *common, "--dims", "0"]) == 2
    copies = [tmp_path / version / "finqa" / "dev.json" for version in ("v1", "v2")]
    for copy in copies:
        copy.parent.mkdir(parents=True)
        copy.write_bytes(Path(finqa_files["eval"]).read_bytes())
    capsys.readouterr()
    assert cli.main([stranger, "--data", *map(str, copies)]) == 2
    assert "two sources are called finqa/dev" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said_before_the_work(finqa_files, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    for command in (["./no-such-model"], ["speed", "./no-such-model"]):
        output = str(tmp_path / "file" / "results")
        assert cli.main([*command, "--data", finqa_files["eval"], "--output", output]) == 2
        assert "results: cannot be written" in capsys.readouterr().err


def test_flops_are_those_of_the_formulas():
    a, b = torch.ones(7, 11), torch.ones(11, 13)
    assert count_flops(lambda: a @ b) == 2 * 7 * 11 * 13
    heads, length, width = 4, 96, 32
    q = torch.ones(2, heads, length, width, requires_grad=True)
    products = 2 * 2 * heads * length * length * width  # of one matrix product of the attention
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count_flops(lambda: attend(q, q, q)) == 2 * products
    assert count_flops(lambda: attend(q, q, q).sum().backward()) == 7 * products  # backward: 5, the scores once more


def test_baselines_are_not_fitted_on_evaluation_questions(tiny_backbones, finqa_files):
    plan = EvaluationPlan(
        [tiny_backbones["bert"]],
        [finqa_files["eval"]],
        [8],
        train_data=[finqa_files["eval"]],
        base=tiny_backbones["bert"],
        sections=("retrieval",),
    )
    results, _ = run_evaluation(plan)
    (task,) = results["retrieval"].values()
    assert "PCA" not in task["systems"] and "label-id baseline" not in task["systems"]  # nothing was left

    assert task["training_pages"] == task["pages"]  # said of what was trained on, not of what was left of it


def test_figures_of_trained_on_answers_are_not_called_unseen(trained_folders, finqa_files, tmp_path):
    records = json.loads(Path(finqa_files["eval"]).read_text())
    (tmp_path / "train.json").write_text(json.dumps(json.loads(Path(finqa_files["train"]).read_text()) + records[:10]))
    plan = EvaluationPlan(
        [trained_folders["bert"]], [finqa_files["eval"]], [8], train_data=[str(tmp_path / "train.json")],
        sections=("numbers",),
    )  # fmt: skip
    results, _ = run_evaluation(plan)
    (numbers,) = results["numbers"][trained_folders["bert"]].values()
    assert 0 < numbers["seen"] < numbers["n"]
    (table,) = result_tables(results)
    assert f"{numbers['n']} answers, {numbers['seen']} of them of training questions or pages" in table.title


def test_training_and_evaluation_search_the_same_pages(finqa_files, tiny_backbones):
    data = load_data([finqa_files["train"]], [finqa_files["eval"]])
    with_corpus = load_data([finqa_files["train"]], [finqa_files["eval"]], [finqa_files["train"]])
    for loaded, extra in ((data, []), (with_corpus, [finqa_files["train"]])):
        (task,) = evaluation_tasks(loaded)
        plan = EvaluationPlan([tiny_backbones["bert"]], [finqa_files["eval"]], [8], extra, sections=("retrieval",))
        (evaluated,) = run_evaluation(plan)[0]["retrieval"].values()
        (again,) = run_evaluation(plan, loaded)[0]["retrieval"].values()
        assert len(task.corpus) == evaluated["pages"] and evaluated["sha256"] == again["sha256"]
    (sample,) = evaluation_tasks(load_data(["sample"]))
    assert len(sample.corpus) == len(load_source("sample", "validation").pages)
