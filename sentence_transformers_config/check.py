"""Is a folder fit to publish? Every door in a clean process, finite safetensors weights, a card that parses and
agrees."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors import safe_open

from ..configuration_finmatryoshka import HEADS_FILE
from ..data.files import file_sha256
from ..eval.tables import TASKS
from .card import card_table

REQUIRED = (
    "config.json", "model.safetensors", "heads.safetensors", "finmatryoshka.safetensors.index.json", "modules.json",
    "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "config_sentence_transformers.json",
    "sentence_bert_config.json", "configuration_finmatryoshka.py", "modeling_finmatryoshka.py", "tokenizer.json",
    "README.md", "training.json", "results.json",
)  # fmt: skip
SUMS = "SHA256SUMS"
OPEN_FOLDER = Path(__file__).with_name("open_folder.py")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
TOLERANCE = 1e-5


def check_folder(folder: str | Path) -> list[str]:
    """What stands against publishing ``folder``, one line each; empty when nothing does."""
    folder = Path(folder)
    if not folder.is_dir():
        return [f"{folder}: no such folder"]
    problems = [f"{name}: missing" for name in REQUIRED if not (folder / name).is_file()]
    problems += check_sums(folder)
    for path in sorted(folder.rglob("*")):
        if path.suffix in _PICKLES:
            problems.append(f"{path.relative_to(folder)}: only safetensors weights are published")
        if path.suffix == ".safetensors":
            problems += _check_weights(path, folder)
    if (folder / "README.md").is_file() and (folder / "results.json").is_file():
        problems += _check_results(folder)
    if not any("missing" in problem or "cannot be read" in problem for problem in problems):
        problems += check_doors(folder)
    return problems


def file_sums(folder: Path) -> dict[str, str]:
    """By relative name, the sha256 of every file that is sent to the Hub."""
    return {name: file_sha256(folder / name) for name, _ in list_files(folder) if name != SUMS}


def sums_text(sums: dict[str, str]) -> str:
    """As ``sha256sum --check`` reads it."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def read_sums(text: str) -> dict[str, str]:
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in text.splitlines() if line.strip())}


def check_sums(folder: Path) -> list[str]:
    """The files that are not what ``SHA256SUMS`` says, where a folder has one (a release has)."""
    if not (folder / SUMS).is_file():
        return []
    problems = []
    for name, digest in read_sums((folder / SUMS).read_text(encoding="utf-8")).items():
        if not (folder / name).is_file():
            problems += [] if name in REQUIRED else [f"{name}: missing"]
        elif file_sha256(folder / name) != digest:
            problems.append(f"{name}: is not the file that was released (its sha256 differs from {SUMS})")
    return problems


def list_files(folder: str | Path) -> list[tuple[str, int]]:
    """(relative name, bytes) of everything that would be sent."""
    folder = Path(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return [(str(path.relative_to(folder)), path.stat().st_size) for path in files]


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


def _check_results(folder: Path) -> list[str]:
    """Are the figures of these weights, and does the card say the same?"""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        measured = other_weights(folder, results)
        return [f"results.json: measured another {name}" for name in measured] + _check_card(folder, results)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        return [f"results.json: is not what an evaluation wrote ({type(error).__name__}: {str(error)[:120]})"]


def other_weights(folder: Path, results: dict) -> list[str]:
    """The weights of ``folder`` that are not those that ``results`` measured; of a model from the Hub none is known."""
    (model,) = results["models"].values()
    stated = model.get("weights")
    weights = [name for name, _ in list_files(folder) if name.endswith(".safetensors")]
    return [name for name in weights if stated and stated.get(name) != file_sha256(folder / name)]


def _check_card(folder: Path, results: dict) -> list[str]:
    (name,) = results["models"]
    measured = {
        (TASKS.get(task, task), int(dim)): round(metrics["ndcg@10"], 4)
        for task, part in results["retrieval"].items()
        for dim, metrics in part["systems"][name].items()
    }
    try:
        card = ModelCard.load(folder / "README.md")
        _, stated = model_index_to_eval_results(card.data.to_dict().get("model-index"))
        on_card = {
            (r.dataset_name, int(re.findall(r"at (\d+)", r.metric_name or "")[0])): r.metric_value for r in stated
        }
    except Exception as error:
        return [f"README.md: the card's metadata does not parse ({str(error).splitlines()[0][:120]})"]
    problems = [
        f"README.md: says {on_card.get(key)} for {key[0]} at {key[1]} dimensions, results.json says {measured.get(key)}"
        for key in sorted(measured.keys() | on_card.keys())
        if measured.get(key) != on_card.get(key)
    ]
    if card_table(results) not in card.text:
        problems.append("README.md: its table is not that of results.json; write the card again")
    return problems


def check_doors(folder: Path) -> list[str]:
    """The doors of ``folder`` that fail, or give other vectors than they must, in a clean process."""
    found = open_in_clean_process(folder)
    if isinstance(found, str):
        return [f"doors: {found}"]
    problems = [f"door {door}: {error}" for door, error in found["errors"].items()]
    problems += [
        f"door {door}: vectors differ by {difference:.2g}"
        for door, difference in found["differences"].items()
        if not difference < TOLERANCE
    ]
    wanted = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("dtype") or "float32"
    problems += [
        f"door {door}: computes in {dtype}, config.json says {wanted}"
        for door, (_, dtype) in found["types"].items()
        if dtype != wanted
    ]
    if found["numbers"] is None and not found["errors"]:
        problems.append(
            f"{HEADS_FILE}: fitted to other vectors than the folder gives; fit them again (docs/finetuning.md)"
        )
    return problems


def open_in_clean_process(folder: str | Path, texts: list[str] | None = None) -> dict | str:
    """What ``open_folder.py`` prints of ``folder``, or the last line of why it does not."""
    command = [sys.executable, "-I", str(OPEN_FOLDER), str(Path(folder).resolve())]
    command += ["--texts", json.dumps(texts)] if texts else []
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = os.environ | {"HF_MODULES_CACHE": elsewhere}
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1][:200]
    return json.loads(done.stdout.splitlines()[-1])
