"""Tiny real models of every supported architecture and small files of every supported schema, made once a session."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ModernBertConfig,
    ModernBertModel,
    NomicBertConfig,
    NomicBertModel,
    PreTrainedTokenizerFast,
)

from finmatryoshka.data.sample import generate_finqa

ROOT = Path(__file__).parent.parent
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
DIMS = [32, 16, 8]


@pytest.fixture(scope="session", autouse=True)
def own_module_cache(tmp_path_factory):
    """Remote code of the tests' folders is cached apart from the user's."""
    os.environ["HF_MODULES_CACHE"] = str(tmp_path_factory.mktemp("modules"))


def _vocabulary() -> list[str]:
    text = json.dumps(generate_finqa(8) + generate_finqa(4, first_company=100))
    words = sorted(set(re.findall(r"[a-z]+", text.lower())))
    characters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,'()[]$%;:?-_/"]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters), *words]


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory) -> PreTrainedTokenizerFast:
    file = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    file.write_text("\n".join(dict.fromkeys(_vocabulary())))
    return BertTokenizer(str(file), model_max_length=128)


@pytest.fixture(scope="session")
def tiny_backbones(tiny_tokenizer, tmp_path_factory) -> dict[str, str]:
    """Folder by architecture; NomicBert's weights under nomic's published names."""
    torch.manual_seed(0)
    size = {"vocab_size": len(tiny_tokenizer), "pad_token_id": 0}
    special = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    models = {
        "bert": BertModel(BertConfig(**SHAPE, **size, max_position_embeddings=128)),
        "nomic_bert": NomicBertModel(NomicBertConfig(**SHAPE, **size, max_position_embeddings=128)),
        "modernbert": ModernBertModel(ModernBertConfig(**SHAPE, **size, **special, max_position_embeddings=128)),
    }
    folders = {}
    for name, model in models.items():
        folders[name] = str(tmp_path_factory.mktemp(name))
        model.save_pretrained(folders[name])
        tiny_tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="session")
def finqa_files(tmp_path_factory) -> dict[str, str]:
    """``train`` and ``eval`` JSON files in FinQA's schema that share no company."""
    folder = tmp_path_factory.mktemp("finqa")
    parts = {"train": generate_finqa(8), "eval": generate_finqa(4, first_company=100)}
    for name, records in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(records))
    return {name: str(folder / f"{name}.json") for name in parts}


@pytest.fixture(scope="session")
def tatqa_contexts() -> list[dict]:
    def question(uid, text, answer, scale="", answer_from="table", derivation="", paragraphs=()):
        return {
            "uid": uid, "order": 1, "question": text, "answer": answer, "scale": scale, "derivation": derivation,
            "answer_type": "arithmetic", "answer_from": answer_from, "rel_paragraphs": list(paragraphs),
        }  # fmt: skip

    return [
        {
            "table": {"uid": "t1", "table": [["", "Years ended", ""], ["", "2019", "2018"], ["Fixed price", "$1,452.4", "$1,146.2"],
                                             ["Other", "44.1", "56.7"]]},
            "paragraphs": [{"uid": "p1", "order": 1, "text": "Sales by contract type, in millions."},
                           {"uid": "p2", "order": 2, "text": "Most contracts are fixed-price."}],
            "questions": [
                question("a", "What is the change in Other in 2019?", -12.6, "million", derivation="44.1-56.7"),
                question("b", "What is the percentage change in Other?", -22.22, "percent", derivation="(44.1-56.7)/56.7"),
                question("c", "Which contracts are most?", ["fixed-price"], answer_from="text", paragraphs=["2"]),
            ],
        }
    ]  # fmt: skip


@pytest.fixture(scope="session")
def tatqa_file(tatqa_contexts, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("tatqa") / "dev.json"
    path.write_text(json.dumps(tatqa_contexts))
    return str(path)


@pytest.fixture(scope="session")
def train_flags(tiny_backbones, finqa_files):
    """Flags of a short fp32 run on a tiny backbone, by architecture."""

    def flags(backbone: str = "bert", **changes) -> list[str]:
        values = {
            "backbone": tiny_backbones.get(backbone, backbone), "matryoshka_dims": DIMS, "max_seq_length": 64,
            "data": finqa_files["train"], "eval_data": finqa_files["eval"], "projection_init": "identity",
            "precision": "fp32", "max_steps": 3, "per_device_train_batch_size": 8, "seed": 7,
        } | changes  # fmt: skip
        result = []
        for name, value in values.items():
            if value is not None:
                result += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
        return result

    return flags


@pytest.fixture(scope="session")
def trained_folders(train_flags, tmp_path_factory) -> dict[str, str]:
    """A folder that ``train_st.py`` wrote, by architecture of its backbone."""
    from finmatryoshka import train_st

    folders = {}
    for name in ("bert", "nomic_bert", "modernbert"):
        folders[name] = str(tmp_path_factory.mktemp(f"trained_{name}") / "model")
        assert train_st.main(train_flags(name, output_dir=folders[name])) == 0
    return folders


@pytest.fixture(scope="session")
def run_outside():
    """Run Python code in a process that cannot import this project, in a folder of its own; returns its output.

    Fails when the code fails, prints to stderr (a warning is a defect of the folder) or prints the token. ``variables`` are the
    environment's.
    """

    def run(code: str, cwd, check_stderr: bool = True, **variables: str) -> str:
        prelude = (
            "import sys; sys.modules['finmatryoshka'] = None\n"
            "import transformers, datasets\n"
            "transformers.utils.logging.disable_progress_bar()\n"
        )
        environment = (
            os.environ
            | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_MODULES_CACHE": str(Path(cwd) / "modules")}
            | variables
        )
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [sys.executable, "-c", prelude + code], cwd=cwd, env=environment, capture_output=True, text=True
        )
        assert variables.get("HF_TOKEN", "no token") not in done.stdout + done.stderr
        assert done.returncode == 0, done.stderr
        if check_stderr:
            assert done.stderr == ""
        return done.stdout

    return run


# Opens FOLDER (a folder or a Hub id) at REVISION through every door and compares the vectors of TEXTS.
DOORS = """
import json, numpy as np, torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer
custom = AutoModel.from_pretrained(FOLDER, trust_remote_code=True, revision=REVISION, code_revision=REVISION).eval()
width, short = custom.matryoshka_dims[:2]
plain = SentenceTransformer(FOLDER)
native = AutoModel.from_pretrained(FOLDER)
trusted = SentenceTransformer(FOLDER, trust_remote_code=True)
truncated = SentenceTransformer(FOLDER, truncate_dim=short)
tokens = AutoTokenizer.from_pretrained(FOLDER)(TEXTS, padding=True, truncation=True, max_length=plain.max_seq_length, return_tensors="pt")
with torch.no_grad():
    hidden, by_hand = native(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])[0], custom(**tokens)
reference = plain.encode(TEXTS)
differences = {
    "trusted": np.abs(trusted.encode(TEXTS) - reference).max(),
    "query": np.abs(plain.encode_query(TEXTS) - custom.encode(TEXTS, prompt_name="query")).max(),
    "document": np.abs(plain.encode_document(TEXTS) - custom.encode(TEXTS, prompt_name="document")).max(),
    "encode": np.abs(custom.encode(TEXTS) - reference).max(),
    "forward": np.abs(by_hand.embeddings[width].numpy() - reference).max(),
    "hidden": (by_hand.last_hidden_state - hidden).abs().max().item(),
    "truncated": np.abs(truncated.encode(TEXTS) - reference[:, :short]).max(),
    "normalised": np.abs(truncated.encode(TEXTS, normalize_embeddings=True) - custom.encode(TEXTS, dim=short)).max(),
}
print(json.dumps({name: float(value) for name, value in differences.items()}))
print(json.dumps([type(native).__name__, type(custom).__name__, list(map(float, custom.predict_number(TEXTS)))]))
print(json.dumps(reference.tolist()))
"""


@pytest.fixture(scope="session")
def open_doors(run_outside):
    """Open a folder or Hub id through every door outside the project: (differences by door, the types of the native and the
    custom model and the predicted numbers, the reference vectors)."""

    def opened(folder: str, texts: list[str], cwd, revision: str = "main", **options) -> tuple[dict, list, list]:
        code = f"FOLDER, TEXTS, REVISION = {folder!r}, {texts!r}, {revision!r}\n" + DOORS
        return tuple(map(json.loads, run_outside(code, cwd, **options).splitlines()[-3:]))

    return opened
