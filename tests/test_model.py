"""modeling_finmatryoshka.py and configuration_finmatryoshka.py: nesting, gradients, encode, saving, long texts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from finmatryoshka import FinMatryoshkaConfig, FinMatryoshkaModel
from finmatryoshka.training.backbone import (
    BackboneError,
    as_sentence_transformer,
    check_backbone,
    load_finmatryoshka,
    start_projection,
)

from conftest import DIMS, SHAPE

ARCHITECTURES = ["bert", "nomic_bert", "modernbert"]
TEXTS = [
    "net sales of alder foods in 2015",
    "interest expense",
    "the table of cobalt energy lists notes and loans , in thousands",
]


@pytest.fixture(params=ARCHITECTURES)
def model(request, tiny_backbones) -> FinMatryoshkaModel:
    torch.manual_seed(1)
    return load_finmatryoshka(tiny_backbones[request.param], DIMS).eval()


@pytest.fixture
def inputs(tiny_tokenizer):
    return tiny_tokenizer(TEXTS, padding=True, return_tensors="pt")


def test_output_is_nested_and_of_unit_length(model, inputs):
    output = model(**{k: v for k, v in inputs.items() if k != "token_type_ids"})
    assert output.last_hidden_state.shape == (3, inputs["input_ids"].shape[1], SHAPE["hidden_size"])
    for dim in DIMS:
        assert output.embeddings[dim].shape == (3, dim) and output.numeric[dim].shape == (3,)
        torch.testing.assert_close(output.embeddings[dim].norm(dim=1), torch.ones(3))
        prefix = torch.nn.functional.normalize(output.embeddings[DIMS[0]][:, :dim], dim=1)
        torch.testing.assert_close(output.embeddings[dim], prefix)


def test_numbers_are_z_mapped_back(model, inputs):
    model.config.numeric_mean, model.config.numeric_std = 2.0, 3.0
    output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    logs = output.numeric[8].double() * 3 + 2
    torch.testing.assert_close(output.numbers[8], logs.sign() * (logs.abs().exp() - 1))


def test_gradients_reach_every_backbone_layer(model, inputs):
    model.train()
    output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    (output.embeddings[8][:, 0].sum() + output.numeric[8].sum()).backward()
    for name, parameter in model.named_parameters():
        if "pooler" in name:  # BERT's pooler: published weights, no part of any embedding
            assert not parameter.requires_grad
        elif "numeric_heads" not in name or "numeric_heads.8" in name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_padding_does_not_change_a_vector(model):
    alone, batch = model.encode(TEXTS[1]), model.encode(TEXTS)
    np.testing.assert_allclose(alone, batch[1], atol=1e-5)


def test_encode_and_predict_number(model):
    vectors = model.encode(TEXTS, dim=16, batch_size=2)
    assert vectors.shape == (3, 16) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    # order is the caller's, whatever the batches
    np.testing.assert_allclose(vectors, np.stack([model.encode(t, dim=16) for t in TEXTS]), atol=1e-5)
    assert model.predict_number(TEXTS).shape == (3,) and isinstance(model.predict_number(TEXTS[0]), float)


def test_empty_and_wrong_texts(model):
    assert model.encode([]).shape == (0, 32) and model.encode([], dim=8).shape == (0, 8)
    assert model.predict_number([]).shape == (0,)
    for wrong in (None, 3.5):
        with pytest.raises(TypeError, match=r"texts\[1\] is (NoneType|float), not a string"):
            model.encode(["fine", wrong])
    with pytest.raises(ValueError, match="dim=100: this model has 32, 16, 8"):
        model.encode(["x"], dim=100)
    with pytest.raises(ValueError, match="prompt_name='passage'"):
        model.encode(["x"], prompt_name="passage")


def test_texts_and_sizes_are_checked_before_any_work(model, monkeypatch):
    expected = model.encode(TEXTS)
    np.testing.assert_array_equal(model.encode(iter(TEXTS)), expected)
    np.testing.assert_array_equal(model.encode(np.array(TEXTS)), expected)
    assert model.predict_number(iter(TEXTS)).shape == (3,)
    monkeypatch.setattr(model, "forward", lambda **inputs: pytest.fail("work was done"))

    class Table(list):
        columns = ("text",)

    for wrong in ({"text": "x"}, Table(["text"]), b"net sales"):
        with pytest.raises(TypeError, match="give a list of strings"):
            model.encode(wrong)
    for size in (0, -1, "8"):
        with pytest.raises(ValueError, match="batch_size="):
            model.encode(TEXTS, batch_size=size)
    with pytest.raises(ValueError, match="dim='16': this model has 32, 16, 8, as numbers"):
        model.encode(TEXTS, dim="16")


@pytest.mark.parametrize(
    "dims, message",
    [([16, 32], "must strictly decrease; write 32 16"), ([32, 32], "must strictly decrease"),
     ([128, 64], "exceeds the backbone's width of 64"), ([32, 0], "not a positive dimension"), ([], "is empty")],
)  # fmt: skip
def test_bad_dimensions(dims, message):
    with pytest.raises(ValueError, match=message):
        FinMatryoshkaConfig(model_type="bert", matryoshka_dims=dims, **SHAPE)


def test_unsupported_backbone_type():
    with pytest.raises(ValueError, match="backbone of type 'gpt2'"):
        FinMatryoshkaConfig(model_type="gpt2")


def test_bad_backbone_folders(tmp_path, tiny_backbones):
    with pytest.raises(BackboneError, match="no such folder"):
        check_backbone(str(tmp_path / "none"), DIMS)
    with pytest.raises(BackboneError, match="no config.json"):
        check_backbone(str(tmp_path), DIMS)
    (tmp_path / "config.json").write_text((Path(tiny_backbones["bert"]) / "config.json").read_text())
    with pytest.raises(BackboneError, match="has a config but no weights"):
        check_backbone(str(tmp_path), DIMS)
    with pytest.raises(BackboneError, match="neither a local folder nor loadable from the Hub"):
        check_backbone("nobody/nothing-of-this-name", DIMS)


def test_save_and_load_keeps_every_number(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = FinMatryoshkaModel.from_pretrained(tmp_path).eval()
    assert again.config.to_diff_dict() | {"_name_or_path": ""} == model.config.to_diff_dict() | {"_name_or_path": ""}
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values()):
        assert torch.equal(a, b), name
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == model.config.model_type
    assert config["auto_map"]["AutoModel"] == "modeling_finmatryoshka.FinMatryoshkaModel"
    index = json.loads((tmp_path / "finmatryoshka.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {"model.safetensors", "2_Dense/model.safetensors", "heads.safetensors"}
    for name in ("modeling_finmatryoshka.py", "configuration_finmatryoshka.py", "encoding_finmatryoshka.py"):
        assert (tmp_path / name).read_bytes() == (Path(__file__).parent.parent / name).read_bytes()


def test_nomic_weights_keep_their_published_names(tiny_backbones, tmp_path):
    load_finmatryoshka(tiny_backbones["nomic_bert"], DIMS).save_pretrained(tmp_path)
    names = json.loads((tmp_path / "finmatryoshka.safetensors.index.json").read_text())["weight_map"]
    assert names["encoder.layers.0.attn.Wqkv.weight"] == "model.safetensors"
    assert "encoder.layers.1.mlp.fc11.weight" in names and names["linear.weight"] == "2_Dense/model.safetensors"


def test_config_has_the_keys_that_text_embeddings_inference_asks_of_nomic(tiny_backbones, tmp_path):
    load_finmatryoshka(tiny_backbones["nomic_bert"], DIMS).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    expected = {
        "prenorm": False, "rotary_emb_fraction": 1.0, "rotary_emb_base": 1000.0, "rotary_emb_interleaved": False,
        "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "n_embd": 64, "n_head": 4, "n_inner": 128,
        "n_layer": 2, "n_positions": 128, "activation_function": "swiglu",
        "layer_norm_epsilon": config["layer_norm_eps"], "vocab_size": config["vocab_size"], "type_vocab_size": 2,
    }  # fmt: skip
    assert {name: config[name] for name in expected} == expected


def _long_text(words: int) -> str:
    return " ".join(["net sales"] * words)


def test_bert_positions_are_interpolated_and_the_config_says_so(tiny_backbones, tmp_path):
    native = AutoModel.from_pretrained(tiny_backbones["bert"])
    model = load_finmatryoshka(tiny_backbones["bert"], DIMS, max_seq_length=300).eval()
    old, new = (m.embeddings.position_embeddings.weight for m in (native, model.backbone))
    assert new.shape[0] == 300
    torch.testing.assert_close(new[:64], old[:64])  # what is short stays as it was
    torch.testing.assert_close(new[-1], old[-1])
    torch.testing.assert_close(new[65], old[64] + (old[65] - old[64]) * 63 / 235)
    assert (model.config.max_position_embeddings, model.config.original_max_position_embeddings) == (300, 128)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_backbones["bert"]).save_pretrained(tmp_path)
    again = FinMatryoshkaModel.from_pretrained(tmp_path).eval()
    assert again.config.max_seq_length == 300
    np.testing.assert_allclose(model.encode(_long_text(140)), again.encode(_long_text(140)), atol=1e-6)
    # what stands beyond the old limit counts
    assert not np.allclose(
        again.encode(_long_text(140)), again.encode(_long_text(140)[:-40] + " interest expense group")
    )


def test_nomic_positions_use_rotary_scaling_and_short_texts_stay_as_they_were(tiny_backbones, tmp_path):
    short = load_finmatryoshka(tiny_backbones["nomic_bert"], DIMS).eval()
    model = load_finmatryoshka(tiny_backbones["nomic_bert"], DIMS, max_seq_length=256).eval()
    assert model.config.rope_parameters["rope_type"] == "dynamic"
    assert (model.config.max_position_embeddings, model.config.original_max_position_embeddings) == (256, 128)
    model.load_state_dict(short.state_dict())
    np.testing.assert_allclose(model.encode(TEXTS), short.encode(TEXTS), atol=1e-6)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_backbones["nomic_bert"]).save_pretrained(tmp_path)
    again = FinMatryoshkaModel.from_pretrained(tmp_path).eval()
    np.testing.assert_allclose(model.encode(_long_text(120)), again.encode(_long_text(120)), atol=1e-6)


def test_modernbert_beyond_its_positions_is_refused(tiny_backbones):
    with pytest.raises(ValueError, match="reads 128 tokens"):
        load_finmatryoshka(tiny_backbones["modernbert"], DIMS, max_seq_length=256)


def test_identity_start_is_the_truncated_base(tiny_backbones, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = load_finmatryoshka(tiny_backbones["bert"], DIMS)
    sentence_model = as_sentence_transformer(model, tiny_backbones["bert"], str(tmp_path))
    start_projection(sentence_model, [], "identity")
    base = SentenceTransformer(tiny_backbones["bert"]).encode(TEXTS)[:, :32]
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    np.testing.assert_allclose(sentence_model.encode(TEXTS), base, atol=1e-5)


def test_pca_start_keeps_more_of_the_base_than_a_slice(tiny_backbones, tmp_path):
    from sentence_transformers import SentenceTransformer

    texts = [
        f"{a} {b} of {c}"
        for a in ("net sales", "cost", "debt")
        for b in ("land", "buildings", "notes", "loans")
        for c in ("alder", "ember", "sable")
    ]
    base = SentenceTransformer(tiny_backbones["bert"]).encode(texts, normalize_embeddings=True)
    model = load_finmatryoshka(tiny_backbones["bert"], DIMS)
    sentence_model = as_sentence_transformer(model, tiny_backbones["bert"], str(tmp_path))

    def error(how):
        start_projection(sentence_model, texts, how)
        vectors = sentence_model.encode(texts, truncate_dim=8, normalize_embeddings=True)
        return np.abs(vectors @ vectors.T - base @ base.T).mean()

    assert error("pca") < error("identity")
    with pytest.raises(ValueError, match="needs at least 32 texts"):
        start_projection(sentence_model, texts[:5], "pca")


def test_sentence_transformer_and_model_give_the_same_vectors(model, tiny_backbones, tmp_path):
    sentence_model = as_sentence_transformer(model, tiny_backbones[model.config.model_type], str(tmp_path))
    start_projection(sentence_model, [], "identity")
    np.testing.assert_allclose(sentence_model.encode(TEXTS), model.encode(TEXTS), atol=1e-5)
    assert sentence_model[2].linear.weight is model.projection.weight
