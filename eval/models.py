"""A model by name: loaded in one line or refused in one, its usable dimensions, and where it came from."""

import os
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from ..configuration_finmatryoshka import HEADS_FILE
from ..data.encoders import encoder_folder
from ..data.files import file_sha256
from .retrieval import EvaluationError


def load_model(name: str, heads: bool = True, dtype: torch.dtype | None = None) -> SentenceTransformer:
    """A folder or Hub id as sentence-transformers loads it; ``minilm`` and ``mpnet`` are packaged
    encoders. One line when it fails.

    ``heads``: with a FinMatryoshka folder's own code and heads; without, the same vectors from the native encoder.
    ``dtype``: of the weights, where not their own.
    """
    path = encoder_folder(name)
    if path.startswith((".", "/")) and not os.path.isdir(path):
        raise EvaluationError(f"{name}: no such folder")
    try:
        trusted = heads and os.path.isfile(os.path.join(path, HEADS_FILE))
        return SentenceTransformer(path, trust_remote_code=trusted, model_kwargs={"dtype": dtype} if dtype else None)
    except Exception as error:  # the clients' errors have no common base
        raise EvaluationError(
            f"{name}: cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
        ) from None


def width_of(model: SentenceTransformer) -> int:
    """How wide its vectors are; where no module says, one vector does."""
    return model.get_embedding_dimension() or model.encode(["width"]).shape[1]


def usable_dims(name: str, model: SentenceTransformer, dims: list[int], narrow: str = "fail") -> list[int]:
    """Those of ``dims`` to measure ``model`` at; beyond its width they fail or are skipped, as ``narrow`` says."""
    width = width_of(model)
    for dim in dims:
        if dim < 1:
            raise EvaluationError(f"dimension {dim}: must be positive")
    wide = [dim for dim in dims if dim > width]
    if wide and narrow == "fail":
        raise EvaluationError(
            f"{name} is {width} wide, dimension {wide[0]} asked for; pass --dims up to {width} or --narrow skip"
        )
    usable = [dim for dim in dims if dim <= width]
    if not usable:
        raise EvaluationError(f"{name} is {width} wide: none of the dimensions {dims} is left")
    return usable


def describe_model(name: str, model: SentenceTransformer, dims: list[int]) -> dict:
    """Where a model came from, so that the same one can be had again: a revision or the weights' hash."""
    path = Path(encoder_folder(name))
    weights = path / "model.safetensors"
    return {
        "width": width_of(model),
        "max_seq_length": model.max_seq_length,
        "dims": dims,
        "prompts": model.prompts,
        "sha256": file_sha256(weights) if weights.is_file() else None,
        "weights": {str(file.relative_to(path)): file_sha256(file) for file in sorted(path.rglob("*.safetensors"))},
        "revision": model.model_card_data.base_model_revision if not path.is_dir() else None,
    }
