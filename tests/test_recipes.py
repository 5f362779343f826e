"""Every recipe of the repository parses, and nomic's runs its whole code path on a tiny NomicBert."""

import json
import os

import pytest
import yaml

from finmatryoshka import train_st
from finmatryoshka.training import run
from finmatryoshka.training.arguments import ArgumentError
from finmatryoshka.training.checks import check_values
from finmatryoshka.training.recipe import DATA, read_stages

from conftest import DIMS, ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_recipe_parses(path):
    overrides = ["--precision", "fp32"] if yaml.safe_load(path.read_text()).get("precision") == "fp16" else []
    stages = read_stages([str(path), *overrides])
    shared = yaml.safe_load(path.read_text().replace("$DATA", os.environ.get("DATA", DATA)))
    own = shared.pop("stages", [{}])
    assert len(stages) == len(own)
    for stage, values in zip(stages, own):
        check_values(stage)
        for name, value in (shared | values).items():
            assert name == "precision" or stage.value(name) == value, name


def test_no_recipe_trains_on_development_or_test_questions():
    for path in RECIPES:
        stage = read_stages([str(path), "--precision", "fp32"])[0]
        evaluation_only = ("dev_pages", "dev_evidence", "finqa/dev", "test_gold", "tenk_qa")
        assert not [source for source in stage.data.data if any(name in source for name in evaluation_only)], path.name


def as_values(flags: list[str]) -> dict:
    """Flags as a recipe's mapping."""
    values: dict = {}
    for flag in flags:
        if flag.startswith("--"):
            values[flag[2:]] = name = []
        else:
            name.append(yaml.safe_load(flag))
    return {name: value[0] if len(value) == 1 else value for name, value in values.items()}


@pytest.mark.parametrize("write", [yaml.safe_dump, json.dumps], ids=["yaml", "json"])
def test_flags_override_a_file_in_every_stage(train_flags, tmp_path, write):
    path = tmp_path / ("r.json" if write is json.dumps else "r.yaml")
    values = as_values(train_flags(learning_rate="1e-4")) | {"temperature": 0.2, "synthesize": ["a.json"]}
    values["stages"] = [
        {"max_steps": 5, "synthesize": None},
        {"max_steps": 6, "temperature": 0.3},
        {"operation": "refit"},
    ]
    path.write_text(write(values))
    first, second, last = read_stages([str(path)])
    assert [stage.operation for stage in (first, second, last)] == ["train", "train", "refit"]
    assert (first.training.max_steps, second.training.max_steps) == (5, 6)
    assert (first.training.temperature, second.training.temperature, last.training.temperature) == (0.2, 0.3, 0.2)
    assert (first.data.synthesize, second.data.synthesize) == (None, ["a.json"])  # null: the default
    assert first.training.learning_rate == 1e-4 and first.data.data == [values["data"]]
    flags = ["--max_steps", "9", "--temperature", "0.4", "--overwrite"]
    first, second, last = read_stages([str(path), *flags])
    assert (first.training.max_steps, second.training.max_steps) == (9, 9)
    assert (first.training.temperature, second.training.temperature, last.training.temperature) == (0.4, 0.4, 0.4)
    assert first.training.overwrite and last.training.overwrite


@pytest.mark.parametrize("shared, own", [({"seed": 13}, 113), ({}, 142)], ids=["of the recipe", "by default"])
def test_the_seed_of_a_flag_moves_that_of_a_stage_along(tmp_path, shared, own):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(shared | {"stages": [{}, {"seed": own}, {"operation": "refit"}]}))
    assert [stage.training.seed for stage in read_stages([str(path)])] == [own - 100, own, own - 100]
    assert [stage.training.seed for stage in read_stages([str(path), "--seed", "14"])] == [14, 114, 14]
    path.write_text(json.dumps({"seed": 13, "stages": [{"seed": 5}]}))
    with pytest.raises(ArgumentError, match=r"--seed 0: .*stage 1's own seed, 5, would move below 0; give at least 8"):
        read_stages([str(path), "--seed", "0"])


BAD = [
    ("then: {max_steps: 2}", "then: is no argument any more; list the phases under `stages`"),
    ("max_stepps: 2", "max_stepps: no such argument; did you mean max_steps?"),
    ("stages: [{max_stepps: 2}]", "stage 1: max_stepps: no such argument"),
    ("stages: {operation: train}", "`stages` must be a list of mappings"),
    ("stages: []", "`stages` must be a list of mappings"),
    ("stages: [{operation: merge}]", "stage 1: operation 'merge': train, average or refit"),
    (
        "stages: [{}, {operation: average, learning_rate: 1}]",
        "stage 2: learning_rate is nothing that `operation: average`",
    ),
    ("stages: [{folders: [a]}]", "stage 1: folders is nothing that `operation: train` uses"),
    ("stages: [{output_dir: x}]", "stage 1: output_dir is one for the whole run"),
    ("stages: [{}, {}]\noperation: train", "every stage names its own operation"),
    ("base_share: 0.2", "base_share is nothing that `operation: train` uses"),
    ("stages: [{fresh_pairs: 5}]", "stage 1: fresh_pairs is nothing that `operation: train` uses"),
    ("folders: [a]\nstages: [{}, {operation: refit}]", "folders is nothing that `operation: "),
    ("seed: [1, 2]", "seed: takes one value, not a list"),
    ("seed: 1.5", "seed: '1.5' is not a whole number"),
    ("temperature: warm", "temperature: 'warm' is not a number"),
    ("overwrite: perhaps", "overwrite: 'perhaps' is not true or false"),
    ("- a", "holds no mapping"),
    ("a: [", "cannot be read as a YAML or JSON mapping"),
]


@pytest.mark.parametrize("text, message", BAD, ids=[text for text, _ in BAD])
def test_a_bad_recipe_is_one_line_that_names_the_file(text, message, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(text)
    assert train_st.main([str(tmp_path / "r.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'r.yaml'}: ") and message in error and error.count("\n") == 1


def test_a_missing_recipe_is_one_line(tmp_path, capsys):
    assert train_st.main([str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: cannot be read as a YAML or JSON mapping (No such file" in capsys.readouterr().err


def test_stages_go_on_from_each_other_and_compare_with_the_first_backbone(train_flags, tmp_path):
    values = as_values(train_flags(output_dir=tmp_path / "m", max_steps=1))
    (tmp_path / "r.yaml").write_text(
        yaml.safe_dump(values | {"stages": [{}, {"max_seq_length": 96, "max_steps": 2, "learning_rate": 0.0}]})
    )
    assert train_st.main([str(tmp_path / "r.yaml")]) == 0
    record = json.loads((tmp_path / "m" / "training.json").read_text())
    assert record["model"]["backbone"] == values["backbone"] and record["report"]["retrieval"]
    assert record["training"]["max_steps"] == 2 and record["previous"]["training"]["max_steps"] == 1
    assert json.loads((tmp_path / "m" / "config.json").read_text())["max_seq_length"] == 96
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "r.yaml"]


def test_a_run_cut_off_between_stages_goes_on_behind_the_finished_one(train_flags, tmp_path, capsys, monkeypatch):
    """The second stage's training dies; a second try trains the second stage alone and gives what one try gives."""
    stages = [{"max_steps": 2}, {"max_steps": 3, "seed": 8}, {"operation": "refit"}]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"stages": stages}))

    def arguments(name: str, **changes) -> list[str]:
        return [
            str(tmp_path / "r.yaml"),
            *train_flags(output_dir=tmp_path / name, skip_evaluation=True, seed=None, max_steps=None, **changes),
        ]

    assert train_st.main(arguments("whole")) == 0
    real, trained = run.train, []

    def dies(stage, *args):
        trained.append(stage.training.max_steps)
        if trained == [2, 3]:
            raise KeyboardInterrupt
        return real(stage, *args)

    monkeypatch.setattr(run, "train", dies)
    with pytest.raises(KeyboardInterrupt):
        train_st.main(arguments("cut"))
    assert not (tmp_path / "cut").exists()
    capsys.readouterr()
    assert train_st.main(arguments("cut")) == 2  # neither gone on from nor written over by accident
    assert "cut.run: is what a run that was cut off left; pass --resume_from_checkpoint true" in capsys.readouterr().err
    assert train_st.main(arguments("cut", resume_from_checkpoint=True, learning_rate=1.0)) == 2
    assert "was made with other arguments (training)" in capsys.readouterr().err
    assert train_st.main(arguments("cut", resume_from_checkpoint=True)) == 0
    assert trained == [2, 3, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "r.yaml", "whole"]
    for name in ("model.safetensors", "heads.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_nomic_recipe_on_a_tiny_nomic(tiny_backbones, finqa_files, tmp_path):
    flags = ["--backbone", tiny_backbones["nomic_bert"], "--matryoshka_dims", *map(str, DIMS),
             "--data", finqa_files["train"], "--eval_data", finqa_files["eval"], "--precision", "fp32",
             "--max_seq_length", "160", "--max_steps", "2", "--per_device_train_batch_size", "16",
             "--mini_batch_size", "4", "--fresh_pairs", "0",
             "--output_dir", str(tmp_path / "m")]  # fmt: skip
    assert train_st.main([str(ROOT / "recipes" / "nomic.yaml"), *flags]) == 0
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["max_seq_length"] == 160 and config["original_max_position_embeddings"] == 128
    assert config["prompts"]["query"] == "search_query: "


def test_data_names_another_folder_in_a_recipe(tmp_path, monkeypatch):
    (tmp_path / "r.yaml").write_text("data: [$DATA/finqa/train.json]\nnumeric_weight: 2\n")
    monkeypatch.delenv("DATA", raising=False)
    assert read_stages([str(tmp_path / "r.yaml")])[0].data.data == ["../shared/data/finqa/train.json"]
    monkeypatch.setenv("DATA", "elsewhere")
    assert read_stages([str(tmp_path / "r.yaml")])[0].data.data == ["elsewhere/finqa/train.json"]
