"""Teachers: other encoders, whose similarities between a batch's questions and pages the trained one learns to give."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers import MPNetModel

from ..data.encoders import encoder_folder
from ..data.files import file_sha256
from ..data.schema import text_id
from .backbone import texts_at_once
from .mpnet_attention import set_attention


class TeacherError(ValueError):
    """A teacher that cannot be loaded; the message names it and says what to give."""


class TeacherVectors:
    """Vectors of texts, (n, D) in float32, whose products are the mean of the teachers' cosines.

    Each teacher's unit vectors are divided by the root of their number and stand side by side.

    Args:
        texts: By role ("query" or "document"), the texts in the order of ``vectors``, queries first.
        vectors: (queries + documents, D) float16.
    """

    def __init__(self, texts: dict[str, list[str]], vectors: np.ndarray):
        keys = [(role, text_id(text)) for role in ("query", "document") for text in texts[role]]
        self.rows = {key: row for row, key in enumerate(keys)}
        self.vectors = vectors

    def __call__(self, texts: list[str], role: str) -> torch.Tensor:
        return torch.from_numpy(self.vectors[[self.rows[role, text_id(text)] for text in texts]]).float()


def teacher_vectors(folders: list[str], datasets: Iterable[Dataset], cache: Path) -> TeacherVectors:
    """What the encoders in ``folders`` make of all questions and pages of ``datasets``, computed once, kept in `cache`.

    Args:
        folders: Folders, Hub ids or packaged names of SentenceTransformers; they apply their own prompts and read their
            own length.
        datasets: As `training_datasets` gives them: a column of lists of questions, then pages and mined negatives.
        cache: A folder, made where missing. A file of other teachers or texts is never read.

    Raises:
        BackboneError, TeacherError: As `load_teacher`.
    """
    folders = [encoder_folder(folder) for folder in folders]
    found: dict[str, dict[str, None]] = {"query": {}, "document": {}}
    for dataset in datasets:
        question, page, *others = dataset.column_names
        found["query"] |= dict.fromkeys(text for row in dataset[question] for text in row)
        for column in [page, *[name for name in others if f"{name}_id" in others]]:
            found["document"] |= dict.fromkeys(dataset[column])
    texts = {role: list(distinct) for role, distinct in found.items()}
    digest = hashlib.sha256(repr([*map(_identity, folders), texts]).encode()).hexdigest()[:16]
    file = Path(cache) / f"teacher-{digest}.npy"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        vectors = np.hstack([_encode(load_teacher(folder), texts) for folder in folders]) / len(folders) ** 0.5
        unfinished = file.with_name(f".{file.name}")
        np.save(unfinished, vectors.astype(np.float16))
        os.replace(unfinished, file)
    return TeacherVectors(texts, np.load(file, mmap_mode="r"))


def load_teacher(name: str, argument: str = "teacher") -> SentenceTransformer:
    """A teacher, ready to encode: a folder, a Hub id or a packaged name, as ``argument`` gave it.

    Raises:
        BackboneError: A packaged encoder that is not installed.
        TeacherError: No SentenceTransformer.
    """
    folder = encoder_folder(name)
    try:
        model = SentenceTransformer(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TeacherError(
            f"--{argument} {name}: name a folder or Hub id of a SentenceTransformer ({reason})"
        ) from None
    encoder = getattr(model[0], "auto_model", None)  # static embeddings have none
    if isinstance(encoder, MPNetModel):
        set_attention(encoder, "sdpa")
    return model


def _identity(folder: str) -> str:
    """What tells a teacher from others: its name and, of a folder, its weights."""
    weights = sorted(Path(folder).rglob("*.safetensors"))
    return folder + "".join(file_sha256(path) for path in weights)


def _encode(model: SentenceTransformer, texts: dict[str, list[str]]) -> np.ndarray:
    size = texts_at_once(model.device)
    options: dict[str, Any] = {"batch_size": size, "normalize_embeddings": True, "show_progress_bar": True}
    return np.vstack(
        [model.encode_query(texts["query"], **options), model.encode_document(texts["document"], **options)]
    )
