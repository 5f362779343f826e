"""Every recipe of the repository parses, and nomic's runs its whole code path on a tiny NomicBert."""

import json

import pytest
import yaml

from finmatryoshka import train_st
from finmatryoshka.training import run

from conftest import DIMS, ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_recipe_parses(path):
    overrides = ["--precision", "fp32"] if yaml.safe_load(path.read_text()).get("precision") == "fp16" else []
    phases = run.parse_phases([str(path), *overrides])
    values = yaml.safe_load(path.read_text())
    then = values.pop("then", None)
    assert len(phases) == (2 if then else 1)
    for groups, expected in zip(phases, (values, values | (then or {}))):
        for name in expected.keys() - {"precision", "output_dir", "overwrite", "backbone", "skip_evaluation"}:
            owner = next(group for group in groups if hasattr(group, name))
            assert getattr(owner, name) == expected[name], name


def test_two_phases_go_on_from_each_other_and_compare_with_the_first_backbone(train_flags, tmp_path):
    values, flags = {}, train_flags(output_dir=tmp_path / "m", max_steps=1)
    for flag in flags:
        if flag.startswith("--"):
            values[flag[2:]] = name = []
        else:
            name.append(yaml.safe_load(flag))
    values = {k: v[0] if len(v) == 1 else v for k, v in values.items()} | {
        "then": {"max_seq_length": 96, "max_steps": 2}
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    assert train_st.main([str(tmp_path / "r.yaml")]) == 0
    record = json.loads((tmp_path / "m" / "training.json").read_text())
    assert record["model"]["base"] == values["backbone"] and record["previous"]["training"]["max_steps"] == 1
    assert json.loads((tmp_path / "m" / "config.json").read_text())["max_seq_length"] == 96
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "r.yaml"]
    with pytest.raises(ValueError, match="has two phases"):
        run.parse_arguments([str(tmp_path / "r.yaml")])


def test_nomic_recipe_on_a_tiny_nomic(tiny_backbones, finqa_files, tmp_path):
    flags = ["--backbone", tiny_backbones["nomic_bert"], "--matryoshka_dims", *map(str, DIMS), "--data", finqa_files["train"], "--eval_data",
             finqa_files["eval"], "--precision", "fp32", "--max_seq_length", "160", "--max_steps", "2", "--per_device_train_batch_size", "16",
             "--mini_batch_size", "4", "--output_dir", str(tmp_path / "m")]  # fmt: skip
    assert train_st.main([str(ROOT / "recipes" / "nomic.yaml"), *flags]) == 0
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["max_seq_length"] == 160 and config["original_max_position_embeddings"] == 128
    assert config["prompts"]["query"] == "search_query: "
