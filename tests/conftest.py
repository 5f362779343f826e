"""Tiny real models of every supported architecture and small files of every supported schema, made once a session."""

import json
import os
import re
import resource
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and the cores are for tests side by side
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import HealthCheck, settings
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
from finmatryoshka.sentence_transformers_config import check
from finmatryoshka.training import operations

from warm_process import run_script

# Neither a slow machine nor a busy one fails a test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
RELEASED = ROOT / "models" / "finmatryoshka-minilm"
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
DIMS = [32, 16, 8]


@pytest.fixture(scope="session", autouse=True)
def own_module_cache(tmp_path_factory):
    """Remote code of the tests' folders is cached apart from the user's, and apart from that of tests beside these."""
    cache = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_MODULES_CACHE", cache)
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", cache)  # read when it was imported
        patch.syspath_prepend(cache)  # before the user's, which `evaluate` adds
        yield


@pytest.fixture(scope="session", autouse=True)
def warm_doors():
    """The project's own check opens folders in processes that have the libraries already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "subprocess", SimpleNamespace(run=run_script))
        yield


@pytest.fixture(scope="session", autouse=True)
def short_refits():
    """The refit's operation fits the heads for a few epochs; tests of what they learn call `refit_heads` itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operations, "refit_heads", partial(operations.refit_heads, epochs=20))
        yield


@pytest.fixture
def cold_doors(monkeypatch):
    """The check as it is: every folder in a new interpreter."""
    monkeypatch.setattr(check, "subprocess", subprocess)


@contextmanager
def files_of_at_most(size: int):
    """The system itself refuses longer files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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
            "table": {"uid": "t1", "table": [["", "Years ended", ""], ["", "2019", "2018"],
                                             ["Fixed price", "$1,452.4", "$1,146.2"], ["Other", "44.1", "56.7"]]},
            "paragraphs": [{"uid": "p1", "order": 1, "text": "Sales by contract type, in millions."},
                           {"uid": "p2", "order": 2, "text": "Most contracts are fixed-price."}],
            "questions": [
                question("a", "What is the change in Other in 2019?", -12.6, "million", derivation="44.1-56.7"),
                question("b", "What is the percentage change in Other?", -22.22, "percent",
                         derivation="(44.1-56.7)/56.7"),
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
def open_doors():
    """Open a folder or Hub id through every door outside the project, without a word on stderr: what open_folder.py
    prints. ``fresh``, or with a Hub of its own: in a new interpreter."""

    def opened(
        folder, texts: list[str], cwd, revision: str | None = None, quiet: bool = True, fresh=False, **variables: str
    ) -> dict:
        environment = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_MODULES_CACHE": str(Path(cwd) / "modules")}
        command = [sys.executable, "-I", str(check.OPEN_FOLDER), str(folder), "--texts", json.dumps(texts)]
        command += ["--revision", revision] if revision else []
        run = subprocess.run if fresh or variables else run_script
        done = run(command, cwd=cwd, env=environment | variables, capture_output=True, text=True)
        assert variables.get("HF_TOKEN", "no token") not in done.stdout + done.stderr
        assert done.returncode == 0, done.stderr
        assert not quiet or done.stderr == ""
        return json.loads(done.stdout.splitlines()[-1])

    return opened
