"""Writes the one folder that every door opens: sentence-transformers' layout, the heads, the code, whole or not at
all."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from sentence_transformers import SentenceTransformer

from ..configuration_finmatryoshka import FinMatryoshkaConfig
from ..data.files import written_whole
from ..modeling_finmatryoshka import FinMatryoshkaModel


class FolderError(RuntimeError):
    """A folder that is not what a command needs; the message names the file and says what to do."""


def finmatryoshka_of(model: SentenceTransformer) -> FinMatryoshkaModel:
    """The model with its heads inside the SentenceTransformer that is trained (`training.backbone`)."""
    return cast(FinMatryoshkaModel, model[0].auto_model)


def write_folder(
    model: SentenceTransformer, path: str | os.PathLike, extra: Mapping[str, str | bytes] | None = None
) -> None:
    """Save a FinMatryoshka SentenceTransformer to ``path`` so that every door opens it.

    Args:
        model: Modules Transformer (a FinMatryoshkaModel), Pooling, Dense, Normalize.
        path: The folder; a folder already there is replaced, and only when the new one is complete.
        extra: Further files by relative name: card, results, figures.
    """
    with written_whole(path) as folder:
        model.save_pretrained(str(folder), create_model_card=False)
        write_layout(cast(FinMatryoshkaConfig, finmatryoshka_of(model).config), folder)
        for name, content in (extra or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def write_layout(config: FinMatryoshkaConfig, folder: Path) -> None:
    """The small files that tell clients how to read the folder, where sentence-transformers wrote newer spellings of
    them."""
    for name, content in config.sentence_transformers_files().items():
        _write_json(folder / name, content)
    (folder / "3_Normalize").mkdir(exist_ok=True)
    tokenizer = read_json(folder / "tokenizer_config.json")
    # What the base was once trained at: clients that believe it would cut pages there.
    stale = ("max_length", "stride", "truncation_strategy", "is_local", "local_files_only")
    tokenizer = {key: value for key, value in tokenizer.items() if key not in stale}
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":  # transformers 5's name of what 4 has, too
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    _write_json(folder / "tokenizer_config.json", tokenizer)


def read_json(path: Path) -> dict:
    """A JSON file of a folder. Raises `FolderError` in one line where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FolderError(f"{path}: missing; give a folder that train_st.py wrote") from None
    except ValueError as error:
        raise FolderError(f"{path}: is no JSON ({str(error).splitlines()[0]})") from None


def with_earlier(record: dict | None) -> Iterator[dict]:
    """A record of ``training.json`` and those of every stage and folder that it goes on from."""
    if record is not None:
        yield record
        # records of averages once had both, the first of ``averaged`` as ``previous``
        for before in list(record.get("averaged", {}).values()) or [record.get("previous")]:
            yield from with_earlier(before)


def _write_json(path: Path, content) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
