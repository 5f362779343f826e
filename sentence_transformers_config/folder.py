"""Writes the one folder that every door opens: sentence-transformers' layout, the heads, the code, whole or not at all."""

import json
import os
from pathlib import Path

from sentence_transformers import SentenceTransformer

from ..data.files import written_whole

# text-embeddings-inference and sentence-transformers 2 to 6 read this spelling; newer versions write others.
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"},
]

DENSE_KEYS = ("in_features", "out_features", "bias", "activation_function")


def write_folder(
    model: SentenceTransformer, path: str | os.PathLike, extra: dict[str, str | bytes] | None = None
) -> None:
    """Save a FinMatryoshka SentenceTransformer to ``path`` so that every door opens it.

    Args:
        model: Modules Transformer (a FinMatryoshkaModel), Pooling, Dense, Normalize.
        path: The folder; a folder already there is replaced, and only when the new one is complete.
        extra: Further files by relative name: card, results, figures.
    """
    with written_whole(path) as folder:
        model.save_pretrained(str(folder), create_model_card=False)
        write_layout(model, folder)
        for name, content in (extra or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def write_layout(model: SentenceTransformer, folder: Path) -> None:
    """The small files that tell clients how to read the folder, in the spelling that old and new ones know."""
    config = model[0].auto_model.config
    _write_json(folder / "modules.json", MODULES)
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_cls_token": False}
    pooling |= {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}
    _write_json(folder / "1_Pooling" / "config.json", pooling | {"pooling_mode_mean_sqrt_len_tokens": False})
    dense = json.loads((folder / "2_Dense" / "config.json").read_text())
    # sentence-transformers 5 writes further keys, at their defaults here; 4 and older refuse them.
    _write_json(folder / "2_Dense" / "config.json", {key: dense[key] for key in DENSE_KEYS})
    (folder / "3_Normalize").mkdir(exist_ok=True)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": config.max_seq_length, "do_lower_case": False})
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    # What the base was once trained at: clients that believe it would cut pages there.
    stale = ("max_length", "stride", "truncation_strategy", "is_local", "local_files_only")
    _write_json(folder / "tokenizer_config.json", {key: value for key, value in tokenizer.items() if key not in stale})
    saved = json.loads((folder / "config_sentence_transformers.json").read_text())
    prompts = {name: prompt for name, prompt in config.prompts.items() if name != "numeric"}
    _write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": saved["__version__"],
            "prompts": prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )


def _write_json(path: Path, content) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
