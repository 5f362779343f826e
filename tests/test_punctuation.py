"""A tokenizer without silent punctuation: no figure changes, every client reads the same tokens."""

import json

import pytest
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer

from finmatryoshka import train_st
from finmatryoshka.training.punctuation import without_punctuation

SILENT = [
    ("[['net sales', '1,234.5'], [\"other\", '(12)']]", "net sales 1,234.5 other (12)"),
    ("sales , at year's end . costs 3.", "sales at year s end costs 3"),
    ("\u2018a\u2019 \u201cb\u201d `c`", "a b c"),
]
SPOKEN = ["1,234.5", "$ (12)", "-3 %", ".5", "5:1", "1-2", "12/31"]


@pytest.fixture
def stripped(tiny_tokenizer, tiny_backbones):
    return without_punctuation(AutoTokenizer.from_pretrained(tiny_backbones["bert"]))


@pytest.mark.parametrize("text, same", SILENT)
def test_what_says_nothing_is_not_read(stripped, tiny_tokenizer, text, same):
    assert stripped(text)["input_ids"] == tiny_tokenizer(same)["input_ids"]
    assert stripped(text)["input_ids"] != tiny_tokenizer(text)["input_ids"]


@pytest.mark.parametrize("text", SPOKEN)
def test_a_figure_is_read_as_it_stands(stripped, tiny_tokenizer, text):
    assert stripped(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
    assert "[UNK]" not in tiny_tokenizer.convert_ids_to_tokens(stripped(text)["input_ids"])


def test_what_is_stripped_stays_as_it_is(stripped):
    assert without_punctuation(stripped) is stripped
    assert stripped.model_max_length == 128 and stripped.pad_token == "[PAD]"


def test_a_trained_folder_tells_every_client(train_flags, tmp_path):
    flags = train_flags("bert", output_dir=tmp_path / "m", strip_punctuation=True, max_steps=2, skip_evaluation=True)
    (tmp_path / "r.json").write_text(json.dumps({"stages": [{}, {"operation": "refit"}]}))
    assert train_st.main([str(tmp_path / "r.json"), *flags]) == 0
    text, same = SILENT[0]
    raw = Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    assert raw.encode(text).ids == raw.encode(same).ids
    native = SentenceTransformer(str(tmp_path / "m"))
    assert (native.encode(text) == native.encode(same)).all()
    assert native.tokenizer(text)["input_ids"] == raw.encode(text).ids
    ours = AutoModel.from_pretrained(tmp_path / "m", trust_remote_code=True)
    assert ours.tokenizer(text)["input_ids"] == raw.encode(text).ids
    # transformers 4 knows no TokenizersBackend
    assert (
        json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())["tokenizer_class"]
        == "PreTrainedTokenizerFast"
    )
