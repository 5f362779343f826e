"""Is a folder fit to publish? Every door in a clean process, finite safetensors weights, a card that parses and agrees."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors import safe_open

REQUIRED = (
    "config.json", "model.safetensors", "heads.safetensors", "finmatryoshka.safetensors.index.json", "modules.json",
    "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "config_sentence_transformers.json",
    "sentence_bert_config.json", "configuration_finmatryoshka.py", "modeling_finmatryoshka.py", "tokenizer.json", "README.md",
    "training.json", "results.json",
)  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
TOLERANCE = 1e-5

# Runs where this project cannot be imported; prints one line per door that fails.
_DOORS = """
import sys
sys.modules["finmatryoshka"] = None
folder, tolerance = sys.argv[1], float(sys.argv[2])
import numpy as np, transformers
transformers.utils.logging.set_verbosity_error(); transformers.utils.logging.disable_progress_bar()
from sentence_transformers import SentenceTransformer
from transformers import AutoModel
texts = ["net sales of 2015", "interest expense and long-term debt " * 20]
plain = SentenceTransformer(folder, device="cpu")
reference = plain.encode(texts, show_progress_bar=False)
def custom(): return AutoModel.from_pretrained(folder, trust_remote_code=True)
def native():
    assert type(AutoModel.from_pretrained(folder)).__module__.startswith("transformers.models")
    return reference
half = custom().matryoshka_dims[-1]
def truncated():
    v = SentenceTransformer(folder, device="cpu", truncate_dim=half).encode(texts, normalize_embeddings=True, show_progress_bar=False)
    d = custom().encode(texts, dim=half)
    return reference + (0 if np.abs(v - d).max() < tolerance else 1)
doors = {
    "SentenceTransformer with trust_remote_code": lambda: SentenceTransformer(folder, device="cpu", trust_remote_code=True).encode(texts, show_progress_bar=False),
    "SentenceTransformer with truncate_dim": truncated,
    "AutoModel with trust_remote_code": lambda: custom().encode(texts),
    "AutoModel": native,
}
for name, door in doors.items():
    try:
        difference = float(np.abs(door() - reference).max())
        if not difference < tolerance: print(f"door {name}: vectors differ by {difference:.2g}")
    except Exception as error:
        print(f"door {name}: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
"""


def check_folder(folder: str | Path) -> list[str]:
    """What stands against publishing ``folder``, one line each; empty when nothing does."""
    folder = Path(folder)
    if not folder.is_dir():
        return [f"{folder}: no such folder"]
    problems = [f"{name}: missing" for name in REQUIRED if not (folder / name).is_file()]
    for path in sorted(folder.rglob("*")):
        if path.suffix in _PICKLES:
            problems.append(f"{path.relative_to(folder)}: only safetensors weights are published")
        if path.suffix == ".safetensors":
            problems += _check_weights(path, folder)
    if (folder / "README.md").is_file() and (folder / "results.json").is_file():
        problems += _check_card(folder)
    if not any("missing" in problem or "cannot be read" in problem for problem in problems):
        problems += check_doors(folder)
    return problems


def _check_weights(path: Path, folder: Path) -> list[str]:
    try:
        with safe_open(path, "pt") as weights:
            return [
                f"{path.relative_to(folder)}: {name} has NaN or infinity"
                for name in weights.keys()
                if not torch.isfinite(weights.get_tensor(name).float()).all()
            ]
    except Exception as error:  # safetensors' own error class is not exported
        return [f"{path.relative_to(folder)}: cannot be read ({error})"]


def _check_card(folder: Path) -> list[str]:
    results = json.loads((folder / "results.json").read_text())
    try:
        card = ModelCard.load(folder / "README.md")
        index = card.data.to_dict().get("model-index")
        _, stated = model_index_to_eval_results(index)
    except Exception as error:
        return [f"README.md: the card's metadata does not parse ({str(error).splitlines()[0][:120]})"]
    (name,) = results["models"]
    measured = {
        (task, int(dim)): round(metrics["ndcg@10"], 4)
        for task, part in results["retrieval"].items()
        for dim, metrics in part["systems"][name].items()
    }
    on_card = {(r.dataset_name, int(re.search(r"at (\d+)", r.metric_name)[1])): r.metric_value for r in stated}
    return [
        f"README.md: says {on_card.get(key)} for {key[0]} at {key[1]} dimensions, results.json says {measured.get(key)}"
        for key in sorted(measured.keys() | on_card.keys())
        if measured.get(key) != on_card.get(key)
    ]


def check_doors(folder: Path) -> list[str]:
    """The doors of ``folder`` that fail, or give other vectors than plain sentence-transformers, in a clean process."""
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-c", _DOORS, str(folder.resolve()), str(TOLERANCE)],
            cwd=elsewhere,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        return [f"doors: {done.stderr.strip().splitlines()[-1][:200]}"]
    return done.stdout.splitlines()
