"""Vectors of texts by anything that encodes like a SentenceTransformer: in batches of about as many tokens each, in the
precision asked for. What the evaluation and the corpus command share.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..encoding_finmatryoshka import PRECISIONS, batches_by_length, multiplying_in, resolve_precision, tokens_per_batch

PRECISION_CHOICES = ("auto", *PRECISIONS)
PRECISION_HELP = "auto: bf16 where the CPU multiplies it natively (AVX512-BF16, AMX), fp16 on a GPU, else fp32"


def device_of(model: Any) -> str:
    """The kind of device that ``model`` is on; the CPU where it does not say."""
    return getattr(getattr(model, "device", None), "type", "cpu")


def precision_of(model: Any, precision: str) -> str:
    """What ``model`` multiplies in where ``precision`` is asked for: that, or what "auto" means on its device."""
    return resolve_precision(precision, device_of(model))


def encode_by_length(
    model: Any, encode: Callable, texts: list[str], precision: str = "fp32", batch_tokens: int | None = None,
    batch_size: int | None = None, **options: Any,
) -> torch.Tensor:  # fmt: skip
    """(n, d) float32 vectors of ``texts`` on the CPU, in their order.

    Args:
        model: A SentenceTransformer, or what has its ``encode`` methods.
        encode: Which of them.
        precision: See `PRECISION_HELP`.
        batch_tokens: Tokens of a batch, padding included; by default what suits the model's device.
        batch_size: Texts of a batch, whatever their length, instead.
        options: Further ones of ``encode``.
    """
    tokens = batch_tokens or tokens_per_batch(device_of(model))
    vectors: list[torch.Tensor] = [torch.empty(0, device="cpu")] * len(texts)
    with multiplying_in(precision, device_of(model)):
        for positions, _ in batches_by_length(texts, _tokenizer(model), tokens, batch_size):
            batch = encode(
                [texts[i] for i in positions], batch_size=len(positions), convert_to_tensor=True,
                show_progress_bar=False, **options,
            )  # fmt: skip
            for position, vector in zip(positions, batch.float().cpu()):
                vectors[position] = vector
    return torch.stack(vectors) if vectors else torch.empty(0, 0, device="cpu")


def encode_to_array(*args: Any, **kwargs: Any) -> np.ndarray:
    """`encode_by_length` as a numpy array."""
    return encode_by_length(*args, **kwargs).numpy()


def _tokenizer(model: Any) -> Callable:
    """What gives the tokens of texts; where ``model`` has no tokenizer of transformers, words stand for them."""
    tokenizer = getattr(model, "tokenizer", None)
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return partial(cast(Callable, tokenizer), truncation=True, max_length=model.max_seq_length)
    return lambda texts: {"input_ids": [text.split() for text in texts]}
