"""The saved folder opens every door with the same vectors and without a word, in a process without this project."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from finmatryoshka.data.files import written_whole
from finmatryoshka.sentence_transformers_config.check import check_doors
from finmatryoshka.sentence_transformers_config.folder import write_folder
from finmatryoshka.training.backbone import load_finmatryoshka

TEXTS = ["what was the net sales of alder foods in 2015?", "notes and loans outstanding , in thousands", "land " * 90]


@pytest.mark.parametrize(
    "backbone, native", [("bert", "BertModel"), ("nomic_bert", "NomicBertModel"), ("modernbert", "ModernBertModel")]
)
def test_every_door_gives_the_same_vectors_without_a_word(trained_folders, open_doors, tmp_path, backbone, native):
    folder = trained_folders[backbone]
    found = open_doors(folder, TEXTS, tmp_path, fresh=backbone == "bert")
    assert found["errors"] == {} and all(value < 1e-5 for value in found["differences"].values()), found["differences"]
    assert found["types"]["AutoModel, pooled and projected by hand"] == [native, "float32"]
    assert found["types"]["AutoModel with trust_remote_code"] == ["FinMatryoshkaModel", "float32"]
    assert np.isfinite(found["numbers"]).all()
    np.testing.assert_allclose(np.linalg.norm(found["vectors"], axis=1), 1, atol=1e-5)


def test_the_projects_own_check_opens_them_in_a_new_interpreter(trained_folders, cold_doors):
    assert check_doors(Path(trained_folders["bert"])) == []


def test_layout(trained_folders):
    folder = Path(trained_folders["nomic_bert"])
    assert [m["type"] for m in json.loads((folder / "modules.json").read_text())] == [
        f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Dense", "Normalize")
    ]
    assert (folder / "2_Dense" / "model.safetensors").is_file()
    dense = json.loads(
        (folder / "2_Dense" / "config.json").read_text()
    )  # what sentence-transformers 2 to 4 take, no more
    assert set(dense) == {"in_features", "out_features", "bias", "activation_function"}
    assert json.loads((folder / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"] is True
    assert json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 64
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 64 and "max_length" not in tokenizer
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert settings["prompts"] == {"query": "search_query: ", "document": "search_document: "}
    assert settings["similarity_fn_name"] == "cosine"
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert not any(name.startswith(("projection", "numeric", "nomic_bert")) for name in weights.keys())
    assert not list(folder.rglob("*.bin"))


def test_a_prompt_that_is_given_leaves_nomics_others(tiny_backbones):
    prompts = load_finmatryoshka(tiny_backbones["nomic_bert"], [16], 64, prompts={"query": "q: "}).config.prompts
    assert prompts == {"query": "q: ", "document": "search_document: ", "numeric": "classification: "}


def test_further_training_from_a_published_folder_keeps_heads_and_scale(trained_folders, train_flags, tmp_path):
    from finmatryoshka import train_st
    from finmatryoshka.modeling_finmatryoshka import FinMatryoshkaModel

    first = trained_folders["bert"]
    out = tmp_path / "more"
    flags = train_flags(
        first, output_dir=out, max_steps=1, learning_rate=0.0, numeric_learning_rate=0.0, skip_evaluation=True
    )
    assert train_st.main(flags) == 0
    a, b = (FinMatryoshkaModel.from_pretrained(path) for path in (first, out))
    assert (a.config.numeric_mean, a.config.numeric_std) == (b.config.numeric_mean, b.config.numeric_std) != (0.0, 1.0)
    for (name, before), after in zip(a.state_dict().items(), b.state_dict().values()):
        np.testing.assert_allclose(before.numpy(), after.numpy(), atol=1e-7, err_msg=name)


def test_a_failed_save_leaves_the_old_folder_and_nothing_else(tmp_path):
    target = tmp_path / "model"
    with written_whole(target) as folder:
        (folder / "a").write_text("good")
    with pytest.raises(RuntimeError):
        with written_whole(target) as folder:
            (folder / "a").write_text("half")
            raise RuntimeError("disk full")
    assert (target / "a").read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_write_folder_replaces_only_when_complete(trained_folders, tmp_path, monkeypatch):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(trained_folders["bert"], trust_remote_code=True)
    write_folder(model, tmp_path / "m", {"README.md": "one"})
    monkeypatch.setattr("finmatryoshka.sentence_transformers_config.folder.write_layout", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_folder(model, tmp_path / "m", {"README.md": "two"})
    assert (tmp_path / "m" / "README.md").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1
