"""Opens a folder or Hub repository through every door, in a process of its own, and prints what came out as JSON.

    python -I open_folder.py FOLDER [--revision REVISION] [--texts '["...", "..."]']

Stands alone: it imports what a user of the model has, and never this project. Its one line of JSON holds

    width         the largest dimension
    differences   by door, the largest difference to what it must be (plain sentence-transformers, or computed by hand)
    errors        by door that does not open, why
    types         by door, the class of the model behind it and the precision that it computes in
    numbers       the answers that the heads predict for the texts; None where the heads are stale
    vectors       of the texts, by plain sentence-transformers at full width
"""

import argparse
import json
import os
import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

TEXTS = ["net sales of 2015", "what was the change in interest expense?", "interest expense and long-term debt " * 20]


def open_folder(folder: str, revision: str | None, texts: list[str]) -> dict:
    """What the module's first lines describe."""
    pinned: dict[str, Any] = {"revision": revision} if revision else {}
    plain = SentenceTransformer(folder, device="cpu", **pinned)
    vectors = plain.encode(texts, show_progress_bar=False)
    width = vectors.shape[1]
    found = {"width": width, "differences": {}, "errors": {}, "types": {}, "numbers": None, "vectors": vectors.tolist()}

    def note(door: str, model, ours, theirs) -> None:
        backbone: Any = model[0].auto_model if isinstance(model, SentenceTransformer) else model
        found["types"][door] = [type(backbone).__name__, str(next(backbone.parameters()).dtype).removeprefix("torch.")]
        found["differences"][door] = float(np.abs(np.asarray(ours, dtype=np.float64) - np.asarray(theirs)).max())

    def encoded(model, **options):
        return model.encode(texts, show_progress_bar=False, **options)

    def native() -> None:
        """The backbone alone: mean over the attended tokens, the Dense layer's matrix, unit length."""
        model = AutoModel.from_pretrained(folder, **pinned).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, **pinned)
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=plain.max_seq_length, return_tensors="pt")
        mask = tokens["attention_mask"]
        with torch.inference_mode():
            hidden = model(input_ids=tokens["input_ids"], attention_mask=mask)[0]
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        matrix = load_file(_file(folder, "2_Dense/model.safetensors", pinned))["linear.weight"]
        by_hand.append(F.normalize(pooled.float() @ matrix.float().T, dim=1).numpy())
        note("AutoModel, pooled and projected by hand", model, by_hand[0], vectors)

    def custom() -> None:
        model = AutoModel.from_pretrained(folder, trust_remote_code=True, **pinned, **_code(pinned)).eval()
        note("AutoModel with trust_remote_code", model, model.encode(texts), vectors)
        for name, encode in (("query", plain.encode_query), ("document", plain.encode_document)):
            asked = encode(texts, show_progress_bar=False)
            note(f"AutoModel with trust_remote_code, {name}", model, model.encode(texts, prompt_name=name), asked)
        for dim in model.matryoshka_dims:
            note(f"AutoModel with trust_remote_code, dim={dim}", model, model.encode(texts, dim=dim), prefixes(dim))
        if not getattr(model, "heads_stale", False):
            found["numbers"] = list(map(float, np.asarray(model.predict_number(texts))))
        for dim in model.matryoshka_dims[1:]:
            short = SentenceTransformer(folder, device="cpu", truncate_dim=dim, **pinned)
            normalized = encoded(short, normalize_embeddings=True)
            note(f"SentenceTransformer with truncate_dim={dim}", short, encoded(short), by_hand[0][:, :dim])
            note(f"SentenceTransformer with truncate_dim={dim}, normalised", short, normalized, prefixes(dim))

    def trusted() -> None:
        model = SentenceTransformer(folder, device="cpu", trust_remote_code=True, **pinned)
        note("SentenceTransformer with trust_remote_code", model, encoded(model), vectors)

    def prefixes(dim: int) -> np.ndarray:
        """The first ``dim`` numbers of the vectors made by hand, of unit length again."""
        return by_hand[0][:, :dim] / np.linalg.norm(by_hand[0][:, :dim], axis=1, keepdims=True)

    by_hand: list[np.ndarray] = []
    note("SentenceTransformer", plain, vectors, vectors)
    doors = {"AutoModel": native, "AutoModel with trust_remote_code": custom}
    for door, opened in (doors | {"SentenceTransformer with trust_remote_code": trusted}).items():
        try:
            opened()
        except Exception as error:  # a door that does not open is what is asked for
            found["errors"][door] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    return found


def _file(folder: str, name: str, pinned: dict) -> str:
    return os.path.join(folder, name) if os.path.isdir(folder) else hf_hub_download(folder, name, **pinned)


def _code(pinned: dict) -> dict:
    return {"code_revision": revision} if (revision := pinned.get("revision")) else {}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--revision")
    parser.add_argument("--texts", type=json.loads, default=TEXTS)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    # None refuses the import: a door that only opens where the project is installed is not open
    sys.modules["finmatryoshka"] = None  # type: ignore[assignment]
    print(json.dumps(open_folder(arguments.folder, arguments.revision, arguments.texts)))
