"""The released folder: fp16 in the files and fp32 in every client, figures of exactly its weights, whole or not at
all."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from finmatryoshka.eval import __main__ as evaluation
from finmatryoshka.sentence_transformers_config import __main__ as cli
from finmatryoshka.sentence_transformers_config.card import PASSAGES
from finmatryoshka.sentence_transformers_config.check import SUMS, check_folder, read_sums

from conftest import DIMS, RELEASED, ROOT

TEXTS = ["what was the net sales of alder foods in 2015?", "notes and loans outstanding"]


@pytest.fixture(scope="module")
def made(trained_folders, finqa_files, tmp_path_factory) -> dict[str, Path]:
    """A trained folder, its rounded one, the results of that, and the release of them."""
    place = tmp_path_factory.mktemp("made")
    paths = {name: place / name for name in ("rounded", "results", "released")} | {
        "trained": Path(trained_folders["bert"])
    }
    assert cli.main(["round", str(paths["trained"]), "--output", str(paths["rounded"])]) == 0
    arguments = [
        str(paths["rounded"]),
        "--data",
        finqa_files["eval"],
        "--dims",
        *map(str, DIMS),
        "--sections",
        "retrieval",
    ]
    assert evaluation.main([*arguments, "--output", str(paths["results"])]) == 0
    assert _release(paths["trained"], paths["results"], paths["released"]) == 0
    return paths


def _release(trained: Path, results: Path, output: Path) -> int:
    return cli.main(["release", str(trained), "--results", str(results), "--output", str(output)])


def test_every_door_of_a_release_computes_in_fp32_without_a_word(made, open_doors, tmp_path):
    stored = load_file(made["released"] / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    found = open_doors(made["released"], TEXTS, tmp_path)
    assert found["errors"] == {} and all(value < 1e-5 for value in found["differences"].values()), found["differences"]
    assert {precision for _, precision in found["types"].values()} == {"float32"}
    unrounded = SentenceTransformer(str(made["trained"])).encode(TEXTS)
    np.testing.assert_allclose(found["vectors"], unrounded, atol=2e-3)
    assert check_folder(made["released"]) == []


def test_rounding_what_is_rounded_changes_nothing(made, tmp_path):
    assert cli.main(["round", str(made["rounded"]), "--output", str(tmp_path / "again")]) == 0
    for name in ("model.safetensors", "heads.safetensors", "2_Dense/model.safetensors"):
        assert (
            (tmp_path / "again" / name).read_bytes()
            == (made["rounded"] / name).read_bytes()
            == (made["released"] / name).read_bytes()
        )


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def _replace(path: Path, pattern: str, by: str) -> None:
    text = path.read_text()
    assert re.search(pattern, text)
    path.write_text(re.sub(pattern, by, text))


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda folder: _flip(folder / "model.safetensors"), "model.safetensors: is not the file that was released"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json: missing"),
        (lambda folder: (folder / "tables.md").unlink(), "tables.md: missing"),
        (lambda folder: (folder / "README.md").write_text("---\nlicense: mit\n---\n"), "README.md: the card's"),
        (lambda folder: _replace(folder / "README.md", r"(\| 32 \|.*) 0\.\d{3} ", r"\1 9.999 "), "README.md: its"),
        (lambda folder: _replace(folder / "results.json", '"ndcg@10": 0.', '"ndcg@10": 1.'), "README.md: says "),
        (lambda folder: _replace(folder / "results.json", '"heads.safetensors": "', '"heads.safetensors": "0'),
         "results.json: measured another heads.safetensors"),
        (lambda folder: (folder / "results.json").write_text("{}"), "results.json: is not what an evaluation wrote"),
    ],
)  # fmt: skip
def test_a_release_that_was_changed_is_refused_with_the_file_named(made, tmp_path, change, named, monkeypatch):
    monkeypatch.setattr("finmatryoshka.sentence_transformers_config.check.check_doors", lambda folder: [])
    folder = Path(shutil.copytree(made["released"], tmp_path / "m"))
    change(folder)
    assert any(problem.startswith(named) for problem in check_folder(folder))


def test_results_of_other_weights_are_refused(made, tmp_path, capsys):
    other = Path(shutil.copytree(made["rounded"], tmp_path / "other"))
    dense = load_file(other / "2_Dense" / "model.safetensors")
    dense["linear.weight"][0, 0] += 1
    save_file(dense, other / "2_Dense" / "model.safetensors", metadata={"format": "pt"})
    assert _release(other, made["results"], tmp_path / "out") == 2  # the heads no longer fit
    assert "fitted to other vectors" in capsys.readouterr().err
    results = Path(shutil.copytree(made["results"], tmp_path / "results"))
    record = json.loads((results / "results.json").read_text())
    (entry,) = record["models"].values()
    entry["weights"]["heads.safetensors"] = "0" * 64
    (results / "results.json").write_text(json.dumps(record))
    assert _release(made["trained"], results, tmp_path / "out") == 2
    assert "measured another heads.safetensors" in capsys.readouterr().err
    assert _release(made["trained"], tmp_path / "none", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


def test_killed_in_the_middle_the_old_release_stays_and_the_next_run_sweeps(made, tmp_path):
    old = Path(shutil.copytree(made["released"], tmp_path / "out"))
    code = (
        "import os, signal, sys\n"
        "from finmatryoshka.sentence_transformers_config import __main__ as cli, release\n"
        "release.check_folder = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n"
        "cli.main(sys.argv[1:])\n"
    )
    arguments = ["release", str(made["trained"]), "--results", str(made["results"]), "--output", str(old)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=os.environ, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert any(path.name.endswith(".partial") for path in tmp_path.iterdir())
    assert (old / "SHA256SUMS").read_bytes() == (made["released"] / "SHA256SUMS").read_bytes()
    assert cli.main(["round", str(made["trained"]), "--output", str(old)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- the folder that the repository carries ---------------------------------------------------------------------------


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout


def test_the_repository_carries_one_model_below_50_mb_and_no_other_weights():
    sizes = {str(path.relative_to(RELEASED)): path.stat().st_size for path in RELEASED.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 50e6
    assert set(sizes) == {*sums_of(RELEASED), SUMS} and not any(name.startswith(("onnx", "openvino")) for name in sizes)
    weights = {name for name in sizes if name.endswith(".safetensors")}
    assert weights == {"model.safetensors", "heads.safetensors", "2_Dense/model.safetensors"}
    paths = [f"models/finmatryoshka-minilm/{name}" for name in sorted(weights)]
    assert _git("check-ignore", *paths) == "" and _git("check-ignore", "models/other/model.safetensors") != ""
    assert _git("check-attr", "binary", *paths).splitlines() == [f"{path}: binary: set" for path in paths]
    assert set(_git("ls-files", "*.safetensors", "*.bin", "*.onnx").split()) <= set(paths)


def sums_of(folder: Path) -> dict[str, str]:
    return read_sums((folder / SUMS).read_text())


def test_it_holds_the_projects_code_and_names_no_machine():
    for name in ("configuration_finmatryoshka.py", "modeling_finmatryoshka.py"):
        same = (RELEASED / name).read_bytes() == (ROOT / name).read_bytes()
        assert same, (
            f"{name} is older: make release TRAINED=models/finmatryoshka-minilm RESULTS=models/finmatryoshka-minilm"
        )
    for path in RELEASED.glob("*.json"):
        assert not re.search(r"(?<![\w.~])/(?:tmp|work|root|home)/\w", path.read_text()), path


def test_its_card_runs_as_it_stands_and_finds_the_right_sentences(capsys):
    card = (RELEASED / "README.md").read_text()
    (model_id,) = set(re.findall(r'(?:SentenceTransformer|from_pretrained)\("(.*?)"', card))
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(block.replace(model_id, str(RELEASED)), {})
    assert [line.split(" -> ")[1] for line in capsys.readouterr().out.splitlines()] == [PASSAGES[0], PASSAGES[2]]
