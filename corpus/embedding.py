"""Texts to unit vectors by one model at one dimension, in batches of about as many tokens each."""

import hashlib
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from ..data.encoders import encoder_folder
from ..eval.encoding import encode_to_array
from ..eval.quantization import unit
from .schema import CorpusError, Identity

DEFAULT_MODEL = "models/finmatryoshka-minilm"  # in the repository, which is the package's folder
_PACKAGE = Path(__file__).resolve().parents[1]


class Embedder:
    """A SentenceTransformer folder, Hub id or ``minilm`` at ``dim`` dimensions.

    Pages are read in batches of ``batch_tokens`` and in ``precision`` (eval/encoding.py); questions in fp32.

    Raises:
        CorpusError: the model cannot be loaded or is narrower than ``dim``.
    """

    def __init__(
        self, model: str = DEFAULT_MODEL, dim: int = 128, batch_tokens: int | None = None, precision: str = "auto"
    ):
        self.name, self.dim, self.batch_tokens, self.precision = model, dim, batch_tokens, precision
        try:
            self.model = SentenceTransformer(_folder(model), truncate_dim=dim)
        except Exception as error:  # the clients' errors have no common base
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CorpusError(f"{model}: cannot be loaded as a SentenceTransformer ({reason}); give --model") from None
        width = self.model.encode_query("width").shape[-1]
        if width != dim:
            raise CorpusError(f"{model}: is {width} dimensions wide, {dim} asked for; give a smaller --dim")

    def identity(self, storage: str) -> Identity:
        """What a table of this model's vectors carries; the hash is over all weights, wherever their files lie."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        prompts = {name: prompt for name, prompt in self.model.prompts.items() if name in ("query", "document")}
        length = int(self.model.max_seq_length or 0)
        return Identity(self.name, digest.hexdigest()[:16], self.dim, storage, length, prompts)

    def encode_pages(self, texts: list[str]) -> np.ndarray:
        """(n, dim) float32 unit vectors, in the order of ``texts``."""
        encoded = encode_to_array(self.model, self.model.encode_document, texts, self.precision, self.batch_tokens)
        vectors = unit(encoded.reshape(len(texts), self.dim))
        if not np.isfinite(vectors).all():
            raise CorpusError(f"{self.name}: gave a vector with NaN or infinity; its table would be of no use")
        return vectors

    def encode_queries(self, queries: list[str]) -> np.ndarray:
        """(n, dim) float32 unit vectors of questions, with the model's query prompt."""
        return self.model.encode_query(queries, normalize_embeddings=True, show_progress_bar=False)


def _folder(model: str) -> str:
    """Where ``model`` lies: the default one here or in the package's folder, packaged encoders in their package, others
    as they are named. Raises `CorpusError` where the default one is in neither."""
    if model != DEFAULT_MODEL:
        return encoder_folder(model)
    found = [folder for folder in (Path(model), _PACKAGE / model) if folder.is_dir()]
    if not found:
        raise CorpusError(f"{model}: the default model is not in this clone; give --model FOLDER, a Hub id or 'minilm'")
    return str(found[0])
