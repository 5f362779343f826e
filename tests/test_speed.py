"""The commands that measure speed, on tiny models, and what they rest on: ratios, fast paths near fp32, start-up."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer

from finmatryoshka import FinMatryoshkaModel
from finmatryoshka.data.loading import load_source
from finmatryoshka.encoding_finmatryoshka import batches_by_length, resolve_precision
from finmatryoshka.eval import __main__ as cli
from finmatryoshka.eval.encoding import encode_by_length
from finmatryoshka.eval.models import load_model
from finmatryoshka.eval.retrieval import EncodeOnce
from finmatryoshka.eval.sizes import filled
from finmatryoshka.eval.speed import variants_of
from finmatryoshka.eval.stopwatch import memory_ratios, operator_shares, ratios
from finmatryoshka.training import speed

PAGES = ["net sales were 5 millions " * n for n in (1, 9, 2, 14, 3)]


def test_ratios_are_within_each_repeat():
    calls = {"a": lambda: torch.ones(50 << 20).sum(), "b": lambda: torch.ones(25 << 20).sum()}
    memory = memory_ratios(calls, "a")["b"]
    assert memory is None or memory == pytest.approx(0.5, abs=0.1)
    assert ratios({"a": [2.0, 4.0, 3.0], "b": [1.0, 1.0, 3.0]}, "a")["b"] == (2.0, 1.0, 4.0)


def test_the_costly_operator_is_named():
    square = torch.ones(1024, 1024)
    shares = operator_shares(lambda: (square @ square).add(1), most=2)
    assert list(shares) == ["aten::mm", "aten::add"] and 0 < shares["aten::add"] < shares["aten::mm"] < 1


def test_a_batch_holds_as_many_tokens_as_are_asked_for():
    def tokenize(texts):
        return {"input_ids": [text.split() for text in texts], "about": [[len(text)] for text in texts]}

    batches = list(batches_by_length(PAGES, tokenize, 90))
    assert [positions for positions, _ in batches] == [[3], [1, 4], [2, 0]]  # 70, 2 x 45, 2 x 10 tokens
    assert batches[2][1]["about"] == [[len(PAGES[2])], [len(PAGES[0])]]
    assert [len(p) for p, _ in batches_by_length(PAGES, tokenize, 90, 2)] == [2, 2, 1]


def test_every_fast_path_gives_the_vectors_of_fp32(tiny_backbones, trained_folders):
    for variant in (variants := variants_of(tiny_backbones["bert"])).values():
        assert F.cosine_similarity(variant.pages(PAGES), next(iter(variants.values())).pages(PAGES)).min() > 0.99
    model = FinMatryoshkaModel.from_pretrained(trained_folders["bert"])
    exact = torch.from_numpy(model.encode(PAGES))
    for precision in ("auto", "bf16"):
        vectors = torch.from_numpy(model.encode(PAGES, precision=precision))
        assert F.cosine_similarity(vectors, exact).min() > 0.99
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))  # whatever the backbone's products are
    assert not torch.equal(torch.from_numpy(model.encode(PAGES, precision="bf16")), exact)
    assert model.predict_number(PAGES, precision="bf16") == pytest.approx(model.predict_number(PAGES), rel=0.1)
    with pytest.raises(ValueError, match="precision='int8': auto, fp32, bf16, fp16"):
        model.encode(PAGES, precision="int8")


def test_the_evaluation_multiplies_in_what_it_says(tiny_backbones, finqa_files, tmp_path, capsys):
    model = load_model(tiny_backbones["bert"])
    exact = model.encode_document(PAGES, convert_to_tensor=True)
    assert torch.allclose(EncodeOnce(model, precision="fp32").encode_document(PAGES), exact, atol=1e-6)
    low = EncodeOnce(model, precision="bf16")
    assert low.precision == "bf16" and not torch.allclose(low.encode_document(PAGES), exact, atol=1e-6)
    assert F.cosine_similarity(low.encode_document(PAGES), exact).min() > 0.99
    for asked, found in (("fp32", "fp32"), ("auto", resolve_precision("auto", "cpu"))):
        output = tmp_path / asked
        flags = ["--data", finqa_files["eval"], "--sections", "retrieval", "--dims", "8", "--precision", asked]
        assert cli.main([tiny_backbones["bert"], *flags, "--output", str(output)]) == 0
        assert json.loads((output / "results.json").read_text())["precision"] == found
    capsys.readouterr()


def test_texts_are_filled_to_the_tokens_asked_for_and_cut_soon_after(tiny_backbones, finqa_files):
    tokenizer = load_model(tiny_backbones["bert"]).tokenizer
    pages = [page.text for page in load_source(finqa_files["eval"]).pages.values()]
    for tokens in (16, 128):
        texts = filled(pages, 40, tokens)
        lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
        assert len(set(texts)) == 40 and tokens <= min(lengths) and max(lengths) < 12 * tokens


def test_what_has_no_tokenizer_is_encoded_in_order():
    class Words:
        def encode(self, texts, **_):
            return torch.tensor([[float(len(text.split()))] for text in texts])

    assert encode_by_length(Words(), Words().encode, PAGES, batch_tokens=60)[:, 0].tolist() == [5, 45, 10, 70, 15]


def test_the_commands_run(tiny_backbones, finqa_files, tmp_path, capsys):
    data = ["--data", finqa_files["eval"], "--repeats", "1"]
    output = tmp_path / "speed"
    assert cli.main(["speed", tiny_backbones["bert"], "--texts", "8", *data, "--output", str(output)]) == 0
    assert "nDCG@10" in capsys.readouterr().out and "batches by tokens, fp32" in (output / "speed.md").read_text()
    rows = json.loads((output / "speed.json").read_text())["encoding"]
    assert all(0 < sum(row["operators"].values()) <= 1 for row in rows)
    assert len(rows) == 7 and rows[0]["ratio"] == [1.0, 1.0, 1.0] and all(row["least cosine"] > 0.99 for row in rows)
    base = ["--base", tiny_backbones["bert"], "--dims", "32", "16", "--length", "160", "--pairs", "4", *data]
    assert speed.main(base) == 0
    training = capsys.readouterr().out
    assert "plain sentence-transformers, fp32, its dropout" in training and "2 dimensions and numbers" in training
    assert speed.main([*base, "--trainer", "--steps", "2"]) == 0
    assert "the trainer" in capsys.readouterr().out
    sizes = ["--sizes", "--lengths", "16", "32", "--counts", "4", "40"]
    assert cli.main(["speed", tiny_backbones["bert"], "--texts", "4", *data, *sizes, "--output", str(output)]) == 0
    assert (output / "cost_over_size.png").is_file() and (output / "cost_over_size.svg").is_file()
    assert speed.main([*base, *sizes]) == 0
    assert "over length" in capsys.readouterr().out


def test_help_and_import_load_no_model_code():
    asked = "import sys; from finmatryoshka import train_st; train_st.main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "--matryoshka_dims" in done.stdout and "--help all" in done.stdout
    assert not {"torch", "sentence_transformers", "finmatryoshka.modeling_finmatryoshka"} & loaded


def test_the_model_loads_nothing_that_torch_and_transformers_do_not():
    asked = """
import sys, torch
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
before = {name.partition(".")[0] for name in sys.modules}
from finmatryoshka import FinMatryoshkaModel
print(*{name.partition(".")[0] for name in sys.modules} - before)
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["finmatryoshka"]


def test_plain_sentence_transformers_takes_the_two_arguments_that_the_readme_names(trained_folders):
    """The dtype of the weights reaches every module, and so the vectors."""
    folder = trained_folders["bert"]
    model = SentenceTransformer(folder, model_kwargs={"dtype": "bfloat16"})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    vectors = model.encode(PAGES, batch_size=8, convert_to_tensor=True).float()
    exact = SentenceTransformer(folder).encode(PAGES, convert_to_tensor=True)
    assert F.cosine_similarity(vectors, exact).min() > 0.99
