"""From a trained folder to the released one: fp16 in the files, fp32 in every client, figures of exactly these
weights."""

import json
import shutil
from pathlib import Path

import torch

from ..configuration_finmatryoshka import PROJECTION_FILE, read_weights
from ..data.files import written_whole
from ..modeling_finmatryoshka import FinMatryoshkaModel
from .card import add_results
from .check import SUMS, check_folder, file_sums, other_weights, sums_text
from .folder import FolderError, read_json, write_layout


def round_folder(trained: Path, output: Path) -> None:
    """Write ``trained`` to ``output`` with its weights rounded to fp16; what is rounded already stays bit for bit.

    ``config.json`` says float32: transformers and sentence-transformers then compute in fp32, as they did.
    """
    with written_whole(output) as folder:
        write_rounded(trained, folder)


def release(trained: Path, results: Path, output: Path, repo_id: str) -> None:
    """Round ``trained``, write its card from ``results``, check every door, and move it to ``output`` whole.

    Args:
        trained: A folder that ``train_st.py`` or `round_folder` wrote.
        results: What ``python -m finmatryoshka.eval`` wrote with ``--output``, of the rounded folder.
        repo_id: ``org/name`` that the card's examples show.

    Raises:
        FolderError: A folder that is not whole, results of other weights, a door that does not open; with the file
            named.
        WriteError: The disk refuses. An old release stays as it was until the new one is checked.
    """
    with written_whole(output) as folder:
        write_rounded(trained, folder)
        check_results(folder, results / "results.json")
        add_results(folder, results, repo_id)
        (folder / SUMS).write_text(sums_text(file_sums(folder)), encoding="utf-8")
        problems = check_folder(folder)
        if problems:
            raise FolderError(f"{trained} is not fit to release:\n" + "\n".join(f"  - {line}" for line in problems))


def write_rounded(trained: Path, folder: Path) -> None:
    """The files of a released folder but for card, results and sums."""
    for name in ("config.json", "training.json"):
        read_json(trained / name)
    try:
        model = FinMatryoshkaModel.from_pretrained(trained, dtype=torch.float32)
        dense = dict(read_weights([str(trained / PROJECTION_FILE)]))["linear.weight"]
    except (OSError, KeyError) as error:
        raise FolderError(f"{trained}: cannot be loaded ({str(error).strip().splitlines()[0][:160]})") from error
    if model.heads_stale:
        raise FolderError(
            f"{trained}: its heads were fitted to other vectors than it gives; fit them again, then release"
        )
    if not torch.equal(dense.float(), model.projection.weight):
        raise FolderError(
            f"{trained}/{PROJECTION_FILE}: is not the projection of heads.safetensors; repair the folder first"
        )
    large = [name for name, weight in model.named_parameters() if not torch.isfinite(weight.half()).all()]
    if large:
        raise FolderError(f"{trained}: {large[0]} does not fit fp16")
    model.half().save_pretrained(folder)
    write_layout(model.config, folder)
    config = read_json(folder / "config.json") | {"dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shutil.copy(trained / "training.json", folder / "training.json")


def check_results(folder: Path, results: Path) -> None:
    """Refuse figures of other weights than those in ``folder``. Raises `FolderError`."""
    measured = read_json(results).get("models", {})
    if len(measured) != 1:
        raise FolderError(f"{results}: measures {len(measured)} models; a release needs the figures of one")
    if not all(entry.get("weights") for entry in measured.values()):
        raise FolderError(f"{results}: does not say which weights it measured; evaluate again")
    for name in other_weights(folder, {"models": measured}):
        raise FolderError(
            f"{results}: measured another {name} than is to be released; write the rounded folder with "
            "`python -m finmatryoshka.sentence_transformers_config round TRAINED --output ROUNDED` and evaluate that"
        )
