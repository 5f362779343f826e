"""Saved by whoever and however, a folder opens every door again, or says what is stale; a warm start keeps what was
trained."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from finmatryoshka import FinMatryoshkaModel
from finmatryoshka.sentence_transformers_config import __main__ as cli
from finmatryoshka.sentence_transformers_config.check import check_doors, open_in_clean_process
from finmatryoshka.training.backbone import BackboneError, load_finmatryoshka

TEXTS = ["net sales of alder foods in 2015", "interest expense", "the table lists notes and loans , in thousands"]


@pytest.fixture
def folder(trained_folders, tmp_path) -> Path:
    return Path(shutil.copytree(trained_folders["bert"], tmp_path / "original"))


def _open(folder: Path) -> FinMatryoshkaModel:
    return AutoModel.from_pretrained(folder, trust_remote_code=True).eval()


def _train_outside(folder: Path, target: Path) -> np.ndarray:
    """As sentence-transformers' own trainer does: backbone and Dense layer learn, the heads and the model's projection
    do not."""
    model = SentenceTransformer(str(folder), trust_remote_code=True)
    with torch.no_grad():
        model[2].linear.weight.add_(0.05)
        next(model[0].auto_model.backbone.parameters()).add_(0.01)
    model.save_pretrained(str(target))
    return model.encode(TEXTS)


def test_a_save_of_the_model_alone_opens_every_door(folder, tmp_path):
    vectors = _open(folder).encode(TEXTS)
    _open(folder).save_pretrained(tmp_path / "x")
    assert check_doors(tmp_path / "x") == []
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path / "x")).encode(TEXTS), vectors, atol=1e-6)


def test_a_tokenizer_that_does_not_fit_is_refused(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match="its tokenizer has .* entries, the model"):
        _open(folder).encode(TEXTS)


def test_fine_tuned_outside_the_projection_is_one_matrix_again_and_the_heads_are_marked(folder, tmp_path):
    vectors = _train_outside(folder, tmp_path / "x")
    model = _open(tmp_path / "x")
    np.testing.assert_allclose(model.encode(TEXTS), vectors, atol=1e-6)
    assert model.heads_stale and model(**model.tokenizer(TEXTS, padding=True, return_tensors="pt")).numbers is None
    with pytest.raises(ValueError, match="fitted to other vectors"):
        model.predict_number(TEXTS)
    model.save_pretrained(tmp_path / "again")  # the mark stays
    assert _open(tmp_path / "again").heads_stale
    (problem,) = check_doors(tmp_path / "x")
    assert problem.startswith("heads.safetensors: fitted to other vectors")


def test_heads_that_were_trained_since_fit_again_and_rounding_is_no_training(folder, tmp_path):
    _train_outside(folder, tmp_path / "x")
    model = load_finmatryoshka(str(tmp_path / "x"), [32, 16, 8])
    with torch.no_grad():
        model.numeric_heads["8"].out.weight.add_(0.1)
    model.save_pretrained(tmp_path / "trained")
    assert not FinMatryoshkaModel.from_pretrained(tmp_path / "trained").heads_stale
    for change in (lambda m: m, lambda m: m.half(), lambda m: m.bfloat16()):
        change(FinMatryoshkaModel.from_pretrained(folder)).save_pretrained(tmp_path / "same")
        assert not FinMatryoshkaModel.from_pretrained(tmp_path / "same").heads_stale
    assert not FinMatryoshkaModel.from_pretrained(folder, dtype=torch.bfloat16).heads_stale


def test_saved_without_trust_it_is_repaired_from_the_original(folder, tmp_path, capsys):
    plain = SentenceTransformer(str(folder))
    plain.save_pretrained(str(tmp_path / "x"))
    assert not (tmp_path / "x" / "heads.safetensors").exists()
    assert cli.main(["repair", str(tmp_path / "x"), "--from", str(folder)]) == 0
    assert check_doors(tmp_path / "x") == []
    np.testing.assert_allclose(_open(tmp_path / "x").predict_number(TEXTS), _open(folder).predict_number(TEXTS))
    with torch.no_grad():
        plain[2].linear.weight.add_(0.05)
    plain.save_pretrained(str(tmp_path / "y"))
    assert cli.main(["repair", str(tmp_path / "y"), "--from", str(folder)]) == 0
    assert "predicts no numbers" in capsys.readouterr().out
    np.testing.assert_allclose(_open(tmp_path / "y").encode(TEXTS), plain.encode(TEXTS), atol=1e-6)
    assert cli.main(["repair", str(tmp_path / "none"), "--from", str(folder)]) == 2
    assert "none/config.json: missing" in capsys.readouterr().err


def test_a_changed_projection_saved_over_its_own_folder(folder):
    model = FinMatryoshkaModel.from_pretrained(folder).eval()
    with torch.no_grad():
        model.projection.weight.neg_()
    model.save_pretrained(folder)
    np.testing.assert_allclose(SentenceTransformer(str(folder)).encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def test_opened_by_a_relative_path_and_used_elsewhere(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    model = FinMatryoshkaModel.from_pretrained(folder.name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert model.encode(TEXTS).shape == (3, 32)


def test_state_dict_and_shards_are_kept_and_the_rest_is_refused(folder, tmp_path):
    model = FinMatryoshkaModel.from_pretrained(folder)
    given = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "given", state_dict=given)
    for name, tensor in FinMatryoshkaModel.from_pretrained(tmp_path / "given").state_dict().items():
        assert torch.equal(tensor, given[name]), name
    with pytest.raises(ValueError, match="lacks 1 weights, among them projection.weight"):
        model.save_pretrained(tmp_path / "x", state_dict={n: t for n, t in given.items() if n != "projection.weight"})
    with pytest.raises(ValueError, match="variant"):
        model.save_pretrained(tmp_path / "x", variant="fp16")
    for size in ("100KB", "1GB"):  # split over a whole one, whole over a split one
        model.save_pretrained(tmp_path / "given", max_shard_size=size)
        assert (tmp_path / "given" / "model.safetensors").exists() == (size == "1GB")
        np.testing.assert_array_equal(
            FinMatryoshkaModel.from_pretrained(tmp_path / "given").encode(TEXTS), model.eval().encode(TEXTS)
        )
        assert open_in_clean_process(tmp_path / "given")["errors"] == {}


def test_a_warm_start_at_other_dimensions_keeps_the_trained_rows_and_heads(folder, tmp_path):
    with torch.no_grad():
        trained = FinMatryoshkaModel.from_pretrained(folder)
        trained.projection.weight.copy_(torch.randn_like(trained.projection.weight))
    trained.save_pretrained(folder)
    narrow = load_finmatryoshka(str(folder), [16, 8])
    assert torch.equal(narrow.projection.weight, trained.projection.weight[:16])
    assert torch.equal(narrow.numeric_heads["8"].out.weight, trained.numeric_heads["8"].out.weight)
    assert narrow.config.numeric_std == trained.config.numeric_std
    (folder / "heads.safetensors").unlink()  # as a save without trust leaves it
    assert torch.equal(load_finmatryoshka(str(folder), [32, 16, 8]).projection.weight, trained.projection.weight)
    with pytest.raises(BackboneError, match="was trained to 32 dimensions, 64 are asked for"):
        load_finmatryoshka(str(folder), [64, 8])
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="trained projection .* is missing"):
        load_finmatryoshka(str(folder), [16, 8])


def test_a_folder_of_before_still_opens(folder, tmp_path):
    """Until now the projection lay with the heads, and nothing said what the heads were fitted to."""
    model = FinMatryoshkaModel.from_pretrained(folder).eval()
    heads = load_file(folder / "heads.safetensors") | {"projection.weight": model.projection.weight.detach()}
    save_file(heads, folder / "heads.safetensors", metadata={"format": "pt"})
    index = json.loads((folder / "finmatryoshka.safetensors.index.json").read_text())
    del index["weight_map"]["linear.weight"], index["metadata"]["heads_fitted_to"]
    index["weight_map"]["projection.weight"] = "heads.safetensors"
    (folder / "finmatryoshka.safetensors.index.json").write_text(json.dumps(index))
    again = FinMatryoshkaModel.from_pretrained(folder).eval()
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
    assert not again.heads_stale and check_doors(folder) == []


def test_hidden_states_and_attentions(folder):
    model = FinMatryoshkaModel.from_pretrained(folder)
    inputs = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert len(model(**inputs, output_hidden_states=True).hidden_states) == 3
    with pytest.raises(ValueError, match="eager"):
        model(**inputs, output_attentions=True)
    eager = FinMatryoshkaModel.from_pretrained(folder, attn_implementation="eager")
    assert len(eager(**inputs, output_attentions=True).attentions) == 2


def test_what_vllm_asks_a_config(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["is_matryoshka"] is True and config["matryoshka_dimensions"] == config["matryoshka_dims"] == [
        32,
        16,
        8,
    ]
    assert not any(str(value).startswith(os.sep) for value in config.values())
